//! The document of a task definition: what the API says, in one form only. Lists that have a key are maps by it, and what is the
//! default is left out; so two documents are equal if and only if tasks run alike. Pure.

use serde_json::{Map, Value, json};

/// An object of JSON.
pub(crate) type Object = Map<String, Value>;

/// What ECS adds to a task definition that was registered.
const ADDED_BY_ECS: &[&str] = &[
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// A list whose elements have a key.
struct Keyed {
    list: &'static str,
    key: &'static str,
    /// The only other field of an element, if it has but one: then that is the value.
    value: Option<&'static str>,
}

const KEYED: &[Keyed] = &[
    Keyed { list: "containerDefinitions", key: "name", value: None },
    Keyed { list: "volumes", key: "name", value: None },
    Keyed { list: "environment", key: "name", value: Some("value") },
    Keyed { list: "secrets", key: "name", value: Some("valueFrom") },
    Keyed { list: "secretOptions", key: "name", value: Some("valueFrom") },
    Keyed { list: "properties", key: "name", value: Some("value") },
    Keyed { list: "ulimits", key: "name", value: None },
    Keyed { list: "portMappings", key: "containerPort", value: None },
    Keyed { list: "mountPoints", key: "containerPath", value: None },
    Keyed { list: "volumesFrom", key: "sourceContainer", value: None },
    Keyed { list: "tmpfs", key: "containerPath", value: None },
    Keyed { list: "dependsOn", key: "containerName", value: Some("condition") },
    Keyed { list: "systemControls", key: "namespace", value: Some("value") },
    Keyed { list: "extraHosts", key: "hostname", value: Some("ipAddress") },
];

/// Lists whose order says nothing.
const UNORDERED: &[&str] = &["requiresCompatibilities", "add", "drop", "environmentFiles", "resourceRequirements"];

/// What an object is if it does not say so.
fn defaults(within: &str) -> &'static [(&'static str, Default)] {
    match within {
        "containerDefinitions" => &[
            ("essential", Default::True),
            ("cpu", Default::Number(0)),
            ("stopTimeout", Default::Number(30)),
            ("versionConsistency", Default::Text("enabled")),
        ],
        "healthCheck" => &[
            ("interval", Default::Number(30)),
            ("timeout", Default::Number(5)),
            ("retries", Default::Number(3)),
            ("startPeriod", Default::Number(0)),
        ],
        "portMappings" => &[("protocol", Default::Text("tcp"))],
        "runtimePlatform" => &[("operatingSystemFamily", Default::Text("LINUX"))],
        "efsVolumeConfiguration" => {
            &[("rootDirectory", Default::Text("/")), ("transitEncryption", Default::Text("DISABLED"))]
        }
        "authorizationConfig" => &[("iam", Default::Text("DISABLED"))],
        _ => &[],
    }
}

#[derive(Clone, Copy)]
enum Default {
    True,
    Number(i64),
    Text(&'static str),
}

impl Default {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::True => *value == Value::Bool(true),
            Self::Number(number) => value.as_i64() == Some(number),
            Self::Text(text) => value.as_str() == Some(text),
        }
    }
}

/// The one form of what the API says.
pub(crate) fn canonical(said: Value) -> Object {
    let mut said = keyed(sparse(said, ""));
    // The SDK has maps in random order, and `serde_json` may keep the order of what it is given.
    said.sort_all_objects();
    let Value::Object(said) = said else { return Object::new() };
    said.into_iter().filter(|(field, _)| !ADDED_BY_ECS.contains(&&**field)).collect()
}

/// As the API says it: the opposite of `canonical`, apart from what is the default.
pub(crate) fn spoken(document: Object) -> Value {
    let document = document.into_iter().map(|(field, value)| {
        let value = match (value, KEYED.iter().find(|keyed| keyed.list == field)) {
            (Value::Object(elements), Some(keyed)) => listed(elements, keyed),
            (Value::Object(object), None) => spoken(object),
            (value, _) => value,
        };
        (field, value)
    });
    Value::Object(document.collect())
}

/// Puts one document over another, field by field.
pub(crate) fn merge(base: &mut Object, over: Object) {
    for (field, value) in over {
        match (base.get_mut(&field), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (_, value) => drop(base.insert(field, value)),
        }
    }
    base.sort_keys();
}

/// Without what says nothing: values that are absent, empty, false, or the default. `within` names what the value is of.
fn sparse(value: Value, within: &str) -> Value {
    match value {
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().map(|value| sparse(value, within)).collect();
            if UNORDERED.contains(&within) {
                values.sort_by_key(ToString::to_string);
            }
            Value::Array(values)
        }
        Value::Object(object) => {
            let is_default = |field: &str, value: &Value| {
                let known = defaults(within).iter().find(|(known, _)| *known == field);
                known.map_or(*value == Value::Bool(false), |(_, default)| default.is(value))
            };
            // In a task with a network interface, the port of the host is that of the container.
            let port = object.get("containerPort").cloned();
            let fields = object.into_iter().map(|(field, value)| (field.clone(), sparse(value, &field)));
            let fields = fields.filter(|(field, value)| {
                let is_empty = match value {
                    Value::Null => true,
                    Value::Array(values) => values.is_empty(),
                    Value::Object(fields) => fields.is_empty(),
                    _ => false,
                };
                let is_port = field == "hostPort" && (port.as_ref() == Some(value) || *value == json!(0));
                !is_empty && !is_port && !is_default(field, value)
            });
            Value::Object(fields.collect())
        }
        value => value,
    }
}

/// With maps where a list has a key.
fn keyed(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let fields = object.into_iter().map(|(field, value)| {
                let value = keyed(value);
                let by_key = KEYED.iter().find(|keyed| keyed.list == field).and_then(|keyed| by_key(&value, keyed));
                (field, by_key.unwrap_or(value))
            });
            Value::Object(fields.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(keyed).collect()),
        value => value,
    }
}

/// `None` if it is no list, or if the key of an element is missing or that of another one, too.
fn by_key(value: &Value, keyed: &Keyed) -> Option<Value> {
    let mut map = Object::new();
    for element in value.as_array()? {
        let mut element = element.as_object()?.clone();
        let key = match element.remove(keyed.key)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let value = match keyed.value {
            Some(field) => {
                let value = element.remove(field).unwrap_or_default();
                if !element.is_empty() {
                    return None;
                }
                value
            }
            None => Value::Object(element),
        };
        if map.insert(key, value).is_some() {
            return None;
        }
    }
    Some(Value::Object(map))
}

/// A field as a list, if it is one that has a key.
pub(crate) fn listed_by(field: &str, value: Value) -> Value {
    match (value, KEYED.iter().find(|keyed| keyed.list == field)) {
        (Value::Object(elements), Some(keyed)) => listed(elements, keyed),
        (value, _) => value,
    }
}

fn listed(elements: Object, keyed: &Keyed) -> Value {
    let element = |(key, value): (String, Value)| {
        let mut element = match (keyed.value, value) {
            (Some(_), Value::Null) => Object::new(),
            (Some(field), value) => Object::from_iter([(field.to_owned(), value)]),
            (None, Value::Object(fields)) => match spoken(fields) {
                Value::Object(fields) => fields,
                _ => Object::new(),
            },
            (None, _) => Object::new(),
        };
        let key = match keyed.key {
            "containerPort" => key.parse::<i64>().map_or(Value::from(key), Value::from),
            _ => Value::from(key),
        };
        element.insert(keyed.key.to_owned(), key);
        Value::Object(element)
    };
    Value::Array(elements.into_iter().map(element).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: Value, expected: Value) {
        let document = canonical(said);
        assert_eq!(Value::Object(document.clone()), expected);
        assert_eq!(Value::Object(canonical(spoken(document))), expected, "said again");
    }

    #[test]
    fn the_order_of_lists_with_a_key_says_nothing() {
        let environment = |names: [&str; 2]| {
            let variables = names.map(|name| json!({ "name": name, "value": "1" }));
            json!({ "containerDefinitions": [{ "name": "a", "environment": variables }] })
        };
        let expected = json!({ "containerDefinitions": { "a": { "environment": { "X": "1", "Y": "1" } } } });
        check(environment(["X", "Y"]), expected.clone());
        check(environment(["Y", "X"]), expected);
    }

    #[test]
    fn what_is_the_default_says_nothing() {
        let said = json!({
            "revision": 3, "status": "ACTIVE", "volumes": [], "placementConstraints": [],
            "runtimePlatform": { "operatingSystemFamily": "LINUX" },
            "containerDefinitions": [
                { "name": "a", "essential": true, "cpu": 0, "privileged": false,
                  "portMappings": [{ "containerPort": 80, "hostPort": 80, "protocol": "tcp" }],
                  "healthCheck": { "command": ["CMD", "x"], "interval": 30, "timeout": 5, "retries": 3 } },
                { "name": "b", "essential": false, "cpu": 64 },
            ],
        });
        let expected = json!({ "containerDefinitions": {
            "a": { "portMappings": { "80": {} }, "healthCheck": { "command": ["CMD", "x"] } },
            "b": { "essential": false, "cpu": 64 },
        } });
        check(said, expected);
    }

    #[test]
    fn a_list_whose_keys_repeat_stays_a_list() {
        let ports = json!([{ "containerPort": 53 }, { "containerPort": 53, "protocol": "udp" }]);
        check(json!({ "portMappings": ports }), json!({ "portMappings": ports }));
    }

    #[test]
    fn a_volume_that_says_nothing_but_its_name_is_there() {
        check(json!({ "volumes": [{ "name": "data", "host": {} }] }), json!({ "volumes": { "data": {} } }));
    }

    #[test]
    fn a_variable_without_a_value_is_another_one_than_none() {
        check(
            json!({ "environment": [{ "name": "A" }, { "name": "B", "value": "" }] }),
            json!({ "environment": { "A": null, "B": "" } }),
        );
    }

    #[test]
    fn a_field_of_a_later_api_is_kept() {
        check(json!({ "family": "a", "future": { "field": 1 } }), json!({ "family": "a", "future": { "field": 1 } }));
    }
}
