//! Conditions on headers and fields: whether they are valid, and whether they hold.

use std::borrow::Cow;

use proto::router::v1::predicate::Source;
use proto::router::v1::{Comparison, Predicate};
use sdk::{Error, check_count, check_text, choice, required};
use serde_json::Value;

use crate::content::{Content, MAX_HEADER_NAME};

const MAX_PATH: usize = 128;
const MAX_VALUES: usize = 32;
const MAX_VALUE: usize = 256;
/// Characters of a value in a reason.
const SHOWN: usize = 64;
/// Values in a reason.
const LISTED: usize = 4;

/// Refuses a condition that is not valid, or that no message could satisfy.
pub(crate) fn check(predicate: &Predicate) -> Result<(), Error> {
    match required("header or field of a predicate", predicate.source.as_ref())? {
        Source::Header(name) => check_text("header of a predicate", name, MAX_HEADER_NAME)?,
        Source::Field(path) => check_path("field of a predicate", path)?,
    }
    let comparison: Comparison = choice("comparison", predicate.comparison)?;
    let values = &predicate.values;
    check_count("values", values.len(), MAX_VALUES)?;
    for value in values {
        // An empty text is a value.
        if !value.is_empty() {
            check_text("value", value, MAX_VALUE)?;
        }
    }
    let name = comparison.as_str_name();
    match (comparison, &values[..]) {
        (Comparison::Exists | Comparison::Absent, []) => Ok(()),
        (Comparison::Exists | Comparison::Absent, _) => Err(Error::invalid(format_args!("{name} takes no values"))),
        (_, []) => Err(Error::invalid(format_args!("{name} needs a value"))),
        (Comparison::Less | Comparison::AtMost | Comparison::Greater | Comparison::AtLeast, values) => match values {
            [value] if number(value).is_some() => Ok(()),
            _ => Err(Error::invalid(format_args!("{name} takes one value, a number"))),
        },
        _ => Ok(()),
    }
}

/// Refuses what is no path of a field.
pub(crate) fn check_path(what: &str, path: &str) -> Result<(), Error> {
    check_text(what, path, MAX_PATH)?;
    match path.split('.').any(str::is_empty) {
        true => Err(Error::invalid(format_args!("{what} must be names and indices with `.` between them"))),
        false => Ok(()),
    }
}

/// Whether a condition holds for a message; why not otherwise.
pub(crate) fn holds(predicate: &Predicate, content: &Content) -> Result<(), String> {
    let (what, value) = match &predicate.source {
        Some(Source::Header(name)) => (format!("header `{name}`"), content.header(name).map(Found::text)),
        Some(Source::Field(path)) => (format!("field `{path}`"), content.field(path).map(Found::from)),
        None => return Err("a predicate has neither header nor field".to_owned()),
    };
    let comparison = predicate.comparison();
    let value = match (comparison, value) {
        (Comparison::Absent, None) | (Comparison::Exists, Some(_)) => return Ok(()),
        (Comparison::Absent, Some(_)) => return Err(format!("{what} is there")),
        (_, None) => return Err(format!("{what} is not there")),
        (_, Some(Found::Other(kind))) => return Err(format!("{what} is {kind}")),
        (_, Some(Found::Text(value))) => value,
    };
    let any = |test: fn(&str, &str) -> bool| predicate.values.iter().any(|expected| test(&value, expected));
    let compare = |test: fn(&f64, &f64) -> bool| {
        let numbers = number(&value).zip(predicate.values.first().and_then(|value| number(value)));
        numbers.is_some_and(|(number, limit)| test(&number, &limit))
    };
    let (is_satisfied, condition) = match comparison {
        Comparison::Equal => (any(|value, expected| value == expected), "is none of"),
        Comparison::NotEqual => (!any(|value, expected| value == expected), "is one of"),
        Comparison::Prefix => (any(|value, expected| value.starts_with(expected)), "begins with none of"),
        Comparison::Suffix => (any(|value, expected| value.ends_with(expected)), "ends with none of"),
        Comparison::Contains => (any(|value, expected| value.contains(expected)), "contains none of"),
        Comparison::Less => (compare(f64::lt), "is no number below"),
        Comparison::AtMost => (compare(f64::le), "is no number up to"),
        Comparison::Greater => (compare(f64::gt), "is no number above"),
        Comparison::AtLeast => (compare(f64::ge), "is no number from"),
        Comparison::Exists | Comparison::Absent | Comparison::Unspecified => (false, "cannot be compared with"),
    };
    match is_satisfied {
        true => Ok(()),
        false => Err(format!("{what} is `{}`, which {condition} {}", shown(&value), listed(&predicate.values))),
    }
}

/// What a header or field is.
enum Found<'a> {
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<'a> Found<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a Value> for Found<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            Value::Array(_) => Self::Other("a list"),
            Value::Object(_) => Self::Other("an object"),
            value => Self::Text(value.to_string().into()),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn listed(values: &[String]) -> String {
    let mut listed: Vec<String> = values.iter().take(LISTED).map(|value| format!("`{}`", shown(value))).collect();
    if values.len() > LISTED {
        listed.push(format!("{} more", values.len() - LISTED));
    }
    listed.join(", ")
}

fn shown(text: &str) -> String {
    shortened(text, SHOWN)
}

/// The text, or the beginning of it with `…`.
pub(crate) fn shortened(text: &str, max_characters: usize) -> String {
    match text.char_indices().nth(max_characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::content::tests::content;

    pub(crate) fn field(path: &str, comparison: Comparison, values: &[&str]) -> Predicate {
        let values = values.iter().copied().map(str::to_owned).collect();
        Predicate { source: Some(Source::Field(path.to_owned())), comparison: comparison.into(), values }
    }

    fn header(name: &str, comparison: Comparison, values: &[&str]) -> Predicate {
        Predicate { source: Some(Source::Header(name.to_owned())), ..field("", comparison, values) }
    }

    #[track_caller]
    fn check(predicate: Predicate, expected: Result<(), &str>) {
        super::check(&predicate).unwrap();
        let payload =
            r#"{"kind": "boss", "level": 12, "id": "9007199254740993", "on": true, "loot": [], "none": null}"#;
        let outcome = holds(&predicate, &content("game.spawned", payload));
        assert_eq!(outcome.as_ref().map_err(String::as_str).copied(), expected, "{predicate:?}");
    }

    #[test]
    fn a_condition_holds_or_says_why_not() {
        use Comparison::*;
        check(header("tenant", Equal, &["blue", "red"]), Ok(()));
        check(header("Level", AtLeast, &["7"]), Ok(()));
        check(header("level", Less, &["7.0"]), Err("header `level` is `7`, which is no number below `7.0`"));
        check(field("kind", NotEqual, &["minion"]), Ok(()));
        check(field("kind", NotEqual, &["boss"]), Err("field `kind` is `boss`, which is one of `boss`"));
        check(field("kind", Prefix, &["b"]), Ok(()));
        check(field("kind", Suffix, &["x", "y"]), Err("field `kind` is `boss`, which ends with none of `x`, `y`"));
        check(field("kind", Contains, &["os"]), Ok(()));
        let many = ["1", "2", "3", "4", "5", "6"];
        check(field("kind", Equal, &many), Err("field `kind` is `boss`, which is none of `1`, `2`, `3`, `4`, 2 more"));
        check(field("level", Greater, &["11.5"]), Ok(()));
        check(field("kind", Greater, &["1"]), Err("field `kind` is `boss`, which is no number above `1`"));
        check(field("id", AtMost, &["1e16"]), Ok(()));
        check(field("on", Equal, &["true"]), Ok(()));
        check(field("loot", Exists, &[]), Ok(()));
        check(field("loot", Equal, &["x"]), Err("field `loot` is a list"));
        check(field("none", Absent, &[]), Ok(()));
        check(field("kind", Absent, &[]), Err("field `kind` is there"));
        check(field("none", NotEqual, &["x"]), Err("field `none` is not there"));
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        assert_eq!((shortened("Öl", 2), shortened("Öle", 2)), ("Öl".to_owned(), "Öl…".to_owned()));
    }

    #[test]
    fn a_condition_that_is_not_valid_is_refused() {
        #[track_caller]
        fn refused(predicate: Predicate, because: &str) {
            let error = super::check(&predicate).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        }
        use Comparison::*;
        refused(Predicate::default(), "header or field of a predicate is missing");
        refused(field("a..b", Exists, &[]), "must be names and indices");
        refused(field("a", Unspecified, &[]), "it must be one of COMPARISON_EXISTS");
        refused(field("a", Exists, &["x"]), "COMPARISON_EXISTS takes no values");
        refused(field("a", Equal, &[]), "COMPARISON_EQUAL needs a value");
        refused(field("a", Less, &["x"]), "COMPARISON_LESS takes one value, a number");
        refused(field("a", Less, &["1", "2"]), "COMPARISON_LESS takes one value, a number");
    }
}
