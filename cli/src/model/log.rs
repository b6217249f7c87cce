//! What tasks write: lines, what they say, and which of them are asked for. The same for every platform.

mod entry;
mod moment;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use self::entry::Entry;
pub use self::entry::{Level, timestamp};
pub(crate) use self::moment::Moment;

/// What a task wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Service, or NATS node.
    pub service: String,
    /// Which task.
    pub task: String,
    /// When, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Without its end.
    #[serde(rename = "line")]
    pub text: String,
}

/// Which lines are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not those that are older.
    pub since: Option<Timestamp>,
    /// Not those that are newer.
    pub until: Option<Timestamp>,
    /// Only those with this text in them.
    pub grep: Option<String>,
    /// Not those of a lower level. A line that says no level may be part of a panic, and stays.
    pub level: Option<Level>,
    /// Only those of tasks whose ids begin so, where tasks of their service are named: service and beginning.
    pub tasks: BTreeSet<(String, String)>,
    /// Not those of these tasks.
    pub except: BTreeSet<String>,
}

impl Filter {
    /// Whether a line is asked for. One whose time is unknown is neither too old nor too new.
    pub fn keeps(&self, line: &Line) -> bool {
        let is_old = self.since.zip(line.time).is_some_and(|(since, time)| time < since);
        let is_new = self.until.zip(line.time).is_some_and(|(until, time)| time > until);
        !is_old
            && !is_new
            && self.keeps_task(line)
            && self.grep.as_ref().is_none_or(|grep| line.text.contains(grep))
            && self.level.is_none_or(|least| entry::level(&line.text).is_none_or(|level| level >= least))
    }

    /// Whether it keeps some lines of one time and not others, so that few among many may be kept.
    pub fn selects(&self) -> bool {
        self.grep.is_some() || self.level.is_some() || !self.tasks.is_empty() || !self.except.is_empty()
    }

    fn keeps_task(&self, line: &Line) -> bool {
        let mut named = self.tasks.iter().filter(|(service, _)| *service == line.service).peekable();
        let is_named = named.peek().is_none() || named.any(|(_, beginning)| line.task.starts_with(beginning));
        is_named && !self.except.contains(&line.task)
    }
}

/// The last `lines` of them.
pub(crate) fn last(mut found: Vec<Line>, lines: usize) -> Vec<Line> {
    let skipped = found.len().saturating_sub(lines);
    found.split_off(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(task: &str, text: &str) -> Line {
        let time = Some("2026-11-30T17:00:10Z".parse().unwrap());
        Line { service: "quest".to_owned(), task: task.to_owned(), time, text: text.to_owned() }
    }

    #[track_caller]
    fn check(filter: Filter, line: &Line, expected: bool) {
        assert_eq!(filter.keeps(line), expected, "{filter:?} {line:?}");
    }

    #[test]
    fn a_line_is_kept_by_its_time() {
        let at = |text: &str| Some(text.parse().unwrap());
        let line = line("a", "x");
        for (since, until, expected) in [
            (at("2026-11-30T17:00:10Z"), at("2026-11-30T17:00:10Z"), true),
            (at("2026-11-30T17:00:11Z"), None, false),
            (None, at("2026-11-30T17:00:09Z"), false),
        ] {
            check(Filter { since, until, ..Filter::default() }, &line, expected);
        }
        let untimed = Line { time: None, ..line };
        check(Filter { until: at("2026-11-30T17:00:09Z"), ..Filter::default() }, &untimed, true);
    }

    #[test]
    fn a_line_is_kept_by_its_level_and_one_without_a_level_stays() {
        let warn = || Filter { level: Some(Level::Warn), ..Filter::default() };
        check(warn(), &line("a", r#"{"level":"INFO"}"#), false);
        check(warn(), &line("a", r#"{"level":"ERROR"}"#), true);
        check(warn(), &line("a", "thread 'main' panicked"), true);
        check(warn(), &line("a", "[7] 2026/11/30 17:00:10.1 [DBG] ping"), false);
    }

    #[test]
    fn a_line_is_kept_by_its_task() {
        let of = |service: &str, task: &str| Filter {
            tasks: [(service.to_owned(), task.to_owned())].into(),
            ..Filter::default()
        };
        check(of("quest", "73"), &line("734c", "x"), true);
        check(of("quest", "8"), &line("734c", "x"), false);
        // Tasks of another service are named.
        check(of("auth", "8"), &line("734c", "x"), true);
        let except = Filter { except: ["734c".to_owned()].into(), ..Filter::default() };
        check(except, &line("734c", "x"), false);
    }
}
