//! Definitions: which values they accept, and which value holds.

use proto::settings::v1::value::Kind;
use proto::settings::v1::{Definition, Scope, Setting, Source, StoredValue, Value};
use sdk::{Error, Stored, check_count, check_range, check_text, choice, required};

const MAX_TEXT: usize = 1_024;
const MAX_DESCRIPTION: usize = 512;
const MAX_CHOICES: usize = 64;

/// Refuses a definition that contradicts itself.
pub(crate) fn check_definition(definition: &Definition) -> Result<(), Error> {
    choice::<Scope>("scope", definition.scope)?;
    if !definition.description.is_empty() {
        check_text("description", &definition.description, MAX_DESCRIPTION)?;
    }
    check_range("max_length", definition.max_length as usize, 0..=MAX_TEXT)?;
    check_count("choices", definition.choices.len(), MAX_CHOICES)?;
    for text in &definition.choices {
        check_text("choice", text, MAX_TEXT)?;
    }
    let kind = kind("default_value", definition.default_value.as_ref())?;
    let (limits, texts) = (
        definition.minimum.is_some() || definition.maximum.is_some(),
        definition.max_length > 0 || !definition.choices.is_empty(),
    );
    match kind {
        Kind::Integer(_) | Kind::Number(_) if texts => {
            Err(Error::invalid("max_length and choices are for settings whose default_value is a text"))
        }
        Kind::Flag(_) | Kind::Text(_) if limits => {
            Err(Error::invalid("minimum and maximum are for settings whose default_value is an integer or a number"))
        }
        Kind::Flag(_) if texts => Err(Error::invalid("a flag has no limits")),
        _ if [definition.minimum, definition.maximum].into_iter().flatten().any(|limit| !limit.is_finite()) => {
            Err(Error::invalid("minimum and maximum must be finite"))
        }
        _ => check_value("default_value", definition, definition.default_value.as_ref()),
    }
}

/// Refuses to make another type of a setting: its values would be lost.
pub(crate) fn check_change(current: &Definition, next: &Definition) -> Result<(), Error> {
    let types =
        [current, next].map(|it| it.default_value.as_ref().and_then(|value| value.kind.as_ref()).map(type_name));
    match types {
        [Some(is), Some(becomes)] if is != becomes => {
            Err(Error::failed_precondition(format_args!("setting `{}` is {is}, and cannot become {becomes}", next.key)))
        }
        _ => Ok(()),
    }
}

/// Refuses a value that the definition does not accept. `what` names it.
pub(crate) fn check_value(what: &str, definition: &Definition, value: Option<&Value>) -> Result<(), Error> {
    let given = kind(what, value)?;
    let expected = kind("default_value", definition.default_value.as_ref())?;
    match (expected, given) {
        (Kind::Flag(_), Kind::Flag(_)) => Ok(()),
        // Beyond 2^53 a limit is as exact as a number of floating point is.
        (Kind::Integer(_), Kind::Integer(value)) => check_limits(what, definition, *value as f64),
        (Kind::Number(_), Kind::Number(value)) => check_limits(what, definition, *value),
        (Kind::Text(_), Kind::Text(text)) => check_words(what, definition, text),
        (expected, given) => {
            let (expected, given) = (type_name(expected), type_name(given));
            Err(Error::invalid(format_args!("{what} is {given}, it must be {expected}")))
        }
    }
}

fn check_limits(what: &str, definition: &Definition, value: f64) -> Result<(), Error> {
    let (least, most) = (definition.minimum.unwrap_or(f64::MIN), definition.maximum.unwrap_or(f64::MAX));
    check_range(what, value, least..=most).map(drop)
}

fn check_words(what: &str, definition: &Definition, text: &str) -> Result<(), Error> {
    let most = if definition.max_length == 0 { MAX_TEXT } else { definition.max_length as usize };
    if !text.is_empty() {
        check_text(what, text, most)?;
    }
    if definition.choices.is_empty() || definition.choices.iter().any(|choice| choice == text) {
        return Ok(());
    }
    Err(Error::invalid(format_args!("{what} is none of the choices: {}", definition.choices.join(", "))))
}

fn kind<'a>(what: &str, value: Option<&'a Value>) -> Result<&'a Kind, Error> {
    required(what, value.and_then(|value| value.kind.as_ref()))
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Flag(_) => "a flag",
        Kind::Integer(_) => "an integer",
        Kind::Number(_) => "a number",
        Kind::Text(_) => "a text",
    }
}

/// The value that holds, of those that are stored.
pub(crate) fn effective(
    definition: &Definition,
    global: Option<&Stored<StoredValue>>,
    player: Option<&Stored<StoredValue>>,
) -> Setting {
    let player = player.filter(|_| definition.scope() == Scope::Player);
    let mut refused = String::new();
    for (source, stored) in [(Source::Player, player), (Source::Global, global)] {
        let Some(stored) = stored else { continue };
        match check_value("the stored value", definition, stored.value.value.as_ref()) {
            Ok(()) => {
                let (key, value) = (definition.key.clone(), stored.value.value.clone());
                return Setting { key, value, source: source.into(), revision: stored.revision, refused };
            }
            Err(error) if refused.is_empty() => error.message().clone_into(&mut refused),
            Err(_) => {}
        }
    }
    let value = definition.default_value.clone();
    Setting { key: definition.key.clone(), value, source: Source::Default.into(), revision: 0, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> Option<Value> {
        Some(Value { kind: Some(kind) })
    }

    fn volume() -> Definition {
        Definition {
            key: "audio.volume".to_owned(),
            scope: Scope::Player.into(),
            default_value: value(Kind::Integer(7)),
            minimum: Some(0.0),
            maximum: Some(10.0),
            ..Definition::default()
        }
    }

    fn quality() -> Definition {
        Definition {
            default_value: value(Kind::Text("low".to_owned())),
            choices: vec!["low".to_owned(), "high".to_owned()],
            minimum: None,
            maximum: None,
            ..volume()
        }
    }

    #[track_caller]
    fn check(definition: &Definition, kind: Kind, expected: Result<(), &str>) {
        let outcome = check_value("value", definition, value(kind).as_ref());
        assert_eq!(outcome.as_ref().map_err(Error::message).copied(), expected);
    }

    #[test]
    fn a_value_is_accepted_or_refused_with_what_is_accepted() {
        check(&volume(), Kind::Integer(10), Ok(()));
        check(&volume(), Kind::Integer(11), Err("value is 11, it must be 0 to 10"));
        check(&volume(), Kind::Number(5.0), Err("value is a number, it must be an integer"));
        check(&quality(), Kind::Text("high".to_owned()), Ok(()));
        check(&quality(), Kind::Text("ultra".to_owned()), Err("value is none of the choices: low, high"));
        let name = Definition { choices: Vec::new(), max_length: 3, ..quality() };
        check(&name, Kind::Text("long".to_owned()), Err("value has 4 bytes, at most 3 are allowed"));
        let ratio = Definition { default_value: value(Kind::Number(0.5)), ..volume() };
        check(&ratio, Kind::Number(f64::NAN), Err("value is NaN, it must be 0 to 10"));
    }

    #[test]
    fn a_definition_that_contradicts_itself_is_refused() {
        let refused = |definition: Definition, because: &str| {
            let error = check_definition(&definition).unwrap_err();
            assert!(error.message().contains(because), "{error}");
        };
        assert_eq!(check_definition(&volume()), Ok(()));
        assert_eq!(check_definition(&quality()), Ok(()));
        refused(Definition { default_value: None, ..volume() }, "default_value is missing");
        refused(Definition { maximum: Some(5.0), ..volume() }, "default_value is 7, it must be 0 to 5");
        refused(Definition { scope: 0, ..volume() }, "scope is missing");
        refused(Definition { minimum: Some(0.0), ..quality() }, "minimum and maximum are for");
        refused(Definition { max_length: 3, ..volume() }, "max_length and choices are for");
        refused(Definition { minimum: Some(f64::NEG_INFINITY), ..volume() }, "must be finite");
        assert!(check_change(&volume(), &quality()).is_err());
        assert_eq!(check_change(&volume(), &volume()), Ok(()));
    }
}
