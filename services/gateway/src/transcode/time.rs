//! The JSON forms of `google.protobuf.Timestamp` and `google.protobuf.Duration`.

use std::io::Write as _;

use proto::well_known::{Duration, Timestamp};

const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const MAX_SECONDS: u64 = 315_576_000_000;

pub(super) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // The parser accepts more than RFC 3339, for example a space instead of the `T`.
    if text.as_bytes().get(10).is_none_or(|letter| !letter.eq_ignore_ascii_case(&b'T')) || text.contains('[') {
        return None;
    }
    let parsed: jiff::Timestamp = text.parse().ok()?;
    let nanoseconds = parsed.as_nanosecond();
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
    let nanos = i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
    TIMESTAMPS.contains(&seconds).then_some(Timestamp { seconds, nanos })
}

pub(super) fn write_timestamp(timestamp: &Timestamp, out: &mut Vec<u8>) -> Option<()> {
    if !TIMESTAMPS.contains(&timestamp.seconds) || !(0..1_000_000_000).contains(&timestamp.nanos) {
        return None;
    }
    let whole = jiff::Timestamp::from_second(timestamp.seconds).ok()?;
    // This writes `…Z`; the fraction is inserted before the `Z`.
    write!(out, "\"{whole:.0}").ok()?;
    out.pop();
    fraction(timestamp.nanos.unsigned_abs(), out);
    out.extend(b"Z\"");
    Some(())
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if !all_digits(seconds) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    if seconds > MAX_SECONDS {
        return None;
    }
    let seconds = i64::try_from(seconds).ok()?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Some(if negative { Duration { seconds: -seconds, nanos: -nanos } } else { Duration { seconds, nanos } })
}

pub(super) fn write_duration(duration: &Duration, out: &mut Vec<u8>) -> Option<()> {
    let mixed = (duration.seconds > 0 && duration.nanos < 0) || (duration.seconds < 0 && duration.nanos > 0);
    let (seconds, nanos) = (duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs());
    if mixed || seconds > MAX_SECONDS || nanos >= 1_000_000_000 {
        return None;
    }
    let sign = if duration.seconds < 0 || duration.nanos < 0 { "-" } else { "" };
    write!(out, "\"{sign}{seconds}").ok()?;
    fraction(nanos, out);
    out.extend(b"s\"");
    Some(())
}

/// Writes 0, 3, 6 or 9 digits.
fn fraction(nanos: u32, out: &mut Vec<u8>) {
    let written = if nanos == 0 {
        Ok(())
    } else if nanos.is_multiple_of(1_000_000) {
        write!(out, ".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        write!(out, ".{:06}", nanos / 1_000)
    } else {
        write!(out, ".{nanos:09}")
    };
    written.expect("writing to a vector does not fail");
}
