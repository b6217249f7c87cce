//! The JSON Schemas of the manifests, made from their types: for the check of the files and for editors.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::files::{Environment, ProjectManifest, ServiceManifest};

/// Names and contents of the schemas of the manifests, as files under `manifests/schema/`.
pub fn schemas() -> [(&'static str, String); 3] {
    [
        ("service.schema.json", schema_text::<ServiceManifest>()),
        ("fleet.schema.json", schema_text::<ProjectManifest>()),
        ("environment.schema.json", schema_text::<Environment>()),
    ]
}

/// The JSON Schema of a type as the text of a file, in the form that all of natsctl's schemas have.
pub fn schema_text<T: JsonSchema>() -> String {
    format!("{:#}\n", of::<T>().as_value())
}

pub(super) fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(PresentMeansSet)
        .into_generator()
        .into_root_schema_for::<T>()
}

/// All fields of `T`, none of them required: what a service may override.
pub(super) struct Partial<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Partial<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Partial{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        NothingRequired.transform(&mut schema);
        schema
    }
}

struct NothingRequired;

impl Transform for NothingRequired {
    fn transform(&mut self, schema: &mut Schema) {
        schema.remove("required");
        // What a choice requires tells it from the others.
        if schema.get("oneOf").is_none() && schema.get("anyOf").is_none() {
            transform_subschemas(self, schema);
        }
    }
}

/// A key that may be absent may still not be empty: `null` is no value.
#[derive(Clone)]
struct PresentMeansSet;

impl Transform for PresentMeansSet {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if schema.get("default").is_some_and(Value::is_null) {
            schema.remove("default");
        }
        if let Some(Value::Array(mut choices)) = schema.remove("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            match choices.as_slice() {
                [Value::Object(only)] => {
                    for (key, value) in only {
                        if schema.get(key).is_none() {
                            schema.insert(key.clone(), value.clone());
                        }
                    }
                }
                _ => {
                    schema.insert("anyOf".to_owned(), Value::Array(choices));
                }
            }
        }
        if let Some(Value::Array(values)) = schema.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        transform_subschemas(self, schema);
    }
}
