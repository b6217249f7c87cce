//! The JSON forms of `google.protobuf.Timestamp` and `google.protobuf.Duration`.

use std::io::Write as _;

use proto::well_known::{Duration, Timestamp};

const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const MAX_SECONDS: u64 = 315_576_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const DAYS_OF_400_YEARS: i64 = 146_097;
/// From 0000-03-01.
const DAYS_BEFORE_1970: i64 = 719_468;

/// Parses a time in RFC 3339, from the year 1 to the year 9999. Leap seconds are refused: they would be another second.
pub(super) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (start, rest) = text.as_bytes().split_at_checked("0000-00-00T00:00:00".len())?;
    let [year, month, day, hour, minute, second] = numbers(start, b"0000-00-00T00:00:00")?;
    let (fraction, offset) = rest.split_at(rest.iter().take_while(|byte| b".0123456789".contains(byte)).count());
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            format!("{:0<9}", std::str::from_utf8(digits).ok()?).parse().ok()?
        }
        _ => return None,
    };
    let offset = match offset {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let [hours, minutes] = numbers(offset, b"00:00")?;
            let seconds = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let is_time = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = days_until(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    (is_time && TIMESTAMPS.contains(&seconds)).then_some(Timestamp { seconds, nanos })
}

/// The numbers in a text of this form, in which zeros stand for digits and letters for themselves in either case.
fn numbers<const N: usize>(text: &[u8], form: &[u8]) -> Option<[i64; N]> {
    if text.len() != form.len() {
        return None;
    }
    let (mut numbers, mut index) = ([0; N], 0);
    for (byte, form) in text.iter().zip(form) {
        match form {
            b'0' if byte.is_ascii_digit() => numbers[index] = numbers[index] * 10 + i64::from(byte - b'0'),
            b'0' => return None,
            _ if byte.eq_ignore_ascii_case(form) => index += 1,
            _ => return None,
        }
    }
    Some(numbers)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970-01-01 to this day of the Gregorian calendar. Years are counted from March, so that a leap day is the
/// last of its year.
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_BEFORE_1970
}

/// The year, month and day that begin this many days after 1970-01-01.
fn day_after(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (day * 5 + 2) / 153;
    let (day, year) = (day - (month * 153 + 2) / 5 + 1, year + era * 400);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

pub(super) fn write_timestamp(timestamp: &Timestamp, out: &mut Vec<u8>) -> Option<()> {
    if !TIMESTAMPS.contains(&timestamp.seconds) || !(0..1_000_000_000).contains(&timestamp.nanos) {
        return None;
    }
    let (year, month, day) = day_after(timestamp.seconds.div_euclid(SECONDS_PER_DAY));
    let second = timestamp.seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seconds: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(&Timestamp { seconds, nanos: 0 }, &mut out).unwrap();
        String::from_utf8(out).unwrap().trim_matches('"').to_owned()
    }

    /// The calendar repeats itself after 400 years.
    #[test]
    fn every_day_of_the_calendar_is_read_as_it_is_written_and_follows_the_day_before() {
        let (mut year, mut month, mut day) = (1, 1, 1);
        for number in 0..=DAYS_OF_400_YEARS {
            let seconds = TIMESTAMPS.start() + number * SECONDS_PER_DAY;
            let text = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(written(seconds), text);
            assert_eq!(parse_timestamp(&text), Some(Timestamp { seconds, nanos: 0 }), "{text}");
            day += 1;
            if day > days_in_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (401, 1, 2));
    }

    #[test]
    fn times_are_what_jiff_says_where_it_has_them() {
        for seconds in (-62_135_596_800..253_402_207_200_i64).step_by(86_400 * 777 + 12_345) {
            assert_eq!(written(seconds), jiff::Timestamp::from_second(seconds).unwrap().to_string());
        }
        assert_eq!(written(*TIMESTAMPS.end()), "9999-12-31T23:59:59Z");
    }
}
