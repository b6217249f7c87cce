//! Which models are selected: another one means that the registry has changed.

use std::collections::{BTreeMap, BTreeSet};

use proto::ai::model::v1::Selected;

/// The models that were selected so far, by capability. Requests differ in what they need, so a capability may have several.
#[derive(Debug, Default)]
pub(crate) struct Selections(BTreeMap<String, BTreeSet<String>>);

impl Selections {
    /// Notes a selection. Returns whether a model was selected that never was before, for a capability for which others were.
    pub(crate) fn is_news(&mut self, selected: Selected) -> bool {
        let models = self.0.entry(selected.capability).or_default();
        let is_first = models.is_empty();
        models.insert(selected.model_id) && !is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_model_is_news() {
        let mut selections = Selections::default();
        let mut check = |capability: &str, model_id: &str, expected: bool| {
            let selected =
                Selected { capability: capability.to_owned(), model_id: model_id.to_owned(), ..Selected::default() };
            assert_eq!(selections.is_news(selected), expected, "{capability} {model_id}");
        };
        check("text", "small", false);
        check("text", "small", false);
        check("code", "large", false);
        check("text", "large", true);
        check("text", "small", false);
        check("text", "large", false);
    }
}
