//! Values as the text of a manifest.

use serde_json::Value;

/// The lines of a key and its value.
pub(super) fn entry(key: &str, value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    text.push_str(&format!("{margin}{}:", plain(key)));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            for (field, value) in fields {
                match value.as_str().filter(|_| key == "environment") {
                    // Whatever a variable looks like, its value is a text.
                    Some(value) => {
                        text.push_str(&format!("{margin}  {}: {}\n", plain(field), Value::from(value)));
                    }
                    None => entry(field, value, indent + 2, text),
                }
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            text.push('\n');
            for item in items {
                text.push_str(&format!("{margin}  - {}\n", flow(item)));
            }
        }
        value => text.push_str(&format!(" {}\n", flow(value))),
    }
}

/// A value on one line.
fn flow(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}: {}", plain(key), flow(value)));
            format!("{{ {} }}", joined(fields.collect()))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(flow).collect())),
        Value::String(text) => plain(text),
        value => value.to_string(),
    }
}

/// A text, in quotes unless it can be nothing but a text.
fn plain(text: &str) -> String {
    let is_plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.@:-".contains(&byte))
        && !text.ends_with(':')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_lowercase().as_str());
    // A text of JSON is a text of YAML.
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}
