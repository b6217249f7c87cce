//! What natsctl writes for programs is as `docs/schema/output.schema.json` says: everything that a test reads as JSON is checked.

use std::sync::LazyLock;

use serde_json::{Value, json};

static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../docs/schema/output.schema.json")).expect("the schema is JSON")
});

/// Asserts that a document is what the command of these arguments writes, or an error.
#[track_caller]
pub(crate) fn check(arguments: &[String], document: &Value) {
    let name = if document.get("error").is_some() { "error".to_owned() } else { command(arguments) };
    let is_planned = arguments.iter().any(|word| ["--dry-run", "-n"].contains(&word.as_str()));
    let is_planned = is_planned && document.get("steps").is_some() && document.get("proofs").is_none();
    let name = if is_planned { "_plan" } else { &name };
    let schema = json!({ "$defs": SCHEMAS["$defs"], "$ref": format!("#/$defs/{}", name.replace(' ', "%20")) });
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{error}"));
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "`natsctl {}` writes no `{name}`: {errors:#?}\n{document:#}", arguments.join(" "));
}

/// The command that is typed: `nats status`.
fn command(arguments: &[String]) -> String {
    let is_known = |name: &String| SCHEMAS["$defs"].get(name).is_some();
    let pairs = arguments.windows(2).map(|pair| pair.join(" "));
    let found = pairs.chain(arguments.iter().cloned()).find(is_known);
    found.unwrap_or_else(|| panic!("docs/schema/output.schema.json has nothing for `natsctl {}`", arguments.join(" ")))
}
