//! The part of JSON Schema that the schema of the handover uses.

use serde_json::Value;

/// What is wrong with a value.
pub(crate) fn problems(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(expected) = schema["type"].as_str()
        && !is(expected, value)
    {
        found.push(format!("{path}: {value} is no {expected}"));
    }
    let known = &schema["properties"];
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (known.get(key), &schema["additionalProperties"]) {
            (Some(schema), _) | (None, schema @ Value::Object(_)) => found.extend(problems(schema, inner, &path)),
            (None, Value::Bool(false)) => found.push(format!("{path}: unknown key")),
            (None, _) => {}
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(required.filter(|key| value.get(key).is_none()).map(|key| format!("{path}.{key}: it is missing")));
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(problems(&schema["items"], item, &format!("{path}[{index}]")));
    }
    let fewest = schema["minItems"].as_u64().unwrap_or(0);
    if value.as_array().is_some_and(|items| (items.len() as u64) < fewest) {
        found.push(format!("{path}: fewer than {fewest}"));
    }
    let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
    if let Some(number) = value.as_f64()
        && (least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most))
    {
        found.push(format!("{path}: {number} is out of range"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        assert_eq!(pattern, "^[0-9]{12}$", "the only supported pattern");
        let text = value.as_str().unwrap_or_default();
        if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push(format!("{path}: `{text}` is no account"));
        }
    }
    found
}

fn is(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the schema has an unsupported type `{other}`"),
    }
}

#[test]
fn what_is_wrong_is_found() {
    let text = std::fs::read_to_string(super::tree::root().join("manifests/schema/handover.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let value = serde_json::json!({ "version": "1", "account": "12", "network": { "subnets": [] }, "surprise": 1 });
    let found = problems(&schema, &value, "").join("\n");
    for expected in [
        ".version: \"1\" is no integer",
        "is no account",
        ".network.subnets: fewer than 1",
        ".surprise: unknown key",
        ".nats: it is missing",
    ] {
        assert!(found.contains(expected), "{expected}:\n{found}");
    }
}
