//! Validation of the models in the registry.

use proto::ai::model::v1::{Model, ModelState};

const MAX_CAPABILITIES: usize = 32;

pub(crate) fn is_active(model: &Model) -> bool {
    model.state() == ModelState::Active
}

/// Validates a model and normalises it for storage: equal descriptions become equal models. The error is a sentence.
pub(crate) fn normalized(mut model: Model) -> Result<Model, String> {
    check_id(&model.id)?;
    if model.capabilities.is_empty() {
        return Err("a model needs at least one capability".to_owned());
    }
    if model.capabilities.len() > MAX_CAPABILITIES {
        return Err(format!("a model has at most {MAX_CAPABILITIES} capabilities"));
    }
    for capability in &model.capabilities {
        check_name("capability", capability)?;
    }
    if model.context_length == 0 {
        return Err("`context_length` must be at least 1".to_owned());
    }
    if !model.backend.is_empty() {
        check_name("backend", &model.backend)?;
    }
    match ModelState::try_from(model.state) {
        Ok(ModelState::Unspecified | ModelState::Active) => {}
        Ok(ModelState::Retired) => return Err("a model is registered as active; call `retire` to retire it".to_owned()),
        Err(_) => return Err(format!("there is no model state {}", model.state)),
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

/// An id is also a key in the bucket, so it must not have empty tokens between dots.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    check_name("model id", id)?;
    if id.split('.').any(str::is_empty) {
        return Err(format!("model id `{id}` starts or ends with `.`, or contains `..`"));
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter);
    match name.len() {
        0 => Err(format!("{what} is empty")),
        65.. => Err(format!("{what} is longer than 64 characters")),
        _ if name.chars().all(allowed) => Ok(()),
        _ => {
            Err(format!("{what} `{}` may hold only lower-case letters, digits, `.`, `_` and `-`", name.escape_debug()))
        }
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
        let reason = normalized(model).unwrap_err();
        assert!(reason.contains(because), "{reason}");
    }

    #[test]
    fn ids_of_the_wrong_form_are_refused() {
        refused(model(""), "is empty");
        refused(model(&"x".repeat(65)), "longer than 64");
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
        refused(Model { context_length: 0, ..model("a") }, "`context_length`");
        refused(Model { backend: "A B".to_owned(), ..model("a") }, "backend `A B`");
    }

    #[test]
    fn a_model_is_not_registered_as_retired() {
        refused(Model { state: ModelState::Retired.into(), ..model("a") }, "call `retire` to retire it");
        refused(Model { state: 9, ..model("a") }, "no model state 9");
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
