//! What tasks write: lines, and which of them are asked for. The same for every platform.

use jiff::Timestamp;
use serde::Serialize;

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
    /// Only those with this text in them.
    pub grep: Option<String>,
}

impl Filter {
    /// Whether a line is asked for. One whose time is unknown is not too old.
    pub fn keeps(&self, line: &Line) -> bool {
        let is_old = self.since.zip(line.time).is_some_and(|(since, time)| time < since);
        !is_old && self.grep.as_ref().is_none_or(|grep| line.text.contains(grep))
    }
}

/// The last `lines` of them.
pub(crate) fn last(mut found: Vec<Line>, lines: usize) -> Vec<Line> {
    let skipped = found.len().saturating_sub(lines);
    found.split_off(skipped)
}
