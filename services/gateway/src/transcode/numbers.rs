//! Parses numbers.

use super::json::Json;
use super::schema::Kind;

/// The name of this kind of integer in messages.
pub(super) fn integer_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Uint32 | Kind::Fixed32 => "a whole number from 0 to 4294967295",
        Kind::Uint64 | Kind::Fixed64 => "a whole number from 0 to 18446744073709551615",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a whole number of 64 bits",
        _ => "a whole number of 32 bits",
    }
}

/// Parses a number without a fraction, for example `5`, `5.0` and `5e2`.
pub(super) fn whole(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    if let Ok(value) = text.parse::<i128>() {
        return Some(value);
    }
    let value: f64 = text.parse().ok()?;
    // Above 2^53, a number with a point or an exponent is not exact.
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    exact.then_some(value as i128)
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
