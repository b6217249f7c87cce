//! What a task has counted since it started, from its metrics in the text format of Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

/// Counters of one task, or of several together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    /// Requests that were answered: those of methods, at the gateway those of HTTP clients.
    pub(crate) requests: u64,
    /// Those of them that were answered with an error: with another code than `OK`, over HTTP with 4xx or 5xx.
    pub(crate) errors: u64,
    /// What they took together.
    time: Duration,
    /// How many of them took no longer than so many nanoseconds, and longer than those of the entry before.
    buckets: BTreeMap<u64, u64>,
    /// Requests that are being handled, which goes up and down; the gateway does not say.
    pub(crate) in_flight: Option<u64>,
}

/// The bucket of what took longer than any other bucket has.
const UNLIMITED: u64 = u64::MAX;

impl Counters {
    /// Reads what a service or the gateway shows.
    ///
    /// # Errors
    /// It is not what they show; follows the name of the endpoint in a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut counters = Self::default();
        let mut is_gateway = false;
        let mut up_to: BTreeMap<u64, u64> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(Metric { name, labels, value }) = Metric::parse(line) else { continue };
            let number = || value.parse::<u64>().map_err(|_| format!("has `{line}`, which is no number of requests"));
            match name {
                "requests_total" | "http_requests_total" => {
                    let number = number()?;
                    counters.requests += number;
                    counters.errors += if is_error(labels) { number } else { 0 };
                }
                "requests_in_flight" => counters.in_flight = Some(number()?),
                "http_connections_open" => is_gateway = true,
                "request_duration_seconds_sum" | "http_request_duration_seconds_sum" => {
                    counters.time += value.parse().ok().and_then(seconds).unwrap_or_default();
                }
                "request_duration_seconds_bucket" | "http_request_duration_seconds_bucket" => {
                    let bound = label(labels, "le").and_then(bound);
                    let bound = bound.ok_or_else(|| format!("has `{line}`, which has no upper bound"))?;
                    *up_to.entry(bound).or_default() += number()?;
                }
                _ => {}
            }
        }
        if counters.in_flight.is_none() && !is_gateway {
            return Err("shows no metrics of a service".to_owned());
        }
        counters.in_flight = counters.in_flight.filter(|_| !is_gateway);
        counters.buckets = one_by_one(&up_to);
        Ok(counters)
    }

    /// What was counted after `before`. A counter that went back is one of another process, which has begun with 0.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let went_back = self.requests < before.requests
            || self.errors < before.errors
            || self.time < before.time
            || before.buckets.iter().any(|(bound, count)| self.buckets.get(bound).is_none_or(|now| now < count));
        if went_back {
            return self.clone();
        }
        let earlier = |bound: &u64| before.buckets.get(bound).copied().unwrap_or_default();
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            time: self.time - before.time,
            buckets: self.buckets.iter().map(|(bound, count)| (*bound, count - earlier(bound))).collect(),
            in_flight: self.in_flight,
        }
    }

    /// Adds those of another task.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.time += other.time;
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
    }

    /// How long a request took on average; `None` if there was none.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let timed = self.timed();
        (timed > 0).then(|| Duration::from_secs_f64(self.time.as_secs_f64() / timed as f64))
    }

    /// How long this share of the requests took at most, for example 0.99 of them; `None` if there was none. It is estimated as
    /// Prometheus does, as if the requests of a bucket were spread evenly; of the last bucket, which has no upper bound, it is the lower one.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let timed = self.timed();
        let rank = (timed > 0).then_some(share * timed as f64)?;
        let (mut below, mut lower) = (0, 0);
        for (&upper, &count) in self.buckets.iter().filter(|(_, count)| **count > 0) {
            // Empty buckets are bounds, too.
            lower = self.buckets.range(..upper).next_back().map_or(0, |(bound, _)| *bound);
            if (below + count) as f64 >= rank && upper != UNLIMITED {
                let part = (rank - below as f64) / count as f64;
                let within = Duration::from_nanos(upper - lower).mul_f64(part.clamp(0.0, 1.0));
                return Some(Duration::from_nanos(lower) + within);
            }
            below += count;
        }
        Some(Duration::from_nanos(lower))
    }

    fn timed(&self) -> u64 {
        self.buckets.values().sum()
    }
}

/// Buckets of Prometheus have also what is in those below.
fn one_by_one(up_to: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    let mut below = 0;
    let one = |(bound, count): (&u64, &u64)| {
        let more = count.saturating_sub(below);
        below = below.max(*count);
        (*bound, more)
    };
    up_to.iter().map(one).collect()
}

fn is_error(labels: &str) -> bool {
    match (label(labels, "code"), label(labels, "status")) {
        (Some(code), _) => code != "OK",
        (None, Some(status)) => status.starts_with(['4', '5']),
        (None, None) => false,
    }
}

/// An upper bound in seconds, as nanoseconds.
fn bound(text: &str) -> Option<u64> {
    if text == "+Inf" {
        return Some(UNLIMITED);
    }
    u64::try_from(seconds(text.parse().ok()?)?.as_nanos()).ok()
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

/// One line.
struct Metric<'a> {
    name: &'a str,
    /// Without the braces.
    labels: &'a str,
    value: &'a str,
}

impl<'a> Metric<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self { name, labels: labels.trim_end_matches('}'), value })
    }
}

/// The value of a label, as it is written.
fn label<'a>(labels: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = labels;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut is_escaped = false;
        let end = after.find(|letter| {
            let is_end = letter == '"' && !is_escaped;
            is_escaped = letter == '\\' && !is_escaped;
            is_end
        })?;
        if name.trim_start_matches(',') == wanted {
            return Some(&after[..end]);
        }
        rest = &after[end + 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the SDK writes it.
    const SERVICE: &str = "\
# HELP requests Requests answered, by method and outcome.
# TYPE requests counter
requests_total{method=\"quest.v1.get\",code=\"OK\"} 6
requests_total{method=\"quest.v1.get\",code=\"NOT_FOUND\"} 3
requests_total{method=\"quest.v1.list\",code=\"OK\"} 1
# TYPE request_duration_seconds histogram
request_duration_seconds_sum{method=\"quest.v1.get\"} 0.009
request_duration_seconds_count{method=\"quest.v1.get\"} 9
request_duration_seconds_bucket{le=\"0.001\",method=\"quest.v1.get\"} 5
request_duration_seconds_bucket{le=\"0.0025\",method=\"quest.v1.get\"} 8
request_duration_seconds_bucket{le=\"+Inf\",method=\"quest.v1.get\"} 9
request_duration_seconds_sum{method=\"quest.v1.list\"} 0.001
request_duration_seconds_bucket{le=\"0.001\",method=\"quest.v1.list\"} 1
request_duration_seconds_bucket{le=\"0.0025\",method=\"quest.v1.list\"} 1
request_duration_seconds_bucket{le=\"+Inf\",method=\"quest.v1.list\"} 1
calls_total{method=\"state.v1.get\",code=\"OK\"} 99
# TYPE requests_in_flight gauge
requests_in_flight 2
# EOF
";

    fn buckets(counts: &[(u64, u64)]) -> Counters {
        Counters { buckets: counts.iter().copied().collect(), ..Counters::default() }
    }

    #[test]
    fn the_methods_of_a_service_are_added_up() {
        let counters = Counters::parse(SERVICE).unwrap();
        assert_eq!((counters.requests, counters.errors, counters.in_flight), (10, 3, Some(2)));
        assert_eq!(counters.buckets, BTreeMap::from([(1_000_000, 6), (2_500_000, 3), (UNLIMITED, 1)]));
        assert_eq!(counters.mean(), Some(Duration::from_millis(1)));
    }

    #[test]
    fn at_the_gateway_http_requests_count_and_what_is_in_flight_is_not_known() {
        let text = "http_requests_total{route=\"/api/x \\\"{y}\\\"\",status=\"2xx\"} 4\n\
                    http_requests_total{route=\"/api/x\",status=\"4xx\"} 2\n\
                    http_requests_total{route=\"/api/x\",status=\"5xx\"} 1\n\
                    http_connections_open 1\nrequests_in_flight 0\n";
        let counters = Counters::parse(text).unwrap();
        assert_eq!((counters.requests, counters.errors, counters.in_flight), (7, 3, None));
        assert_eq!((counters.mean(), counters.quantile(0.5)), (None, None));
    }

    #[test]
    fn what_is_no_metrics_is_no_0() {
        assert_eq!(Counters::parse("hello"), Err("shows no metrics of a service".to_owned()));
        let broken = Counters::parse("requests_total{code=\"OK\"} many\n").unwrap_err();
        assert_eq!(broken, "has `requests_total{code=\"OK\"} many`, which is no number of requests");
        assert!(Counters::parse("request_duration_seconds_bucket{le=\"x\"} 1\n").is_err());
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        let check = |counts: &[(u64, u64)], share: f64, expected_ns: u64| {
            assert_eq!(buckets(counts).quantile(share), Some(Duration::from_nanos(expected_ns)), "{counts:?} {share}");
        };
        check(&[(100, 10), (200, 10)], 0.5, 100);
        check(&[(100, 10), (200, 10)], 0.75, 150);
        check(&[(100, 10), (200, 0), (300, 10)], 0.75, 250);
        check(&[(100, 10)], 0.5, 50);
        check(&[(100, 1), (UNLIMITED, 9)], 0.99, 100);
        assert_eq!(buckets(&[(100, 0)]).quantile(0.99), None);
    }

    #[test]
    fn quantiles_are_those_of_the_time_between() {
        let before = buckets(&[(100, 1_000), (200, 0), (UNLIMITED, 0)]);
        let now = buckets(&[(100, 1_000), (200, 10), (UNLIMITED, 0)]);
        assert_eq!(now.since(&before).quantile(0.5), Some(Duration::from_nanos(150)));
        assert_eq!(before.since(&now), before, "another process");
    }
}
