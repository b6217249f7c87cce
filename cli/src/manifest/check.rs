//! Compares a tree with a JSON Schema and says everything that is wrong, where it is written.
//!
//! It knows the keywords that our own schemas use, no more; a test fails if a schema uses another one.

use std::collections::HashSet;
use std::str::FromStr;

use serde_json::{Map, Value as Json};

use super::names::{FORMS, Form};
use super::yaml::{Entry, Flaw, Node, Position, Value};
use crate::model::units::{Size, Span, UnitError};
use crate::problem::{did_you_mean, listed};

/// The longest key or value, in bytes: more than any needs, and less than what Linux (128 KiB for one variable) and ECS (64 KiB for a task
/// definition) allow.
const MAX_TEXT: usize = 32 << 10;

/// Everything that is wrong with a tree.
pub(super) fn check(root: &Node, schema: &Json) -> Vec<Flaw> {
    let mut checker = Checker { flaws: Vec::new() };
    checker.node(root, schema, "the file");
    checker.flaws
}

struct Checker {
    flaws: Vec<Flaw>,
}

impl Checker {
    /// `name` is how messages call the node.
    fn node(&mut self, node: &Node, schema: &Json, name: &str) {
        if node.value == Value::Refused {
            return;
        }
        if node.value == Value::Null {
            return self.flaw(node, format!("{name} has no value"), "give it one, or remove the key".to_owned());
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.choice(node, choices, name);
        }
        let right = match (schema["type"].as_str(), &node.value) {
            (Some("object"), Value::Map(entries)) => return self.object(node, entries, schema, name),
            (Some("array"), Value::List(items)) => return self.array(node, items, schema, name),
            (Some("string"), Value::Text(text)) => return self.string(node, text, schema, name),
            (Some("boolean"), Value::Bool(_)) => return,
            (Some("integer"), Value::Integer(number)) => return self.integer(node, *number, schema, name),
            (right, _) => right.unwrap_or("null"),
        };
        self.wrong_type(node, right, schema, name);
    }

    fn object(&mut self, node: &Node, entries: &[Entry], schema: &Json, name: &str) {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let pattern = schema["patternProperties"].as_object().and_then(|patterns| patterns.iter().next());
        for entry in entries {
            if !self.is_sendable(entry.position, &entry.key, "a key") {
                continue;
            }
            let called = format!("`{}`", entry.key);
            match (properties.get(&entry.key), pattern) {
                (Some(property), _) => self.node(&entry.value, property, &called),
                (None, Some((pattern, value))) => {
                    self.form(entry.position, &entry.key, pattern);
                    self.node(&entry.value, value, &called);
                }
                (None, None) => {
                    let known = properties.keys().map(String::as_str);
                    let hint = did_you_mean(&entry.key, known.clone())
                        .unwrap_or_else(|| format!("the keys here are {}", listed(known)));
                    self.flaw_at(entry.position, format!("unknown key {called}"), hint);
                }
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.get(key).is_none() {
                let hint = match properties.get(key).and_then(|property| property["description"].as_str()) {
                    Some(description) => format!("`{key}`: {}", lower_case_first(description)),
                    None => format!("add `{key}`"),
                };
                self.flaw(node, format!("{name} lacks the key `{key}`"), hint);
            }
        }
    }

    fn array(&mut self, node: &Node, items: &[Node], schema: &Json, name: &str) {
        let bound = |key: &str| schema[key].as_u64().and_then(|bound| usize::try_from(bound).ok());
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        if !(least..=most).contains(&items.len()) {
            let message = format!("{name} must have {least} to {most} items, not {}", items.len());
            self.flaw(node, message, None::<String>);
        }
        let mut texts = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            self.node(item, &schema["items"], &format!("item {} of {name}", index + 1));
            if let Some(text) = item.text().filter(|text| schema["uniqueItems"] == true && !texts.insert(*text)) {
                self.flaw(item, format!("`{text}` is twice in {name}"), "remove one of them".to_owned());
            }
        }
    }

    fn string(&mut self, node: &Node, text: &str, schema: &Json, name: &str) {
        if !self.is_sendable(node.position, text, name) {
            return;
        }
        match (schema["format"].as_str(), schema["pattern"].as_str()) {
            (Some("time-span"), _) => self.quantity::<Span>(node, text, schema, name),
            (Some("size"), _) => self.quantity::<Size>(node, text, schema, name),
            (_, Some(pattern)) => self.form(node.position, text, pattern),
            _ => {}
        }
    }

    /// Whether a text can be an argument, an environment variable or a name anywhere.
    fn is_sendable(&mut self, position: Position, text: &str, name: &str) -> bool {
        if text.contains('\0') {
            let hint = "remove it: no environment variable, file or name can have one";
            self.flaw_at(position, format!("{name} has a NUL character"), hint.to_owned());
        } else if text.len() > MAX_TEXT {
            let message = format!("{name} has {} bytes, and at most {MAX_TEXT} are allowed", text.len());
            self.flaw_at(position, message, "shorten it, or let the service read it from elsewhere".to_owned());
        } else {
            return true;
        }
        false
    }

    fn quantity<T: FromStr<Err = UnitError> + PartialOrd>(
        &mut self,
        node: &Node,
        text: &str,
        schema: &Json,
        name: &str,
    ) {
        let quantity: T = match text.parse() {
            Ok(quantity) => quantity,
            Err(error) => return self.flaw(node, format!("{name}: {}", error.message), error.hint),
        };
        let bound = |key: &str| schema[key].as_str().and_then(|text| Some((text, text.parse::<T>().ok()?)));
        if let Some((written, _)) = bound("x-minimum").filter(|(_, least)| quantity < *least) {
            self.flaw(node, format!("{name} must be at least {written}, not {text}"), None::<String>);
        }
        if let Some((written, _)) = bound("x-maximum").filter(|(_, most)| quantity > *most) {
            self.flaw(node, format!("{name} must be at most {written}, not {text}"), None::<String>);
        }
    }

    fn form(&mut self, position: Position, text: &str, pattern: &str) {
        let form: Option<&Form> = FORMS.iter().find(|form| form.pattern == pattern);
        if let Some(form) = form.filter(|form| !form.fits(text)) {
            self.flaw_at(
                position,
                format!("`{text}` is not allowed as a name here"),
                format!("write {}", form.expected),
            );
        }
    }

    fn integer(&mut self, node: &Node, number: i64, schema: &Json, name: &str) {
        if let Some(values) = schema["enum"].as_array() {
            if !values.iter().any(|value| value.as_i64() == Some(number)) {
                let values = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                self.flaw(node, format!("{name} must not be {number}"), format!("it can be {values}"));
            }
            return;
        }
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if number < least || number > most {
            let message = match most {
                i64::MAX => format!("{name} must be at least {least}, not {number}"),
                _ => format!("{name} must be from {least} to {most}, not {number}"),
            };
            self.flaw(node, message, None::<String>);
        }
    }

    /// One of several constants, or one of several objects that a constant key distinguishes.
    fn choice(&mut self, node: &Node, choices: &[Json], name: &str) {
        let constants: Vec<&str> = choices.iter().filter_map(|choice| choice["const"].as_str()).collect();
        if !constants.is_empty() {
            return match &node.value {
                Value::Text(text) if constants.contains(&text.as_str()) => {}
                Value::Text(text) => self.not_one_of(node, text, &constants, name),
                _ => self.not_constant(node, &constants, name),
            };
        }
        if let (Some(short), Value::Text(_)) = (choices.iter().find(|choice| choice["type"] == "string"), &node.value) {
            return self.node(node, short, name);
        }
        let tag = choices.iter().find_map(|choice| {
            let properties = choice["properties"].as_object()?;
            properties.iter().find(|(_, property)| property.get("const").is_some())
        });
        let Value::Map(entries) = &node.value else { return self.wrong_type(node, "object", &Json::Null, name) };
        let Some((tag, _)) = tag else { return self.form_of_map(node, entries, choices, name) };
        let value_of = |choice: &Json| choice["properties"][tag]["const"].as_str().map(str::to_owned);
        let values: Vec<String> = choices.iter().filter_map(value_of).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match node.get(tag) {
            None => {
                let hint = format!("the values are {}", listed(values));
                self.flaw(node, format!("{name} lacks the key `{tag}`"), hint);
            }
            Some(Node { value: Value::Text(text), .. }) if values.contains(&text.as_str()) => {
                let chosen = choices.iter().find(|choice| value_of(choice).as_deref() == Some(text));
                if let Some((chosen, Value::Map(entries))) = chosen.map(|chosen| (chosen, &node.value)) {
                    self.object(node, entries, chosen, name);
                }
            }
            Some(other) => match &other.value {
                Value::Text(text) => self.not_one_of(other, text, &values, &format!("`{tag}`")),
                Value::Refused => {}
                _ => self.not_constant(other, &values, &format!("`{tag}`")),
            },
        }
    }

    /// One of several objects, which the key that each requires distinguishes.
    fn form_of_map(&mut self, node: &Node, entries: &[Entry], choices: &[Json], name: &str) {
        let key = |choice: &Json| choice["required"][0].as_str().map(str::to_owned);
        let has = |choice: &&Json| key(choice).is_some_and(|key| node.get(&key).is_some());
        match choices.iter().find(has) {
            Some(chosen) => self.object(node, entries, chosen, name),
            None => {
                let keys: Vec<String> = choices.iter().filter_map(key).collect();
                let hint = format!("write one of {}", listed(keys.iter().map(String::as_str)));
                self.flaw(node, format!("{name} does not say what it is"), hint);
            }
        }
    }

    fn not_one_of(&mut self, node: &Node, text: &str, values: &[&str], name: &str) {
        let known = values.iter().copied();
        let hint = did_you_mean(text, known.clone()).unwrap_or_else(|| format!("the values are {}", listed(known)));
        self.flaw(node, format!("{name} must not be `{text}`"), hint);
    }

    fn not_constant(&mut self, node: &Node, values: &[&str], name: &str) {
        let hint = format!("the values are {}", listed(values.iter().copied()));
        self.flaw(node, format!("{name} must be a text"), hint);
    }

    fn wrong_type(&mut self, node: &Node, right: &str, schema: &Json, name: &str) {
        let quantity = matches!(schema["format"].as_str(), Some("time-span" | "size"));
        let hint = match (right, &node.value) {
            ("string", Value::Integer(_) | Value::Float(_)) if quantity => {
                // The same advice as for a number in quotes.
                let text = node.to_json().to_string();
                return self.string(node, &text, schema, name);
            }
            ("string", Value::Integer(_) | Value::Float(_) | Value::Bool(_)) if !quantity => {
                Some(format!("quote it: `\"{}\"`", node.to_json()))
            }
            ("integer", Value::Text(text)) if text.parse::<i64>().is_ok() => Some("remove the quotes".to_owned()),
            ("array", Value::Text(text)) => Some(format!("write a list: `[{text}]`")),
            _ => None,
        };
        let right = match right {
            "object" => "a map",
            "array" => "a list",
            "integer" => "a whole number",
            "boolean" => "`true` or `false`",
            _ => "a text",
        };
        let actual = match &node.value {
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Null | Value::Refused => "nothing",
        };
        let message = match (right, &node.value) {
            ("a whole number", Value::Float(number)) => format!("{name} must be a whole number, not {number}"),
            _ => format!("{name} must be {right}, not {actual}"),
        };
        self.flaw(node, message, hint);
    }

    fn flaw(&mut self, node: &Node, message: String, hint: impl Into<Option<String>>) {
        self.flaw_at(node.position, message, hint);
    }

    fn flaw_at(&mut self, position: Position, message: String, hint: impl Into<Option<String>>) {
        self.flaws.push(Flaw { position, message, hint: hint.into() });
    }
}

fn lower_case_first(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().into_iter().flat_map(char::to_lowercase);
    first.chain(letters).collect()
}
