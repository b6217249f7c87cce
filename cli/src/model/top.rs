//! What services do now: the difference between what their tasks had counted and what they have counted since.

mod counters;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::counters::Counters;

/// What the tasks of services have counted, at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Since a time that all samples which are compared have in common.
    pub(crate) at: Duration,
    /// By service, and then by the task's id.
    pub(crate) services: BTreeMap<String, BTreeMap<String, TaskSample>>,
}

/// What is known of one task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskSample {
    pub(crate) answer: Answer,
    /// Memory that its process uses, where that can be read.
    pub(crate) memory_mib: Option<u64>,
}

/// What a task answers to the question what it has counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Since it started.
    Counted(Counters),
    /// Nothing yet: it has not been ready.
    Starting,
    /// Nothing, and why.
    Silent(String),
}

/// What the services of an environment did in an interval, the busiest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Top {
    pub(crate) environment: String,
    /// Length of the interval.
    pub(crate) seconds: f64,
    pub(crate) services: Vec<ServiceLoad>,
}

/// What the tasks of one service did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ServiceLoad {
    pub(crate) name: String,
    pub(crate) tasks: u32,
    /// Of how many of the tasks the figures below are.
    pub(crate) measured: u32,
    /// What its requests were; `None` if that was measured of no task.
    #[serde(flatten)]
    pub(crate) requests: Option<Requests>,
    /// Requests that are being handled; the gateway does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<u64>,
    /// Memory that its tasks use together, where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mib: Option<u64>,
    /// The tasks that did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) silent: Vec<SilentTask>,
}

/// The requests that a service answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Requests {
    pub(crate) requests_per_second: f64,
    /// Answered with an error, of the caller or of the service.
    pub(crate) errors_per_second: f64,
    #[serde(flatten)]
    pub(crate) answers: Option<Answers>,
}

/// How requests were answered, if there were any. Times are in microseconds; percentiles are estimates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Answers {
    pub(crate) error_percent: f64,
    pub(crate) mean_us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// A task that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SilentTask {
    pub(crate) task: String,
    pub(crate) reason: String,
}

impl Top {
    /// What was done between two samples of the same services. Without an earlier one, only what is counted in no interval is known.
    pub(crate) fn new(environment: &str, before: Option<&Sample>, now: &Sample) -> Self {
        let interval = before.map(|before| now.at.saturating_sub(before.at)).unwrap_or_default();
        let of_service = |(name, tasks): (&String, &BTreeMap<String, TaskSample>)| {
            let before = before.map(|sample| sample.services.get(name));
            let earlier = |task: &str| Earlier::of(before.map(|tasks| tasks.and_then(|tasks| tasks.get(task))));
            ServiceLoad::new(name, tasks, earlier, interval)
        };
        let mut services: Vec<ServiceLoad> = now.services.iter().map(of_service).collect();
        services.sort_by(|a, b| b.rate().total_cmp(&a.rate()));
        Self { environment: environment.to_owned(), seconds: rounded(interval.as_secs_f64()), services }
    }
}

/// What a task had counted when it was asked before.
enum Earlier<'a> {
    Counted(&'a Counters),
    /// It is new since then, so that it had counted nothing.
    Nothing,
    Unknown,
}

impl<'a> Earlier<'a> {
    /// From an earlier sample, if there is one, of a task, if it existed.
    fn of(sampled: Option<Option<&'a TaskSample>>) -> Self {
        match sampled.map(|task| task.map(|task| &task.answer)) {
            Some(Some(Answer::Counted(counters))) => Self::Counted(counters),
            Some(None | Some(Answer::Starting)) => Self::Nothing,
            Some(Some(Answer::Silent(_))) | None => Self::Unknown,
        }
    }
}

impl ServiceLoad {
    fn new<'a>(
        name: &str,
        tasks: &BTreeMap<String, TaskSample>,
        earlier: impl Fn(&str) -> Earlier<'a>,
        interval: Duration,
    ) -> Self {
        let mut load = Self { name: name.to_owned(), tasks: count(tasks.len()), ..Self::default() };
        let mut together = Counters::default();
        for (id, task) in tasks {
            load.memory_mib = sum(load.memory_mib, task.memory_mib);
            match &task.answer {
                Answer::Counted(counters) => {
                    load.in_flight = sum(load.in_flight, counters.in_flight);
                    let Some(difference) = difference(&earlier(id), counters) else { continue };
                    together.add(&difference);
                    load.measured += 1;
                }
                Answer::Starting => {}
                Answer::Silent(reason) => load.silent.push(SilentTask { task: id.clone(), reason: reason.clone() }),
            }
        }
        load.requests = (load.measured > 0 && !interval.is_zero()).then(|| Requests::new(&together, interval));
        load
    }

    /// Requests per second, to sort by.
    fn rate(&self) -> f64 {
        self.requests.map_or(-1.0, |requests| requests.requests_per_second)
    }
}

/// What a task has counted since it was asked before; `None` if that is not known.
fn difference(earlier: &Earlier<'_>, now: &Counters) -> Option<Counters> {
    match earlier {
        Earlier::Counted(before) => Some(now.since(before)),
        Earlier::Nothing => Some(now.clone()),
        Earlier::Unknown => None,
    }
}

impl Requests {
    fn new(counters: &Counters, interval: Duration) -> Self {
        let rate = |count: u64| rounded(count as f64 / interval.as_secs_f64());
        Self {
            requests_per_second: rate(counters.requests),
            errors_per_second: rate(counters.errors),
            answers: Answers::new(counters),
        }
    }
}

impl Answers {
    fn new(counters: &Counters) -> Option<Self> {
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let requests = Some(counters.requests).filter(|requests| *requests > 0)?;
        Some(Self {
            error_percent: rounded(counters.errors as f64 * 100.0 / requests as f64),
            mean_us: microseconds(counters.mean()?),
            p50_us: microseconds(counters.quantile(0.5)?),
            p99_us: microseconds(counters.quantile(0.99)?),
        })
    }
}

/// To one digit after the point: more are noise.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Of what is known.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn counted(requests: u64, errors: u64) -> Answer {
        let text = format!(
            "requests_total{{method=\"a.get\",code=\"OK\"}} {}\n\
             requests_total{{method=\"a.get\",code=\"NOT_FOUND\"}} {errors}\n\
             request_duration_seconds_sum{{method=\"a.get\"}} {}\n\
             request_duration_seconds_bucket{{le=\"0.001\",method=\"a.get\"}} {requests}\n\
             request_duration_seconds_bucket{{le=\"+Inf\",method=\"a.get\"}} {requests}\n\
             requests_in_flight 1\n",
            requests - errors,
            requests as f64 * 0.0005
        );
        Answer::Counted(Counters::parse(&text).unwrap())
    }

    fn sample(seconds: u64, tasks: &[(&str, Answer)]) -> Sample {
        let of = |(id, answer): &(&str, Answer)| {
            ((*id).to_owned(), TaskSample { answer: answer.clone(), memory_mib: Some(10) })
        };
        let services = BTreeMap::from([("auth".to_owned(), tasks.iter().map(of).collect())]);
        Sample { at: Duration::from_secs(seconds), services }
    }

    #[track_caller]
    fn check(before: &[(&str, Answer)], now: &[(&str, Answer)], expected: Value) {
        let top = Top::new("test", Some(&sample(1, before)), &sample(3, now));
        let shown = json!(top.services[0]);
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(shown.get(key).unwrap_or(&Value::Null), value, "{key}: {shown:#}");
        }
    }

    #[test]
    fn rates_are_differences_of_all_tasks_by_the_interval() {
        let all = json!({ "tasks": 2, "measured": 2, "requests_per_second": 20.0, "errors_per_second": 2.5,
            "error_percent": 12.5, "mean_us": 500, "p50_us": 500, "p99_us": 990, "in_flight": 2, "memory_mib": 20 });
        check(&[("a", counted(100, 0)), ("b", counted(5, 5))], &[("a", counted(130, 5)), ("b", counted(15, 5))], all);
        let none =
            json!({ "requests_per_second": 0.0, "errors_per_second": 0.0, "error_percent": null, "p99_us": null });
        check(&[("a", counted(100, 0))], &[("a", counted(100, 0))], none);
    }

    #[test]
    fn a_task_that_counts_less_than_before_is_a_new_one() {
        let new = json!({ "measured": 1, "requests_per_second": 5.0, "errors_per_second": 0.0 });
        check(&[("a", counted(1000, 7))], &[("a", counted(10, 0))], new.clone());
        check(&[("a", counted(1000, 7))], &[("b", counted(10, 0))], new.clone());
        check(&[("a", Answer::Starting)], &[("a", counted(10, 0))], new);
    }

    #[test]
    fn a_task_that_does_not_answer_is_named_and_not_counted_as_0() {
        let silent = Answer::Silent("`/metrics` was not answered within 1s".to_owned());
        let named = json!([{ "task": "b", "reason": "`/metrics` was not answered within 1s" }]);
        let some = json!({ "tasks": 2, "measured": 1, "requests_per_second": 5.0, "silent": named });
        check(&[("a", counted(0, 0)), ("b", counted(0, 0))], &[("a", counted(10, 0)), ("b", silent.clone())], some);
        let none = json!({ "tasks": 1, "measured": 0, "requests_per_second": null, "in_flight": null });
        check(&[("b", counted(0, 0))], &[("b", silent.clone())], none.clone());
        // How much of what it has counted is new is not known.
        check(&[("b", silent)], &[("b", counted(1000, 0))], json!({ "measured": 0, "requests_per_second": null }));
        check(&[], &[("b", Answer::Starting)], json!({ "tasks": 1, "measured": 0, "silent": null }));
    }

    #[test]
    fn the_busiest_service_is_the_first_and_those_that_are_not_known_are_the_last() {
        let service = |name: &str, tasks: &[(&str, Answer)]| {
            let mut sample = sample(0, tasks);
            (name.to_owned(), sample.services.remove("auth").unwrap())
        };
        let services = |requests: u64| {
            BTreeMap::from([
                service("a", &[("1", Answer::Silent("gone".to_owned()))]),
                service("b", &[("2", counted(requests, 0))]),
                service("c", &[("3", counted(requests * 2, 0))]),
            ])
        };
        let at = |seconds, requests| Sample { at: Duration::from_secs(seconds), services: services(requests) };
        let top = Top::new("test", Some(&at(0, 10)), &at(2, 20));
        assert_eq!(top.services.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["c", "b", "a"]);
        let first = Top::new("test", None, &at(0, 10));
        assert!(first.services.iter().all(|one| one.requests.is_none()), "{first:?}");
    }
}
