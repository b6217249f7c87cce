//! Validation of the models in the registry.

use std::borrow::Cow;
use std::fmt;

use proto::ai::model::v1::{Model, ModelState};
use sdk::{Error, RecordKey, check_count, check_range, check_text, choice_or_unset};

const MAX_CAPABILITIES: usize = 32;
/// Bytes of an id and of a name.
const MAX_NAME: usize = 64;

pub(crate) fn is_active(model: &Model) -> bool {
    model.state() == ModelState::Active
}

/// Validates a model and normalises it for storage: equal descriptions become equal models.
pub(crate) fn normalized(mut model: Model) -> Result<Model, Error> {
    ModelId::new(&model.id)?;
    if model.capabilities.is_empty() {
        return Err(Error::invalid("a model needs at least one capability"));
    }
    check_count("capabilities", model.capabilities.len(), MAX_CAPABILITIES)?;
    for capability in &model.capabilities {
        check_name("capability", capability)?;
    }
    check_range("context_length", model.context_length, 1..=u32::MAX)?;
    if !model.backend.is_empty() {
        check_name("backend", &model.backend)?;
    }
    if choice_or_unset("state", model.state)? == Some(ModelState::Retired) {
        return Err(Error::invalid("a model is registered as active; call `retire` to retire it"));
    }
    model.capabilities.sort();
    model.capabilities.dedup();
    model.set_state(ModelState::Active);
    model.revision = 0;
    Ok(model)
}

/// The model, excluded from selection.
pub(crate) fn retired(mut model: Model) -> Model {
    model.set_state(ModelState::Retired);
    model
}

/// The id of a model, which is its key in the bucket, too.
#[derive(Debug)]
pub(crate) struct ModelId<'a>(&'a str);

impl<'a> ModelId<'a> {
    pub(crate) fn new(id: &'a str) -> Result<Self, Error> {
        check_name("model id", id)?;
        if id.split('.').any(str::is_empty) {
            return Err(Error::invalid(format_args!("model id `{id}` starts or ends with `.`, or contains `..`")));
        }
        Ok(Self(id))
    }
}

impl fmt::Display for ModelId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model `{}`", self.0)
    }
}

impl RecordKey for ModelId<'_> {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    check_text(what, name, MAX_NAME)?;
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter);
    match name.chars().all(allowed) {
        true => Ok(()),
        false => Err(Error::invalid(format_args!(
            "{what} `{}` may hold only lower-case letters, digits, `.`, `_` and `-`",
            name.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str) -> Model {
        Model { id: id.to_owned(), capabilities: vec!["text".to_owned()], context_length: 1, ..Model::default() }
    }

    #[track_caller]
    fn refused(model: Model, because: &str) {
        let error = normalized(model).unwrap_err();
        assert_eq!(error.code(), sdk::Code::InvalidArgument);
        assert!(error.message().contains(because), "{error}");
    }

    #[test]
    fn ids_of_the_wrong_form_are_refused() {
        refused(model(""), "is empty");
        refused(model(&"x".repeat(65)), "has 65 bytes, at most 64 are allowed");
        for id in ["Big", "a b", "a/b", "ä", "a*", "a>", "a\nb"] {
            refused(model(id), "may hold only");
        }
        for id in [".a", "a.", "a..b"] {
            refused(model(id), "starts or ends with `.`");
        }
        for id in ["a", "gpt-4.1_mini", &"x".repeat(64)] {
            assert!(normalized(model(id)).is_ok(), "{id}");
        }
    }

    #[test]
    fn an_incomplete_model_is_refused() {
        refused(Model { capabilities: vec![], ..model("a") }, "at least one capability");
        refused(Model { capabilities: vec!["Text!".to_owned()], ..model("a") }, "capability `Text!`");
        refused(Model { context_length: 0, ..model("a") }, "context_length is 0");
        refused(Model { backend: "A B".to_owned(), ..model("a") }, "backend `A B`");
    }

    #[test]
    fn a_model_is_not_registered_as_retired() {
        refused(Model { state: ModelState::Retired.into(), ..model("a") }, "call `retire` to retire it");
        refused(
            Model { state: 9, ..model("a") },
            "state is 9, it must be one of MODEL_STATE_ACTIVE, MODEL_STATE_RETIRED",
        );
    }

    #[test]
    fn equal_descriptions_give_equal_models() {
        let one = Model {
            capabilities: vec!["text".to_owned(), "code".to_owned(), "text".to_owned()],
            revision: 7,
            ..model("a")
        };
        let other = Model {
            capabilities: vec!["code".to_owned(), "text".to_owned()],
            state: ModelState::Active.into(),
            ..model("a")
        };
        assert_eq!(normalized(one), normalized(other));
    }

    #[test]
    fn retiring_twice_changes_nothing_more() {
        let once = retired(model("a"));
        assert!(!is_active(&once));
        assert_eq!(retired(once.clone()), once);
    }
}
