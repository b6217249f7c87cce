//! What an environment says of a service besides the service's own manifest: both become one tree, in which every value knows the file
//! that it is written in.

use std::borrow::Cow;
use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::files::ServiceManifest;
use super::links::Document;
use super::schema::Partial;
use super::yaml::{Entry, Node, Source, Value};
use crate::problem::{Problem, did_you_mean, listed};

/// The key of an environment's manifest that has them, by service.
const SERVICES: &str = "services";

/// What is the same in every environment: who a service is, and what it has to do with others.
const FIXED: [&str; 9] = ["name", "role", "ecs_name", "serves", "public", "calls", "publishes", "consumes", "buckets"];

/// What differs of one service in one environment, as its manifest would say it. [`super::load`] has put it into the
/// [`ServiceManifest`] already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(serde_json::Map<String, Json>);

impl JsonSchema for Overrides {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Overrides".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Partial::<ServiceManifest>::json_schema(generator);
        schema.remove("title");
        let about = "What differs of the service in this environment, as its manifest would say it.";
        schema.insert("description".to_owned(), about.into());
        if let Some(Json::Object(properties)) = schema.get_mut("properties") {
            properties.retain(|key, _| !FIXED.contains(&key.as_str()));
        }
        schema
    }
}

/// Puts what an environment says of a service over what the service's own manifest says. Gives whether it says anything.
pub(super) fn put(service: &mut Document, environment: &Document) -> bool {
    let Some(said) = environment.root.find(&[SERVICES, service.name()]) else { return false };
    if said.entries().is_empty() {
        return false;
    }
    let said = of_environment(said);
    service.environment = Some(environment.file.clone());
    move_variables(&mut service.root, &said);
    merge(&mut service.root, &said, &mut Vec::new());
    true
}

/// Services of which an environment says something, and that have no manifest; `known` are the names of those that have one.
pub(super) fn problems(environment: &Document, known: &BTreeSet<&str>) -> Vec<Problem> {
    let said = environment.root.get(SERVICES).map(Node::entries).unwrap_or_default();
    let unknown = said.iter().filter(|entry| !known.contains(entry.key.as_str()));
    let problem = |entry: &Entry| {
        let names = known.iter().copied();
        let hint =
            did_you_mean(&entry.key, names.clone()).unwrap_or_else(|| format!("the services are {}", listed(names)));
        let message = format!("service `{}` has no manifest to differ from", entry.key);
        Problem::new(&environment.place(entry.position), message).hint(hint)
    };
    unknown.map(problem).collect()
}

/// The same tree, written in the environment's manifest.
fn of_environment(node: &Node) -> Node {
    let value = match &node.value {
        Value::List(items) => Value::List(items.iter().map(of_environment).collect()),
        Value::Map(entries) => {
            let entry = |entry: &Entry| Entry {
                key: entry.key.clone(),
                position: entry.position.in_source(Source::Environment),
                value: of_environment(&entry.value),
            };
            Value::Map(entries.iter().map(entry).collect())
        }
        value => value.clone(),
    };
    Node { position: node.position.in_source(Source::Environment), value }
}

/// Maps are merged key by key. Everything else takes the place of what was there; so does a map that says one thing as a whole.
fn merge<'a>(base: &mut Node, own: &'a Node, path: &mut Vec<&'a str>) {
    let (Value::Map(there), Value::Map(said), false) = (&mut base.value, &own.value, is_whole(path)) else {
        *base = own.clone();
        return;
    };
    for entry in said {
        match there.iter_mut().find(|other| other.key == entry.key) {
            Some(other) => {
                path.push(&entry.key);
                merge(&mut other.value, &entry.value, path);
                path.pop();
                if other.value == entry.value {
                    other.position = entry.position;
                }
            }
            None => there.push(entry.clone()),
        }
    }
}

/// Whether the map at a path says one thing: part of it means nothing beside part of another.
fn is_whole(path: &[&str]) -> bool {
    match path {
        ["build"] | ["secrets", _] | ["ecs", "volumes", _] => true,
        ["ecs", "container", rest @ ..] | ["ecs", "sidecars", _, rest @ ..] => {
            matches!(rest, ["log_configuration"] | ["secrets", _])
        }
        _ => false,
    }
}

/// A variable that an environment has among its secrets is no plain one any more, and the other way round; also those of sidecars.
fn move_variables(base: &mut Node, own: &Node) {
    for (said, other) in [("secrets", "environment"), ("environment", "secrets")] {
        let moved = own.get(said).map(Node::entries).unwrap_or_default();
        if let Some(Value::Map(there)) = base.get_mut(other).map(|node| &mut node.value) {
            there.retain(|entry| !moved.iter().any(|moved| moved.key == entry.key));
        }
    }
    for sidecar in own.find(&["ecs", "sidecars"]).map(Node::entries).unwrap_or_default() {
        let there = base.get_mut("ecs").and_then(|ecs| ecs.get_mut("sidecars")?.get_mut(&sidecar.key));
        if let Some(there) = there {
            move_variables(there, &sidecar.value);
        }
    }
}
