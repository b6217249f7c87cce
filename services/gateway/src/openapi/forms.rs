//! The forms of text in requests, as regular expressions.

use std::fmt::Write as _;

/// A number of JSON, or what JSON has no number for.
pub(super) const NUMBER_OR_SPECIAL: &str = r"^(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity)$";
/// Base64 in either alphabet, with its padding or with less of it.
pub(super) const BASE64: &str = "^(([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}={0,2}|[A-Za-z0-9+/]{3}=?)?\
    |([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}={0,2}|[A-Za-z0-9_-]{3}=?)?)$";
/// The longest duration, in seconds.
const MAX_SECONDS: u128 = 315_576_000_000;

/// Whole numbers from `least` to `most` in their usual spellings: `1000`, `1000.0`, `1e3`. Unusual ones are accepted and not
/// described, for example `1.5e1`.
pub(super) fn whole(least: i128, most: i128) -> String {
    let (negative, positive) = (up_to(least.unsigned_abs()), up_to(most.unsigned_abs()));
    let mut pattern = format!(r"^(((-({negative}))|({positive}))(\.0+)?");
    let sign = if least < 0 { "-?" } else { "" };
    // With an exponent, those that have fewer digits than the largest.
    let digits = most.to_string().len() - 1;
    for exponent in 0..digits {
        // Writing to a string does not fail.
        let _ = write!(pattern, r"|{sign}[1-9][0-9]{{0,{}}}[eE]\+?{exponent}", digits - exponent - 1);
    }
    pattern.push_str(")$");
    pattern
}

/// The whole numbers from 0 to `most`, without leading zeros.
fn up_to(most: u128) -> String {
    let digits = most.to_string();
    let mut alternatives = vec!["0".to_owned()];
    if digits.len() > 1 {
        alternatives.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    // The same digits up to a place, a smaller one there, and then any.
    for (place, digit) in digits.bytes().enumerate() {
        let (before, after) = (&digits[..place], digits.len() - place - 1);
        let (least, below) = (if place == 0 { b'1' } else { b'0' }, digit.saturating_sub(1));
        if most > 0 && below >= least {
            let class = format!("[{}-{}]", char::from(least), char::from(below));
            alternatives.push(match after {
                0 => format!("{before}{class}"),
                _ => format!("{before}{class}[0-9]{{{after}}}"),
            });
        }
    }
    if most > 0 {
        alternatives.push(digits);
    }
    alternatives.join("|")
}

/// A time as RFC 3339 writes it, without leap seconds and with up to nine digits of a second.
pub(super) fn timestamp() -> String {
    let year = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    let day = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))";
    let time = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?";
    let offset = "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    format!("^{year}-{day}[Tt]{time}{offset}$")
}

/// A duration of up to 10,000 years.
pub(super) fn duration() -> String {
    format!(r"^-?0*({})(\.[0-9]{{1,9}})?s$", up_to(MAX_SECONDS))
}
