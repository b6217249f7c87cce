//! Lines of logs: for people, as they were written, and as data.

use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::printable::{Colours, Paint, Printable};
use super::{Format, colours, item, write_line};
use crate::model::log::{Entry, Level, Line};

/// Digits of a task's id that tell it from the others of its service.
const TASK_DIGITS: usize = 4;
/// Columns of a time and of a level, for lines that have none.
const TIME: usize = "17:00:10.573".len();
const LEVEL: usize = "ERROR".len();

/// How lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people: time, level, task, message, fields.
    Formatted,
    /// As the service wrote it.
    Raw,
    /// For programs: one JSON document for each line.
    Json,
}

/// A line on standard output, at once. A terminal gets its colours and no other control sequences; what is raw goes to a file or another
/// program as the service wrote it.
pub(crate) fn line(line: &Line, style: Style) -> anyhow::Result<()> {
    let out = io::stdout();
    match style {
        Style::Json => item(line, &line.text, Format::Json)?,
        Style::Raw if out.is_terminal() => write_line(&Printable::log(&line.text, colours(&out)))?,
        Style::Raw => write_line(&Printable::verbatim(&line.text))?,
        Style::Formatted => write_line(&formatted(line, Timestamp::now(), colours(&out)))?,
    }
    Ok(())
}

/// `17:00:10.573 INFO  gateway/734c connected to NATS  url=tls://127.0.0.1:4222`; a line of another day than today's begins with its date.
fn formatted(line: &Line, now: Timestamp, colours: Colours) -> Printable<'static> {
    let entry = Entry::new(&line.text);
    let level = entry.level.map_or("", Level::name);
    let mut fields: String = entry.fields.iter().map(|(name, value)| format!(" {name}={}", shown(value))).collect();
    if !fields.is_empty() && !entry.message.is_empty() {
        fields.insert(0, ' ');
    }
    // What goes on in the next line cannot be taken for another line of the log.
    let message = format!(" {}", entry.message.replace('\n', "\n    "));
    let message = if entry.message.is_empty() { "" } else { &message };
    Printable::painted(
        [
            (Paint::Dim, time(entry.time.or(line.time), now).as_str()),
            (Paint::Plain, " "),
            (paint(entry.level), level),
            (Paint::Plain, &" ".repeat(LEVEL - level.len() + 1)),
            (Paint::Plain, &source(line)),
            (Paint::Plain, message),
            (Paint::Dim, &fields),
        ],
        colours,
    )
}

/// The task that wrote it.
fn source(line: &Line) -> String {
    let digits: String = line.task.chars().take(TASK_DIGITS).collect();
    format!("{}/{digits}", line.service)
}

fn time(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return " ".repeat(TIME) };
    let date = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
    let format = if date(time) == date(now) { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S%.3f" };
    time.strftime(format).to_string()
}

fn paint(level: Option<Level>) -> Paint {
    match level {
        Some(Level::Error) => Paint::Red,
        Some(Level::Warn) => Paint::Yellow,
        Some(Level::Info) => Paint::Green,
        Some(Level::Debug) => Paint::Blue,
        Some(Level::Trace) => Paint::Dim,
        None => Paint::Plain,
    }
}

/// A word as it is; everything else as JSON, so that one sees where it ends.
fn shown(value: &Value) -> String {
    let is_word = |text: &str| !text.is_empty() && !text.contains(|sign: char| sign.is_whitespace() || sign == '"');
    match value {
        Value::String(text) if is_word(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(text: &str) -> Line {
        let time = Some("2026-11-30T17:00:11Z".parse().unwrap());
        Line { service: "gateway".to_owned(), task: "734c01ab".to_owned(), time, text: text.to_owned() }
    }

    #[track_caller]
    fn check(line: &Line, expected: &str) {
        let now = "2026-11-30T18:00:00Z".parse().unwrap();
        assert_eq!(formatted(line, now, Colours::Drop).as_str(), expected);
    }

    #[test]
    fn a_line_of_a_service_is_time_level_task_message_and_fields() {
        let text = r#"{"timestamp":"2026-11-30T17:00:10.5731Z","level":"INFO","target":"sdk","message":"connected to NATS",
            "url":"tls://x","peer":"a b","empty":"","count":2,"ok":true,"trace_id":"ab"}"#;
        let shown = "17:00:10.573 INFO  gateway/734c connected to NATS  \
                     url=tls://x peer=\"a b\" empty=\"\" count=2 ok=true target=sdk trace_id=ab";
        check(&logged(&text.replace('\n', "")), shown);
        check(&logged(r#"{"level":"WARN","code":7}"#), "17:00:11.000 WARN  gateway/734c code=7");
    }

    #[test]
    fn other_lines_are_as_they_are_behind_their_time_and_task() {
        check(&logged("thread 'main' panicked"), "17:00:11.000       gateway/734c thread 'main' panicked");
        let untimed = Line { time: None, ..logged("x") };
        check(&untimed, "                   gateway/734c x");
    }

    #[test]
    fn a_line_of_another_day_has_its_date() {
        let text = r#"{"timestamp":"2026-11-29T23:59:59.9Z","level":"ERROR","message":"x"}"#;
        check(&logged(text), "2026-11-29 23:59:59.900 ERROR gateway/734c x");
    }

    #[test]
    fn no_line_can_be_taken_for_two_and_no_control_sequence_gets_through() {
        let text = r#"{"level":"INFO","message":"a\n17:00:12.000 ERROR b\u001b[2J","field":"\u009b1A\nx"}"#;
        let shown = "17:00:11.000 INFO  gateway/734c a\n    17:00:12.000 ERROR b\\u001b[2J  field=\"\\u009b1A\\nx\"";
        check(&logged(text), shown);
    }

    #[test]
    fn levels_are_coloured_where_colours_are_welcome() {
        let line = logged(r#"{"level":"ERROR","message":"x","a":1}"#);
        let now = "2026-11-30T18:00:00Z".parse().unwrap();
        let shown = formatted(&line, now, Colours::Keep);
        let expected = "\x1b[2m17:00:11.000\x1b[0m \x1b[31mERROR\x1b[0m gateway/734c x\x1b[2m  a=1\x1b[0m";
        assert_eq!(shown.as_str(), expected);
    }
}
