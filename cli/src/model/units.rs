//! Quantities as people write them: `30 s`, `512 MiB`. A number without a unit is refused, because its meaning would be a guess.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Unit and its length in milliseconds, the longest first.
const TIMES: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Another word for a unit of time, which people type.
const MINUTE: (&str, u64) = ("m", 60_000);

/// Unit and its size in bytes, the largest first.
const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A length of time, for example `30 s`, `500 ms`, `5 min`, `7 d`, `2h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// An amount of memory or storage, for example `512 MiB`, `1 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnitError {
    /// What is wrong with it.
    pub message: String,
    /// How to write it.
    pub hint: String,
}

impl Span {
    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// In whole seconds, rounded up.
    pub fn seconds(self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl Size {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// In MiB, rounded down.
    pub fn mebibytes(self) -> u64 {
        self.0 >> 20
    }

    /// This many MiB.
    pub fn from_mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let hint = "write for example `30 s` or `2h30m`; the units are `ms`, `s`, `min`, `h` and `d`";
        let units: Vec<(&str, u64)> = TIMES.iter().copied().chain([MINUTE]).collect();
        let mut sum = 0_u64;
        for part in parts(text) {
            let too_large = || UnitError { message: format!("`{text}` is too large"), hint: hint.to_owned() };
            sum = sum.checked_add(parse(part, &units, hint)?).ok_or_else(too_large)?;
        }
        Ok(Self(Duration::from_millis(sum)))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let hint = "write for example `512 MiB`; the units are `KiB`, `MiB` and `GiB`";
        parse(text, SIZES, hint).map(Self)
    }
}

/// `2h30m` is `2h` and `30m`. What is no quantity stays in one piece.
fn parts(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let begins = |index: &usize| {
        let before = text[..*index].trim_end_matches(' ');
        bytes[*index].is_ascii_digit()
            && index - before.len() <= 1
            && before.ends_with(|one: char| one.is_ascii_lowercase())
    };
    let mut ends: Vec<usize> = (1..bytes.len()).filter(|index| text.is_char_boundary(*index)).filter(begins).collect();
    ends.push(text.len());
    let mut from = 0;
    let part = |end: usize| {
        let part = &text[from..end];
        from = end;
        if end < text.len() { part.strip_suffix(' ').unwrap_or(part) } else { part }
    };
    ends.into_iter().map(part).collect()
}

fn parse(text: &str, units: &[(&str, u64)], hint: &str) -> Result<u64, UnitError> {
    let refused = |message: String| UnitError { message, hint: hint.to_owned() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let unit = rest.strip_prefix(' ').unwrap_or(rest);
    if number.is_empty() {
        return Err(refused(format!("`{text}` does not start with a whole number")));
    }
    if unit.is_empty() {
        return Err(refused(format!("`{text}` has no unit")));
    }
    if unit.starts_with(['.', ',']) {
        return Err(refused(format!("`{text}` is not a whole number of units")));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(refused(format!("`{text}` has the unknown unit `{unit}`")));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| refused(format!("`{text}` is too large")))
}

/// The largest unit of which it is a whole number.
fn written(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], smallest: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{} {unit}", amount / factor),
        None => write!(f, "{amount} {smallest}"),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return f.write_str("0 s");
        }
        written(f, milliseconds, TIMES, "ms")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0 MiB");
        }
        written(f, self.0, SIZES, "B")
    }
}

macro_rules! as_text {
    ($name:ident, $format:literal, $pattern:literal, $description:literal, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "format": $format,
                    "pattern": $pattern,
                    "description": $description,
                    "examples": [$example],
                })
            }
        }
    };
}

as_text!(
    Span,
    "time-span",
    "^[0-9]+ ?(ms|s|min|m|h|d)( ?[0-9]+ ?(ms|s|min|m|h|d))*$",
    "A whole number with `ms`, `s`, `min`, `h` or `d`.",
    "30 s"
);
as_text!(Size, "size", "^[0-9]+ ?(KiB|MiB|GiB)$", "A whole number with `KiB`, `MiB` or `GiB`.", "512 MiB");

/// Writes a [`Duration`] as a manifest does, for `#[serde(with = "crate::model::units::span")]`.
pub(crate) mod span {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, Span};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Span(*duration).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Span::deserialize(deserializer).map(Span::duration)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = UnitError> + fmt::Display>(text: &str, expected: &str) {
        let shown = match text.parse::<T>() {
            Ok(value) => value.to_string(),
            Err(error) => error.message,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_quantity_is_a_whole_number_with_a_unit() {
        check::<Span>("30 s", "30 s");
        check::<Span>("30s", "30 s");
        check::<Span>("500 ms", "500 ms");
        check::<Span>("120 s", "2 min");
        check::<Span>("0 s", "0 s");
        check::<Span>("10m", "10 min");
        check::<Span>("2h30m", "150 min");
        check::<Span>("1 h 30 min", "90 min");
        check::<Span>("1m30s", "90 s");
        check::<Size>("512 MiB", "512 MiB");
        check::<Size>("1024 MiB", "1 GiB");
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        check::<Span>("30", "`30` has no unit");
        check::<Span>("", "`` does not start with a whole number");
        check::<Span>("s", "`s` does not start with a whole number");
        check::<Span>("-1 s", "`-1 s` does not start with a whole number");
        check::<Span>("30 sec", "`30 sec` has the unknown unit `sec`");
        check::<Span>("1.5 s", "`1.5 s` is not a whole number of units");
        check::<Span>("2h30", "`30` has no unit");
        check::<Span>("2h ", "`2h ` has the unknown unit `h `");
        check::<Span>("99999999999d99999999999d99999999999d", "`99999999999d99999999999d99999999999d` is too large");
        check::<Span>("30  s", "`30  s` has the unknown unit ` s`");
        check::<Size>("512 MB", "`512 MB` has the unknown unit `MB`");
        check::<Size>("99999999999 GiB", "`99999999999 GiB` is too large");
    }

    fn matching<T: JsonSchema>() -> impl Strategy<Value = String> {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        let pattern = schema.get("pattern").and_then(|pattern| pattern.as_str()).unwrap();
        // Numbers of at most 8 digits fit with every unit.
        let short = pattern.replace("[0-9]+", "[0-9]{1,8}");
        proptest::string::string_regex(short.trim_start_matches('^').trim_end_matches('$')).unwrap()
    }

    proptest! {
        #[test]
        fn the_pattern_for_editors_allows_nothing_that_is_refused_here(span in matching::<Span>(), size in matching::<Size>()) {
            prop_assert!(span.parse::<Span>().is_ok());
            prop_assert!(size.parse::<Size>().is_ok());
        }

        #[test]
        fn what_is_written_is_read_back(milliseconds in 0_u64..1_000_000_000_000) {
            let span = Span(Duration::from_millis(milliseconds));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }
    }
}
