//! The fields in which two values differ.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::model::step::FieldChange;

/// The fields in which two values differ, by their paths under `root`; all fields of `to` if there is no `from`.
pub(crate) fn differences<T: Serialize>(root: &str, from: Option<&T>, to: &T) -> Vec<FieldChange> {
    let mut from = from.map(|from| fields(root, from)).unwrap_or_default();
    let mut changes = Vec::new();
    for (field, to) in fields(root, to) {
        let from = from.remove(&field);
        if from.as_ref() != Some(&to) {
            changes.push(FieldChange::new(field, from, Some(to)));
        }
    }
    changes.extend(from.into_iter().map(|(field, from)| FieldChange::new(field, Some(from), None)));
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

/// Values by path, for example `definition.environment.LOG_LEVEL`. A list is one value.
fn fields(root: &str, value: &impl Serialize) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    // Our own types serialize: their keys are texts and their numbers finite.
    let value = serde_json::to_value(value).unwrap_or_default();
    flatten(root.to_owned(), value, &mut fields);
    fields
}

fn flatten(path: String, value: Value, fields: &mut BTreeMap<String, Value>) {
    let Value::Object(object) = value else {
        fields.insert(path, value);
        return;
    };
    for (key, value) in object {
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        flatten(path, value, fields);
    }
}
