//! References to secrets, as manifests write them.

use std::borrow::Cow;
use std::path::{Component, Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::SecretName;
use super::links::Document;
use super::yaml::{Entry, Node};
use crate::model::secret::SecretReference;
use crate::problem::Problem;

/// What the names of the secrets of identities begin with.
const IDENTITIES: &str = "nats/";

impl JsonSchema for SecretReference {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecretReference".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = |description: &str| json_schema!({ "type": "string", "description": description });
        json_schema!({ "oneOf": [
            generator.subschema_for::<SecretName>(),
            {
                "type": "object",
                "description": "A secret of Secrets Manager, or a part of it.",
                "properties": {
                    "secret": text("Name of a secret of the environment, or the ARN of any other one."),
                    "key": text("Key of a secret that is a JSON object; the whole secret if absent."),
                    "stage": text("Staging label of the version, for example `AWSPREVIOUS`; `AWSCURRENT` if absent."),
                    "version": text("Id of the version; the one with the staging label if absent."),
                },
                "required": ["secret"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "description": "A parameter of Systems Manager.",
                "properties": {
                    "parameter": text("Name of a parameter of the same account and region, or the ARN of any other one."),
                },
                "required": ["parameter"],
                "additionalProperties": false,
            },
        ] })
    }
}

/// What is wrong with the secrets of a manifest.
pub(super) fn problems(document: &Document) -> impl Iterator<Item = Problem> {
    let entries = document.root.get("secrets").map(Node::entries).unwrap_or_default();
    entries.iter().filter_map(|entry| problem(document, entry))
}

fn problem(document: &Document, entry: &Entry) -> Option<Problem> {
    let value = &entry.value;
    let refused = |node: &Node, message: String, hint: &str| {
        Some(Problem::new(&document.place(node.position), message).hint(hint))
    };
    if let Some(parameter) = value.get("parameter") {
        let text = parameter.text()?;
        let is_arn = text.starts_with("arn:") && text.contains(":ssm:") && text.contains(":parameter/");
        if text.starts_with("arn:") && !is_arn || !is_name(text.split_once(":parameter").map_or(text, |(_, name)| name))
        {
            let hint =
                "write its name, for example `/shop/token`, or its ARN, `arn:aws:ssm:REGION:ACCOUNT:parameter/NAME`";
            return refused(parameter, format!("`{text}` is no parameter of Systems Manager"), hint);
        }
        return None;
    }
    let named = value.get("secret").unwrap_or(value);
    let text = named.text()?;
    if text.starts_with(IDENTITIES) {
        let hint = "each service has its own, and no other: name a secret that does not begin with `nats/`";
        return refused(named, format!("secret `{text}` is the identity of a service on NATS"), hint);
    }
    let name = match text.strip_prefix("arn:") {
        None => text,
        Some(_) => {
            let is_arn = text.contains(":secretsmanager:");
            let (_, name) = text.split_once(":secret:").filter(|_| is_arn).unwrap_or_default();
            if name.contains(':') {
                let hint = "write it beside: `{ secret: …, key: …, stage: …, version: … }`";
                return refused(named, format!("`{text}` names a part of a secret"), hint);
            }
            name
        }
    };
    if !is_name(name) {
        let hint =
            "write the name of a secret of the environment, or `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`";
        return refused(named, format!("`{text}` is no secret"), hint);
    }
    for part in ["key", "stage", "version"] {
        let Some(node) = value.get(part) else { continue };
        let Some(text) = node.text() else { continue };
        if text.is_empty() || text.contains([':', '/']) {
            let hint = "ECS separates the parts of a reference by `:`: name another one";
            return refused(node, format!("`{text}` cannot be the {part} of a secret"), hint);
        }
    }
    None
}

/// Whether a text can be the name of a secret or a parameter, and of a file.
fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    let parts = Path::new(text).components();
    !text.is_empty()
        && text.len() <= 512
        && text.bytes().all(is_letter)
        && parts.into_iter().all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}
