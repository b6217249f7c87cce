//! Logs of tasks, from CloudWatch Logs. They are polled: Live Tail costs by the minute, and no emulator has it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use jiff::Timestamp;
use tokio::time::Instant;

use super::error::{code, failed, is_uncertain};
use super::tasks::names_on_ecs;
use super::{Aws, services};
use crate::error::Hinted;
use crate::model::log::{Filter, Line};
use crate::pipeline::logs::Logs;
use crate::screen::note;

/// Between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The longest pause between two polls, after CloudWatch has refused calls.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_secs(30);
/// More services than this are read from the whole log group: each of them would be a call.
const MOST_CALLS: usize = 5;
/// How far back the last lines are searched, in minutes: step by step, because CloudWatch gives the oldest first.
const STEPS_BACK: [i64; 6] = [1, 10, 60, 6 * 60, 24 * 60, 30 * 24 * 60];
/// Lines with something in particular are searched no further back than this, in minutes: all lines are read to find them.
const SEARCH_BACK: i64 = 24 * 60;
const MINUTE: i64 = 60_000;

/// The logs of services. No line is returned twice, nor lost if it comes late.
pub(crate) struct TaskLogs<'a> {
    client: &'a Client,
    /// Log group of the environment.
    group: &'a str,
    /// Log groups and prefixes of log streams; empty for the whole group.
    prefixes: Vec<(String, String)>,
    /// The manifests' names of the services that are shown, by their names on ECS.
    names: BTreeMap<String, String>,
    /// Whether streams of no such service are shown too.
    all: bool,
    cursor: Cursor,
    poll_interval: Duration,
}

impl<'a> TaskLogs<'a> {
    /// The logs of these services, or of all.
    ///
    /// # Errors
    /// A name that no manifest has; a service that is not of the environment, or that logs in another region.
    pub(crate) async fn new(aws: &'a Aws, services: &[String]) -> anyhow::Result<TaskLogs<'a>> {
        let mut names = names_on_ecs(&aws.manifests, services)?;
        if !services.is_empty() {
            services::of_manifests(aws, services).await?;
        }
        let own = services.iter().filter_map(|name| Some((name, aws.manifests.services.get(name)?.own_log()?)));
        let own: Vec<_> = own.collect();
        let one_by_one = !services.is_empty() && (names.len() <= MOST_CALLS || !own.is_empty());
        let mut prefixes: BTreeMap<String, (String, String)> = BTreeMap::new();
        if one_by_one {
            let group = &aws.handover.log_group;
            prefixes.extend(names.iter().map(|(ecs, name)| (name.clone(), (group.clone(), format!("{ecs}/")))));
        }
        for (name, log) in own {
            if log.region != aws.handover.region {
                let message = format!("`{name}` logs in {}, not in {}", log.region, aws.handover.region);
                let hint = format!("`aws logs tail {} --region {} --follow` shows it", log.group, log.region);
                return Err(Hinted::new(message, hint).into());
            }
            names.insert(log.prefix.to_owned(), name.clone());
            prefixes.insert(name.clone(), (log.group.to_owned(), format!("{}/", log.prefix)));
        }
        let prefixes = prefixes.into_values().collect();
        Ok(Self {
            client: aws.clients.logs(),
            group: &aws.handover.log_group,
            prefixes,
            names,
            all: services.is_empty(),
            cursor: Cursor::new(Timestamp::now().as_millisecond()),
            poll_interval: POLL_INTERVAL,
        })
    }

    /// At least the last `lines` that the filter keeps, as far back as needed.
    async fn back(&mut self, filter: &Filter, lines: usize) -> anyhow::Result<Vec<Line>> {
        let mut until = filter.until.map(Timestamp::as_millisecond);
        let now = until.unwrap_or_else(|| Timestamp::now().as_millisecond());
        let mut found: Vec<Line> = Vec::new();
        for minutes in STEPS_BACK {
            if found.len() >= lines {
                break;
            }
            if filter.selects() && minutes > SEARCH_BACK {
                note("only one day was searched; `--since` searches further back");
                break;
            }
            let from = now - minutes * MINUTE;
            let mut earlier = self.between(from, until).await.map_err(|failure| failure.error)?;
            earlier.retain(|line| filter.keeps(line));
            earlier.append(&mut found);
            (found, until) = (earlier, Some(from - 1));
        }
        Ok(found)
    }

    /// The lines of this time that were not read yet, in the order of time.
    async fn between(&mut self, from: i64, to: Option<i64>) -> Result<Vec<Line>, ReadError> {
        let mut events = Vec::new();
        if self.prefixes.is_empty() {
            events = read(self.client, self.group, None, from, to).await?;
        }
        for (group, prefix) in &self.prefixes {
            events.extend(read(self.client, group, Some(prefix), from, to).await?);
        }
        self.cursor.begin_at(from);
        let fresh = self.cursor.fresh(events);
        Ok(fresh.iter().filter_map(|event| self.line(event)).collect())
    }

    /// The line of an event, if it is of one of these services.
    fn line(&self, event: &FilteredLogEvent) -> Option<Line> {
        // Streams are called `<prefix>/<container>/<task>`.
        let stream = event.log_stream_name().unwrap_or_default();
        let (on_ecs, rest) = stream.split_once('/').unwrap_or((stream, stream));
        let service = match self.names.get(on_ecs) {
            Some(name) => name.as_str(),
            None if self.all => on_ecs,
            None => return None,
        };
        let time = Timestamp::from_millisecond(event.timestamp().unwrap_or(0)).ok();
        let text = event.message().unwrap_or_default().trim_end_matches(['\r', '\n']);
        let task = rest.rsplit('/').next().unwrap_or(rest);
        Some(Line { service: service.to_owned(), task: task.to_owned(), time, text: text.to_owned() })
    }
}

impl Logs for TaskLogs<'_> {
    async fn tail(&mut self, filter: &Filter, lines: usize) -> anyhow::Result<Vec<Line>> {
        match filter.since {
            Some(since) => self
                .between(since.as_millisecond(), filter.until.map(Timestamp::as_millisecond))
                .await
                .map_err(|failure| failure.error),
            None => self.back(filter, lines).await,
        }
    }

    /// A call that may succeed later is repeated at the next poll, and later each time.
    async fn read_new(&mut self) -> anyhow::Result<Vec<Line>> {
        let now = Timestamp::now().as_millisecond();
        let from = self.cursor.next_from(Instant::now());
        match self.between(from, None).await {
            Ok(lines) => {
                self.cursor.read_until(now);
                self.poll_interval = POLL_INTERVAL;
                Ok(lines)
            }
            Err(failure) if failure.is_temporary => {
                if self.poll_interval == POLL_INTERVAL {
                    note(&format!("{:#}; going on", failure.error));
                }
                self.poll_interval = (self.poll_interval * 2).min(LONGEST_POLL_INTERVAL);
                Ok(Vec::new())
            }
            Err(failure) => Err(failure.error),
        }
    }

    fn poll_interval(&self) -> Duration {
        self.poll_interval
    }
}

/// CloudWatch gave no events.
struct ReadError {
    error: anyhow::Error,
    /// Whether the same call may succeed later.
    is_temporary: bool,
}

/// All events of the streams with this prefix, oldest first.
async fn read(
    client: &Client,
    group: &str,
    prefix: Option<&str>,
    from: i64,
    to: Option<i64>,
) -> Result<Vec<FilteredLogEvent>, ReadError> {
    let call = client.filter_log_events().log_group_name(group);
    let call = call.set_log_stream_name_prefix(prefix.map(str::to_owned)).start_time(from.max(0)).set_end_time(to);
    let mut events = Vec::new();
    let mut token = None;
    loop {
        let answer = call.clone().set_next_token(token).send().await.map_err(|error| {
            let throttled =
                code(&error).is_some_and(|code| code.contains("Throttl") || code == "LimitExceededException");
            let is_temporary = throttled || is_uncertain(&error);
            ReadError { error: failed(&format!("read the log group `{group}`"), error), is_temporary }
        })?;
        let is_ours = |event: &FilteredLogEvent| {
            prefix.is_none_or(|prefix| event.log_stream_name().is_some_and(|stream| stream.starts_with(prefix)))
        };
        events.extend(answer.events.unwrap_or_default().into_iter().filter(is_ours));
        token = answer.next_token.filter(|next| !next.is_empty());
        if token.is_none() {
            return Ok(events);
        }
    }
}

/// How far the logs were read. CloudWatch has no order of arrival: an earlier line may come later, so a part is always read again.
struct Cursor {
    /// Nothing before is read. Times are in milliseconds since 1970.
    begin: i64,
    /// Times and ids of the events that were read.
    read: BTreeSet<(i64, String)>,
    /// When the logs were last read.
    last: i64,
    /// When everything that can come late was last read again.
    thorough: Instant,
}

/// How much is read again each time, in milliseconds.
const OVERLAP: i64 = 30_000;
/// How much is read again once in a while: a task that could not reach CloudWatch sends its buffer later.
const LATEST: i64 = 10 * MINUTE;
/// Once in this time.
const THOROUGHLY: Duration = Duration::from_secs(60);

impl Cursor {
    fn new(now: i64) -> Self {
        Self { begin: i64::MAX, read: BTreeSet::new(), last: now, thorough: Instant::now() }
    }

    fn begin_at(&mut self, from: i64) {
        self.begin = self.begin.min(from);
    }

    /// From when on to read the next time.
    fn next_from(&mut self, now: Instant) -> i64 {
        let mut overlap = OVERLAP;
        if now.duration_since(self.thorough) >= THOROUGHLY {
            (self.thorough, overlap) = (now, LATEST);
        }
        (self.newest() - overlap).max(self.begin)
    }

    /// Time of the newest event, but no later than the last poll: the clock of a task may be ahead.
    fn newest(&self) -> i64 {
        self.read.last().map_or(self.last, |(time, _)| self.last.min(*time))
    }

    /// Everything until now was read, except for lines that come late.
    fn read_until(&mut self, now: i64) {
        self.last = self.last.max(now);
        let forgotten = self.newest() - LATEST;
        self.read = self.read.split_off(&(forgotten, String::new()));
    }

    /// Those that were not read before, in the order of time.
    fn fresh(&mut self, events: Vec<FilteredLogEvent>) -> Vec<FilteredLogEvent> {
        let mut fresh: Vec<FilteredLogEvent> =
            events.into_iter().filter(|event| self.read.insert(key(event))).collect();
        fresh.sort_by_key(FilteredLogEvent::timestamp);
        fresh
    }
}

fn key(event: &FilteredLogEvent) -> (i64, String) {
    let id = event.event_id().map(str::to_owned).unwrap_or_else(|| {
        format!("{} {}", event.log_stream_name().unwrap_or_default(), event.message().unwrap_or_default())
    });
    (event.timestamp().unwrap_or(0), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn event(time: i64, id: &str) -> FilteredLogEvent {
        FilteredLogEvent::builder().timestamp(time).event_id(id).message(id).build()
    }

    fn cursor(events: &[(i64, &str)]) -> Cursor {
        let mut cursor = Cursor::new(NOW);
        cursor.begin_at(NOW - 60 * MINUTE);
        cursor.fresh(events.iter().map(|(time, id)| event(*time, id)).collect());
        cursor
    }

    #[track_caller]
    fn check_fresh(cursor: &mut Cursor, events: &[(i64, &str)], expected: &[&str]) {
        let fresh = cursor.fresh(events.iter().map(|(time, id)| event(*time, id)).collect());
        assert_eq!(fresh.iter().filter_map(|event| event.event_id()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_event_is_shown_once_however_late_it_comes() {
        let mut cursor = cursor(&[(NOW, "a"), (NOW + 1, "b")]);
        check_fresh(&mut cursor, &[(NOW, "a"), (NOW + 1, "b"), (NOW + 1, "c"), (NOW - 5_000, "late")], &["late", "c"]);
        cursor.read_until(NOW + 2_000);
        check_fresh(&mut cursor, &[(NOW - 5_000, "late"), (NOW + 1, "c"), (NOW + 2_000, "d")], &["d"]);
    }

    #[test]
    fn what_is_read_again_is_still_known() {
        let mut cursor = cursor(&[(NOW - LATEST, "old"), (NOW, "new")]);
        cursor.read_until(NOW);
        check_fresh(&mut cursor, &[(NOW - LATEST, "old"), (NOW, "new")], &[]);
        check_fresh(&mut cursor, &[(NOW + 20 * MINUTE, "newer")], &["newer"]);
        cursor.read_until(NOW + 20 * MINUTE);
        assert_eq!(cursor.read.len(), 1, "{:?}", cursor.read);
    }

    #[track_caller]
    fn check_next(events: &[(i64, &str)], expected: i64) {
        assert_eq!(cursor(events).next_from(Instant::now()), expected);
    }

    #[test]
    fn reading_goes_on_a_little_before_the_newest_event_and_never_before_the_beginning() {
        check_next(&[(NOW - 90_000, "a")], NOW - 90_000 - OVERLAP);
        check_next(&[], NOW - OVERLAP);
        check_next(&[(NOW - 60 * MINUTE, "a")], NOW - 60 * MINUTE);
    }

    #[test]
    fn a_task_whose_clock_is_ahead_hides_nothing() {
        check_next(&[(NOW + 60 * MINUTE, "ahead")], NOW - OVERLAP);
    }

    #[test]
    fn now_and_then_everything_that_can_come_late_is_read_again() {
        let mut cursor = cursor(&[(NOW, "a")]);
        let later = Instant::now() + THOROUGHLY;
        assert_eq!(cursor.next_from(Instant::now()), NOW - OVERLAP);
        assert_eq!(cursor.next_from(later), NOW - LATEST);
        assert_eq!(cursor.next_from(later), NOW - OVERLAP);
    }
}
