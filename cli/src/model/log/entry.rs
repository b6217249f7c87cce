//! What a line of a log says: of services it is JSON, of `nats-server` it is `[pid] time [LVL] message`.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every detail.
    Trace,
    /// For the analysis of a failure.
    Debug,
    /// What happens.
    Info,
    /// What may need attention.
    Warn,
    /// What needs action.
    Error,
}

/// Ids that are in each line of a request, and where a line was written: they come last.
const LAST: [&str; 4] = ["target", "request_id", "trace_id", "span_id"];

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    /// When it was written, as it says itself.
    pub(crate) time: Option<Timestamp>,
    pub(crate) level: Option<Level>,
    /// The whole line, if it is in neither format.
    pub(crate) message: String,
    /// Everything else that it says, in the order in which it is shown.
    pub(crate) fields: Vec<(String, Value)>,
}

impl Entry {
    pub(crate) fn new(text: &str) -> Self {
        if let Some(Value::Object(fields)) = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten() {
            return Self::of_service(fields);
        }
        let Some(line) = NatsLine::new(text) else {
            return Self { message: text.to_owned(), ..Self::default() };
        };
        Self { time: line.time, level: line.level, message: line.message.to_owned(), fields: Vec::new() }
    }

    /// What is not understood stays a field.
    fn of_service(mut fields: Map<String, Value>) -> Self {
        let time = take(&mut fields, "timestamp");
        let level = take(&mut fields, "level");
        let message = take::<String>(&mut fields, "message").unwrap_or_default();
        let last: Vec<(String, Value)> = LAST.iter().filter_map(|name| fields.shift_remove_entry(*name)).collect();
        Self { time, level, message, fields: fields.into_iter().chain(last).collect() }
    }
}

fn take<T: FromStr>(fields: &mut Map<String, Value>, name: &str) -> Option<T> {
    let value = fields.get(name)?.as_str()?.parse().ok()?;
    fields.shift_remove(name);
    Some(value)
}

/// The level of a line, if it says one.
pub(super) fn level(text: &str) -> Option<Level> {
    #[derive(Deserialize)]
    struct Levelled<'a> {
        #[serde(borrow)]
        level: std::borrow::Cow<'a, str>,
    }
    match serde_json::from_str::<Levelled<'_>>(text) {
        Ok(levelled) => levelled.level.parse().ok(),
        Err(_) => NatsLine::new(text)?.level,
    }
}

/// The timestamp of a line of a service or of `nats-server`. A line without one continues the line before it.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Stamped {
        timestamp: Timestamp,
    }
    match serde_json::from_str::<Stamped>(text) {
        Ok(stamped) => Some(stamped.timestamp),
        Err(_) => NatsLine::new(text)?.time,
    }
}

/// `[4711] 2026/11/21 06:41:00.123456 [INF] Server is ready`, in local time.
struct NatsLine<'a> {
    time: Option<Timestamp>,
    level: Option<Level>,
    message: &'a str,
}

impl<'a> NatsLine<'a> {
    fn new(text: &'a str) -> Option<Self> {
        let (_, stamped) = text.strip_prefix('[')?.split_once("] ")?;
        let end = stamped.match_indices(' ').nth(1)?.0;
        let time = DateTime::strptime("%Y/%m/%d %H:%M:%S%.f", stamped.get(..end)?).ok()?;
        let time = time.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp());
        let rest = stamped.get(end + 1..)?;
        let levelled = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let level = levelled.and_then(|(level, message)| Some((level.parse().ok()?, message)));
        match level {
            Some((level, message)) => Some(Self { time, level: Some(level), message }),
            None => Some(Self { time, level: None, message: rest }),
        }
    }
}

impl Level {
    /// As it is written in a log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    /// Of the names that services, `nats-server` and people use.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "trace" | "trc" => Ok(Self::Trace),
            "debug" | "dbg" => Ok(Self::Debug),
            "info" | "inf" => Ok(Self::Info),
            "warn" | "wrn" | "warning" => Ok(Self::Warn),
            "error" | "err" | "ftl" | "fatal" => Ok(Self::Error),
            _ => Err(format!("`{text}` is no level; write `trace`, `debug`, `info`, `warn` or `error`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_a_service_is_taken_apart_and_its_ids_come_last() {
        let text = r#"{"timestamp":"2026-11-30T17:00:10.573Z","level":"INFO","target":"sdk::connection",
            "message":"connected to NATS","span_id":"ab","trace_id":"cd","url":"tls://x","zone":7}"#;
        let entry = Entry::new(text);
        assert_eq!(entry.time, Some("2026-11-30T17:00:10.573Z".parse().unwrap()));
        assert_eq!((entry.level, entry.message.as_str()), (Some(Level::Info), "connected to NATS"));
        let names: Vec<&str> = entry.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["url", "zone", "target", "trace_id", "span_id"]);
    }

    #[test]
    fn what_is_not_understood_stays_a_field() {
        let entry = Entry::new(r#"{"timestamp":"yesterday","level":30,"msg":"x"}"#);
        assert_eq!((entry.time, entry.level, entry.message.as_str()), (None, None, ""));
        let fields = [("timestamp", json!("yesterday")), ("level", json!(30)), ("msg", json!("x"))];
        assert_eq!(entry.fields, fields.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_line_of_a_server_is_taken_apart() {
        let entry = Entry::new("[4711] 2026/11/21 06:41:00.123456 [WRN] Slow consumer");
        assert_eq!((entry.level, entry.message.as_str()), (Some(Level::Warn), "Slow consumer"));
        let local = entry.time.unwrap().to_zoned(TimeZone::system()).datetime();
        assert_eq!(local, "2026-11-21T06:41:00.123456".parse().unwrap());
    }

    #[test]
    fn any_other_line_is_its_message() {
        for text in ["thread 'main' panicked", "[4711] panic: no time here", "{\"cut off", "[1, 2]", "", "{}x"] {
            assert_eq!(Entry::new(text), Entry { message: text.to_owned(), ..Entry::default() }, "{text}");
            assert_eq!((level(text), timestamp(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn levels_are_in_the_order_of_what_matters() {
        let read = |text: &str| text.parse::<Level>().unwrap();
        assert!(read("trace") < read("DBG") && read("Info") < read("warning") && read("warn") < read("FTL"));
        assert!("loud".parse::<Level>().unwrap_err().contains("`loud` is no level"));
    }
}
