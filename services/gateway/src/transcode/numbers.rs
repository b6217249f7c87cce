//! Parses numbers, and refuses those that their type cannot hold.

use super::json::Json;
use super::schema::Kind;

/// A number with at most this many characters and no exponent is held exactly enough by any type: it is read back as it
/// was written.
const ALWAYS_EXACT_DOUBLE: usize = 15;
const ALWAYS_EXACT_FLOAT: usize = 6;
/// The digits that always fit into `i128`.
const MAX_DIGITS: usize = 38;

/// The name of this kind of integer in messages.
pub(super) fn integer_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Uint32 | Kind::Fixed32 => "a whole number from 0 to 4294967295",
        Kind::Uint64 | Kind::Fixed64 => "a whole number from 0 to 18446744073709551615",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a whole number of 64 bits",
        _ => "a whole number of 32 bits",
    }
}

/// What a text is as a whole number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// Exactly this number, for example `5`, `5.0` and `5e2`.
    Value(i128),
    /// A whole number that no integer type holds.
    TooLarge,
    /// A number with a fraction, or not a number.
    Other,
}

/// Parses a whole number.
pub(super) fn whole(text: &str) -> Whole {
    if !is_number(text) {
        return Whole::Other;
    }
    match text.parse::<i128>() {
        Ok(value) => Whole::Value(value),
        Err(_) => Decimal::parse(text).whole(),
    }
}

/// Why a number cannot be held by a floating-point type.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inexact {
    /// It would be infinite.
    OutOfRange,
    /// It would be 0.
    TooSmall,
    /// It is a whole number, and would be this one.
    Rounded(String),
}

/// Parses a number as a double. Fractions are rounded to the nearest double; whole numbers must be held exactly, or be
/// what is read back.
pub(super) fn double(text: &str) -> Result<f64, Inexact> {
    let value: f64 = text.parse().map_err(|_| Inexact::OutOfRange)?;
    if text.len() > ALWAYS_EXACT_DOUBLE || text.contains(['e', 'E']) {
        check(text, value.is_infinite(), value == 0.0, &format!("{value:e}"), &format!("{value:.0}"))?;
    }
    Ok(value)
}

/// Parses a number as a float, by the rules of [`double`]. A float may also be written as a client does that holds it as
/// a double.
pub(super) fn float(text: &str) -> Result<f32, Inexact> {
    let value: f32 = text.parse().map_err(|_| Inexact::OutOfRange)?;
    let as_double = text.parse() == Ok(f64::from(value)) && value.is_finite() && value != 0.0;
    if !as_double && (text.len() > ALWAYS_EXACT_FLOAT || text.contains(['e', 'E'])) {
        check(text, value.is_infinite(), value == 0.0, &format!("{value:e}"), &format!("{value:.0}"))?;
    }
    Ok(value)
}

/// Compares a number with the value that it was rounded to: as it is written, and exactly.
fn check(text: &str, infinite: bool, zero: bool, written: &str, exact: &str) -> Result<(), Inexact> {
    let decimal = Decimal::parse(text);
    if infinite {
        return Err(Inexact::OutOfRange);
    }
    if zero && !decimal.digits.is_empty() {
        return Err(Inexact::TooSmall);
    }
    let held = decimal.exponent < 0 || decimal == Decimal::parse(written) || decimal == Decimal::parse(exact);
    if held { Ok(()) } else { Err(Inexact::Rounded(written.to_owned())) }
}

/// A decimal number: `digits` times ten to the power of `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at the start and the end; empty for 0.
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `text` is a JSON number.
    fn parse(text: &str) -> Self {
        let (negative, plain) = match text.strip_prefix('-') {
            Some(plain) => (true, plain),
            None => (false, text),
        };
        let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [before, after].concat();
        let trimmed = all.trim_end_matches('0');
        let zeros = all.len() - trimmed.len();
        let digits = trimmed.trim_start_matches('0');
        if digits.is_empty() {
            return Self { negative: false, digits: String::new(), exponent: 0 };
        }
        // An exponent that is no `i64` is beyond every type in the same way as the largest one.
        let limit = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse::<i64>().unwrap_or(limit).clamp(i64::MIN / 2, i64::MAX / 2);
        let exponent = exponent + zeros as i64 - after.len() as i64;
        Self { negative, digits: digits.to_owned(), exponent }
    }

    fn whole(&self) -> Whole {
        let Ok(zeros) = u32::try_from(self.exponent.clamp(-1, MAX_DIGITS as i64 + 1)) else {
            return Whole::Other;
        };
        if self.digits.len() + zeros as usize > MAX_DIGITS {
            return Whole::TooLarge;
        }
        let digits: i128 = if self.digits.is_empty() { 0 } else { self.digits.parse().unwrap_or(i128::MAX) };
        let value = digits * 10_i128.pow(zeros);
        Whole::Value(if self.negative { -value } else { value })
    }
}

/// Whether the text is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    let plain = text.strip_prefix('-').unwrap_or(text).as_bytes();
    match plain {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => true,
        [b'0'..=b'9', ..] => Json::new(text.as_bytes())
            .and_then(|mut json| json.number().map(str::len))
            .is_ok_and(|length| length == text.len()),
        _ => false,
    }
}
