//! What can be set in manifests: type, unit, range, default and meaning of each key, from the JSON Schemas that check the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Code, Hinted};
use crate::manifest;
use crate::problem::{did_you_mean, listed, read};

/// What the paths begin with: a kind of manifest, its schema, and where its files are in the folder of the manifests.
const ROOTS: &[(&str, &str, &str)] = &[
    ("services", "service.schema.json", "services"),
    ("fleet", "fleet.schema.json", "fleet.yaml"),
    ("environments", "environment.schema.json", "environments"),
];
/// Stands for any name in a path.
const ANY_NAME: &str = "<name>";
/// Files that are shown as examples.
const MOST_EXAMPLES: usize = 3;

/// What a key of a manifest is.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "natsctl explain")]
pub(crate) struct Explanation {
    /// From the kind of manifest, for example `services.autoscaling.max`.
    path: String,
    /// On which condition it is this, if it can also be something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// What it means.
    description: String,
    /// Its JSON type.
    r#type: String,
    /// In what it is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    /// Least and most.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    /// What it can be, and what that means, if only these are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    values: Vec<Named>,
    /// Whether the file must have it.
    required: bool,
    /// What it is if the file does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    /// Where the default is set, if that can be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_is_set_in: Option<String>,
    /// What the manifests that are there say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    examples: Vec<Example>,
    /// What is below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    children: Vec<Child>,
}

/// A value, or a key, and what it means.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Named {
    name: String,
    description: String,
}

/// What one of the manifests says.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Example {
    file: PathBuf,
    value: Value,
}

/// A key below another one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Child {
    /// The whole path.
    pub(crate) path: String,
    /// Its JSON type.
    pub(crate) r#type: String,
    /// What it means, in one sentence.
    pub(crate) description: String,
}

/// The kinds of manifests.
pub(crate) fn roots() -> Vec<Child> {
    let schemas = schemas();
    let root = |(name, file, place): &(&str, &str, &str)| Child {
        path: (*name).to_owned(),
        r#type: (*place).to_owned(),
        description: schemas[*file]["description"].as_str().map(first_sentence).unwrap_or_default(),
    };
    ROOTS.iter().map(root).collect()
}

/// All paths that can be explained.
pub(crate) fn paths() -> BTreeSet<String> {
    let schemas = schemas();
    let mut found = BTreeSet::new();
    for (name, file, _) in ROOTS {
        collect(&Node { path: (*name).to_owned(), when: None, schema: &schemas[*file], required: true }, &mut found);
    }
    found
}

fn collect(node: &Node<'_>, found: &mut BTreeSet<String>) {
    found.insert(node.path.clone());
    for (_, child) in node.children() {
        collect(&child, found);
    }
}

/// What a key is: several things if that depends on another key. `folder` is that of the manifests, which are examples.
///
/// # Errors
/// There is no such key; the hint names one that is spelled alike, or all.
pub(crate) fn explain(path: &str, folder: &Path) -> Result<Vec<Explanation>, Hinted> {
    let schemas = schemas();
    let mut keys = path.split('.');
    let first = keys.next().unwrap_or_default();
    let root = ROOTS.iter().find(|(name, _, _)| *name == first || name.trim_end_matches('s') == first);
    let Some((name, file, place)) = root else { return Err(unknown_root(path)) };
    let mut nodes = vec![Node { path: (*name).to_owned(), when: None, schema: &schemas[*file], required: true }];
    let mut steps = Vec::new();
    for key in keys {
        let below: Vec<(Step, Node<'_>)> = nodes.iter().flat_map(|node| node.below(key)).collect();
        if below.is_empty() {
            return Err(unknown_key(&nodes, key));
        }
        steps.extend(below.first().map(|(step, _)| step.clone()));
        nodes = below.into_iter().map(|(_, node)| node).collect();
        nodes.dedup_by(|one, other| one.schema == other.schema && one.when == other.when);
    }
    let keys: Vec<&str> = steps.iter().flat_map(|step| step.keys.iter().map(String::as_str)).collect();
    let documents = documents(&folder.join(place));
    let fleet = documents_of_fleet(folder);
    let explained = |node: &Node<'_>| {
        let mut explanation = node.explained();
        explanation.examples = examples(&documents, &keys);
        if let (None, "services", Some(default)) = (&explanation.default, *name, fleet.as_ref()) {
            explanation.default = find(&default["defaults"], &keys).into_iter().next().cloned();
            explanation.default_is_set_in =
                explanation.default.is_some().then(|| format!("fleet.defaults.{}", keys.join(".")));
        }
        explanation
    };
    Ok(nodes.iter().map(explained).collect())
}

fn unknown_root(path: &str) -> Hinted {
    let paths = paths();
    let ends = paths.iter().filter(|known| known.ends_with(&format!(".{path}"))).min_by_key(|known| known.len());
    let hint = ends.map(|known| format!("did you mean `{known}`?"));
    let hint = hint.or_else(|| did_you_mean(path, paths.iter().map(String::as_str)));
    let hint = hint.unwrap_or_else(|| format!("paths begin with {}", listed(ROOTS.iter().map(|(name, _, _)| *name))));
    Hinted::new(format!("there is no setting `{path}`"), hint).code(Code::UnknownName)
}

fn unknown_key(nodes: &[Node<'_>], key: &str) -> Hinted {
    let known: BTreeSet<String> = nodes.iter().flat_map(Node::children).map(|(key, _)| key).collect();
    let names = known.iter().map(String::as_str);
    let path = nodes.first().map_or("", |node| node.path.as_str());
    let hint = match did_you_mean(key, names.clone()) {
        Some(hint) => hint,
        None if known.is_empty() => format!("`natsctl explain {path}` shows what it is"),
        None => format!("it has {}", listed(names)),
    };
    Hinted::new(format!("`{path}` has no key `{key}`"), hint).code(Code::UnknownName)
}

/// A schema at its place.
#[derive(Clone, Debug)]
struct Node<'a> {
    path: String,
    when: Option<String>,
    schema: &'a Value,
    required: bool,
}

/// From a key to one below it. A name on the way may have been left out.
#[derive(Clone, Debug)]
struct Step {
    keys: Vec<String>,
}

impl<'a> Node<'a> {
    /// The schemas of objects that it may be: of a list those of its items.
    fn objects(&self) -> Vec<(Option<String>, &'a Value)> {
        let schema = self.schema;
        let items = schema.get("items").into_iter().map(|items| (self.when.clone(), items));
        let choices = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()).into_iter().flatten();
        let choices = choices.map(|choice| (tag(choice).or_else(|| self.when.clone()), choice));
        [(self.when.clone(), schema)].into_iter().chain(items).chain(choices).collect()
    }

    /// What is below it, by key.
    fn children(&self) -> Vec<(String, Node<'a>)> {
        let mut children = Vec::new();
        for (when, object) in self.objects() {
            let required: BTreeSet<&str> =
                object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for (key, schema) in object["properties"].as_object().into_iter().flatten() {
                children.push((key.clone(), self.child(key, when.clone(), schema, required.contains(key.as_str()))));
            }
            let patterns = object["patternProperties"].as_object().into_iter().flat_map(|patterns| patterns.values());
            let any = object.get("additionalProperties").filter(|any| any.is_object());
            for schema in patterns.chain(any) {
                children.push((ANY_NAME.to_owned(), self.child(ANY_NAME, when.clone(), schema, false)));
            }
        }
        children
    }

    fn child(&self, key: &str, when: Option<String>, schema: &'a Value, required: bool) -> Self {
        Self { path: format!("{}.{key}", self.path), when, schema, required }
    }

    /// What is meant by a key below it: a key that the schema names, one of a named thing, or a name.
    fn below(&self, key: &str) -> Vec<(Step, Node<'a>)> {
        let named = |children: Vec<(String, Node<'a>)>, key: &str| -> Vec<Node<'a>> {
            children.into_iter().filter(|(name, _)| name == key).map(|(_, node)| node).collect()
        };
        let found = named(self.children(), key);
        if !found.is_empty() {
            return found.into_iter().map(|node| (Step { keys: vec![key.to_owned()] }, node)).collect();
        }
        let any = named(self.children(), ANY_NAME);
        let inside: Vec<Node<'a>> = any.iter().flat_map(|node| named(node.children(), key)).collect();
        let through_any = !inside.is_empty();
        let keys = if through_any { vec![ANY_NAME.to_owned(), key.to_owned()] } else { vec![ANY_NAME.to_owned()] };
        let nodes = if through_any { inside } else { any };
        nodes.into_iter().map(|node| (Step { keys: keys.clone() }, node)).collect()
    }

    fn explained(&self) -> Explanation {
        let schema = self.schema;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let bound = |key: &str, quantity: &str| schema.get(quantity).or_else(|| schema.get(key)).map(text);
        let range = match (bound("minimum", "x-minimum"), bound("maximum", "x-maximum")) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}")),
            (Some(least), None) => Some(format!("at least {least}")),
            (None, Some(most)) => Some(format!("at most {most}")),
            (None, None) => None,
        };
        let children: BTreeMap<String, Child> =
            self.children().into_iter().map(|(key, node)| (key, node.brief())).collect();
        Explanation {
            path: self.path.clone(),
            when: self.when.clone(),
            description: schema["description"].as_str().unwrap_or_default().replace('\n', " "),
            r#type: self.kind(),
            unit: self.unit(),
            range,
            values: values(schema),
            required: self.required && self.path.contains('.'),
            default: schema.get("default").cloned(),
            default_is_set_in: None,
            examples: Vec::new(),
            children: children.into_values().collect(),
        }
    }

    fn brief(&self) -> Child {
        let description = self.schema["description"].as_str().map(first_sentence).unwrap_or_default();
        Child { path: self.path.clone(), r#type: self.kind(), description }
    }

    fn kind(&self) -> String {
        let schema = self.schema;
        let kind = schema["type"].as_str();
        let first = |key: &str| schema[key].as_array().and_then(|choices| choices.first()?["type"].as_str());
        let kind = kind.or_else(|| first("oneOf")).or_else(|| first("anyOf")).unwrap_or("any");
        match (kind, schema["items"]["type"].as_str()) {
            ("array", Some(items)) => format!("list of {items}s"),
            ("array", None) => "list".to_owned(),
            (kind, _) => kind.to_owned(),
        }
    }

    fn unit(&self) -> Option<String> {
        let unit = match (self.schema["format"].as_str(), self.path.rsplit('.').next().unwrap_or_default()) {
            (Some("time-span"), _) => "`ms`, `s`, `min`, `h` or `d`, for example `30 s`",
            (Some("size"), _) => "`KiB`, `MiB` or `GiB`, for example `512 MiB`",
            (_, key) if key.ends_with("_percent") => "percent",
            (_, key) if key.ends_with("_seconds") => "seconds",
            (_, "cpu") => "CPU units; 1024 are one core",
            _ => return None,
        };
        Some(unit.to_owned())
    }
}

/// What tells one choice of several objects from the others: `platform: aws`.
fn tag(choice: &Value) -> Option<String> {
    let properties = choice["properties"].as_object()?;
    properties.iter().find_map(|(key, property)| Some(format!("{key}: {}", property["const"].as_str()?)))
}

/// The values that are allowed, if they can be listed.
fn values(schema: &Value) -> Vec<Named> {
    let named = |name: &Value, description: &Value| Named {
        name: name.as_str().map_or_else(|| name.to_string(), str::to_owned),
        description: description.as_str().unwrap_or_default().replace('\n', " "),
    };
    let listed = schema["enum"].as_array().into_iter().flatten().map(|value| named(value, &Value::Null));
    let choices = schema["oneOf"].as_array().into_iter().flatten().filter(|choice| choice.get("const").is_some());
    listed.chain(choices.map(|choice| named(&choice["const"], &choice["description"]))).collect()
}

fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    match text.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => text,
    }
}

fn schemas() -> &'static BTreeMap<&'static str, Value> {
    static SCHEMAS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
        let parse = |text: &String| serde_json::from_str(text).unwrap_or_default();
        manifest::schemas().into_iter().map(|(name, text)| (name, parse(&text))).collect()
    });
    &SCHEMAS
}

/// What is written in a file, or in the files of a folder. Those that cannot be read are no examples.
fn documents(place: &Path) -> Vec<(PathBuf, Value)> {
    let files: BTreeSet<PathBuf> = match std::fs::read_dir(place) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => [place.to_owned()].into(),
    };
    let yaml = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    yaml.filter_map(|file| Some((file.clone(), serde_yaml::from_str(&read(&file).ok()?).ok()?))).collect()
}

fn documents_of_fleet(folder: &Path) -> Option<Value> {
    documents(&folder.join("fleet.yaml")).into_iter().next().map(|(_, fleet)| fleet)
}

/// What the documents say of a key: different values first.
fn examples(documents: &[(PathBuf, Value)], keys: &[&str]) -> Vec<Example> {
    let mut seen = BTreeSet::new();
    let found = documents.iter().flat_map(|(file, document)| {
        let values = if keys.is_empty() { Vec::new() } else { find(document, keys) };
        values.into_iter().map(move |value| Example { file: file.clone(), value: value.clone() })
    });
    found.filter(|example| seen.insert(example.value.to_string())).take(MOST_EXAMPLES).collect()
}

/// All values at a path; a name is any key, and a list each of its items.
fn find<'a>(value: &'a Value, keys: &[&str]) -> Vec<&'a Value> {
    let Some((key, rest)) = keys.split_first() else { return vec![value] };
    match value {
        Value::Array(items) => items.iter().flat_map(|item| find(item, keys)).collect(),
        Value::Object(map) if *key == ANY_NAME => map.values().flat_map(|value| find(value, rest)).collect(),
        Value::Object(map) => map.get(*key).map(|value| find(value, rest)).unwrap_or_default(),
        _ => Vec::new(),
    }
}

impl Explanation {
    /// For people; what is below it is a table of its own.
    pub(crate) fn text(&self) -> String {
        let when = self.when.as_ref().map(|when| format!(" (with `{when}`)")).unwrap_or_default();
        let mut text = format!("{}{when}\n  {}\n\n", self.path, self.description);
        let default = match (&self.default, &self.default_is_set_in) {
            (Some(default), Some(place)) => Some(format!("{default}, as `{place}` says")),
            (Some(default), None) => Some(default.to_string()),
            (None, _) => self.required.then(|| "none: it is required".to_owned()),
        };
        let rows = [("type", Some(self.r#type.clone())), ("unit", self.unit.clone()), ("range", self.range.clone())];
        for (name, value) in rows.into_iter().chain([("default", default)]) {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{name:<9} {value}");
            }
        }
        for (index, Named { name, description }) in self.values.iter().enumerate() {
            let title = if index == 0 { "values" } else { "" };
            let _ = writeln!(text, "{}", format!("{title:<9} {name}  {description}").trim_end());
        }
        for Example { file, value } in &self.examples {
            let _ = writeln!(text, "{:<9} {value}, in {}", "example", file.display());
        }
        text.trim_end().to_owned()
    }

    /// What is below it.
    pub(crate) fn children(&self) -> &[Child] {
        &self.children
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifests() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests"))
    }

    #[track_caller]
    fn check(path: &str, expected: &[&str]) {
        let text: Vec<String> = explain(path, manifests()).unwrap().iter().map(Explanation::text).collect();
        let text = text.join("\n\n");
        for expected in expected {
            assert!(text.contains(expected), "`{expected}` is missing:\n{text}");
        }
    }

    #[test]
    fn a_setting_has_its_type_unit_range_default_and_examples() {
        let places = ["integer", "1 to 100", "default   10, as `fleet.defaults.autoscaling.max` says", "Most tasks."];
        check("services.autoscaling.max", &places);
        check("service.health.interval", &["`min`", "100 ms to 5 min", "\"10 s\""]);
        check("services.role", &["worker", "Answers on NATS.", "default   \"worker\""]);
        check("fleet.nats.replicas", &["values    1", "none: it is required", "fleet.yaml"]);
        check("services.cpu", &["CPU units"]);
    }

    #[test]
    fn a_name_on_the_way_can_be_any_or_left_out() {
        for path in ["services.buckets.quests.ttl", "services.buckets.<name>.ttl", "services.buckets.ttl"] {
            check(path, &["services.buckets.<name>.ttl", "How long a value is kept"]);
        }
        check("services.buckets.history", &["1 to 64", "language-system.yaml"]);
    }

    #[test]
    fn what_depends_on_the_platform_is_explained_for_each() {
        check("environments.nats.nodes", &["(with `platform: local`)", "(with `platform: aws`)"]);
    }

    #[test]
    fn an_unknown_setting_is_answered_with_one_that_is_spelled_alike() {
        let hint = |path: &str| explain(path, manifests()).unwrap_err().hint().unwrap().to_owned();
        assert_eq!(hint("services.autoscaling.maximum"), "did you mean `max`?");
        assert_eq!(hint("services.autoscaling.zzz"), "it has `cpu_percent`, `max`, `memory_percent` and `min`");
        assert_eq!(hint("services.autoscalling"), "did you mean `autoscaling`?");
        assert_eq!(hint("autoscaling.max"), "did you mean `services.autoscaling.max`?");
        assert!(hint("x").contains("`services`, `fleet` and `environments`"));
    }

    #[test]
    fn every_path_can_be_explained() {
        for path in paths() {
            let explained = explain(&path, Path::new("nowhere")).unwrap();
            assert!(explained.iter().all(|one| one.path == path), "{path}: {explained:?}");
        }
    }

    /// Under `ecs` are the words of ECS: its schema is their documentation.
    #[test]
    fn every_setting_is_in_the_documentation() {
        let page = include_str!("../../docs/manifests.md");
        let is_named = |key: &str| {
            [format!("`{key}`"), format!(".{key}`"), format!("`{key}."), format!(".{key}.")]
                .iter()
                .any(|one| page.contains(one))
        };
        let paths = paths();
        // What an environment says of a service is what a service says of itself.
        let of_services = ["services.ecs.", "environments.services.<name>."];
        let documented = paths.iter().filter(|path| !of_services.iter().any(|known| path.starts_with(known)));
        let missing: Vec<&String> = documented
            .filter(|path| path.rsplit('.').next().is_some_and(|key| key != ANY_NAME && !is_named(key)))
            .filter(|path| path.contains('.'))
            .collect();
        assert!(missing.is_empty(), "docs/manifests.md does not name: {missing:#?}");
    }
}
