//! What a task definition says, in the words of manifests. Made by their schema: what it has no word for is named.

use serde_json::{Map, Value};

use crate::aws::task_definition::document::{Object, listed_by};
use crate::manifest::ecs::EcsSettings;
use crate::model::secret::SecretReference;

/// The words for a document, and the paths of what there are no words for, with their values.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) said: Object,
    pub(super) unsayable: Vec<String>,
}

/// `document` has the fields of `ecs` in the names of the API.
pub(super) fn words(document: Object, reference: &dyn Fn(&str) -> SecretReference) -> Words {
    let schema = crate::manifest::schema_of::<EcsSettings>();
    let mut translator = Translator { reference, unsayable: Vec::new() };
    let said = translator.object(document, &schema, "");
    Words { said, unsayable: translator.unsayable }
}

struct Translator<'a> {
    reference: &'a dyn Fn(&str) -> SecretReference,
    unsayable: Vec<String>,
}

impl Translator<'_> {
    fn object(&mut self, object: Object, schema: &Value, path: &str) -> Object {
        let pattern = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
        let mut said = Map::new();
        for (field, value) in object {
            let inner = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            let name = if pattern.is_some() { field.clone() } else { snake(&field) };
            match schema["properties"].get(&name).or(pattern) {
                Some(known) => drop(said.insert(name, self.value(&field, value, known, &inner))),
                None => self.unsayable.push(format!("{inner}: {}", shown(&value))),
            }
        }
        said
    }

    fn value(&mut self, field: &str, value: Value, schema: &Value, path: &str) -> Value {
        if schema.get("oneOf").is_some() {
            // A secret; other choices are texts.
            let is_secret = schema["oneOf"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "object"));
            return match value.as_str().filter(|_| is_secret) {
                Some(text) => written((self.reference)(text)),
                None => value,
            };
        }
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(object)) => self.object(object, schema, path).into(),
            (Some("array"), value) => match listed_by(field, value) {
                Value::Array(items) => {
                    let items = items.into_iter().map(|item| self.value(field, item, &schema["items"], path));
                    items.collect::<Vec<_>>().into()
                }
                other => other,
            },
            (_, value) => value,
        }
    }
}

/// A reference as short as it can be.
pub(super) fn written(reference: SecretReference) -> Value {
    match reference {
        SecretReference::Secret { secret, key: None, stage: None, version: None } if !secret.starts_with("arn:") => {
            secret.into()
        }
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `containerPort` as `container_port`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.replace("GiB", "Gib").chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
