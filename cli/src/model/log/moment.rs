//! A time as people type it: `10m` ago, at `17:00`, at `2026-11-30T17:00:10Z`.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use crate::model::units::Span;

/// When, before it is known what time it is. Times without a zone are UTC, as natsctl shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// The last time that it was so late.
    Clock(Time),
    At(Timestamp),
}

impl Moment {
    /// The moment that is meant.
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            // What is longer ago than there are timestamps is before everything.
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
            Self::Clock(time) => {
                let today = now.to_zoned(TimeZone::UTC).date();
                let on = |date: jiff::civil::Date| date.to_datetime(time).to_zoned(TimeZone::UTC).ok();
                let of_today = on(today).map(|zoned| zoned.timestamp()).filter(|time| *time <= now);
                let of_yesterday = || today.yesterday().ok().and_then(on).map(|zoned| zoned.timestamp());
                of_today.or_else(of_yesterday).unwrap_or(now)
            }
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // `10m` as other tools have it; `10min` as manifests have it.
        let minutes = text.strip_suffix('m').filter(|number| number.ends_with(|last: char| last.is_ascii_digit()));
        let span = minutes.map_or_else(|| text.parse::<Span>(), |number| format!("{number}min").parse());
        if let Ok(span) = span {
            return Ok(Self::Ago(span.duration()));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time));
        }
        // Without this, a date would be one with a time of midnight, and a time one without its date.
        if let Ok(time) = Time::strptime("%H:%M:%S", text).or_else(|_| Time::strptime("%H:%M", text)) {
            return Ok(Self::Clock(time));
        }
        let moment = text.parse::<DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::UTC).ok());
        moment.map(|zoned| Self::At(zoned.timestamp())).ok_or_else(|| {
            format!("`{text}` is no time; write for example `10m`, `17:00` or `2026-11-30T17:00:10Z`; without a zone it is UTC")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let now = "2026-11-30T17:00:10Z".parse().unwrap();
        assert_eq!(text.parse::<Moment>().unwrap().at(now), expected.parse().unwrap(), "{text}");
    }

    #[test]
    fn a_time_is_typed_as_people_say_it() {
        check("10m", "2026-11-30T16:50:10Z");
        check("10min", "2026-11-30T16:50:10Z");
        check("90 s", "2026-11-30T16:58:40Z");
        check("2h", "2026-11-30T15:00:10Z");
        check("16:45", "2026-11-30T16:45:00Z");
        check("17:00:10", "2026-11-30T17:00:10Z");
        // It is not so late yet.
        check("23:30", "2026-11-29T23:30:00Z");
        check("2026-11-21T06:41:00Z", "2026-11-21T06:41:00Z");
        check("2026-11-21T06:41:00+01:00", "2026-11-21T05:41:00Z");
        check("2026-11-21 06:41", "2026-11-21T06:41:00Z");
        check("2026-11-21", "2026-11-21T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        for text in ["", "10", "yesterday", "25:00", "-5m", "m"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("is no time; write for example `10m`"), "{error}");
        }
    }
}
