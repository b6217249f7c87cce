//! References to the values of secrets: in Secrets Manager, or in the Parameter Store of Systems Manager.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What Secrets Manager adds to the name of a secret in its ARN: a `-` and this many letters and digits.
const SUFFIX: usize = 6;

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum SecretReference {
    /// A secret of Secrets Manager, or a part of it.
    Secret {
        /// Its ARN; or the name that the environment's secrets have in manifests.
        secret: String,
        /// The key whose value is meant, of a secret that is a JSON object.
        key: Option<String>,
        /// Staging label of the version; `AWSCURRENT` if neither it nor a version is said.
        stage: Option<String>,
        /// Id of the version.
        version: Option<String>,
    },
    /// A parameter of Systems Manager: its name or its ARN.
    Parameter(String),
}

/// A reference as files have it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Secret {
        secret: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    Parameter {
        parameter: String,
    },
}

impl From<Written> for SecretReference {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(secret) => Self::whole(secret),
            Written::Secret { secret, key, stage, version } => Self::Secret { secret, key, stage, version },
            Written::Parameter { parameter } => Self::Parameter(parameter),
        }
    }
}

impl From<SecretReference> for Written {
    fn from(reference: SecretReference) -> Self {
        match reference {
            SecretReference::Secret { secret, key, stage, version } => Self::Secret { secret, key, stage, version },
            SecretReference::Parameter(parameter) => Self::Parameter { parameter },
        }
    }
}

impl SecretReference {
    /// A whole secret, by its name or ARN.
    pub fn whole(secret: impl Into<String>) -> Self {
        Self::Secret { secret: secret.into(), key: None, stage: None, version: None }
    }

    /// One key of a secret, by the secret's name or ARN.
    pub fn key(secret: impl Into<String>, key: &str) -> Self {
        Self::Secret { secret: secret.into(), key: Some(key.to_owned()), stage: None, version: None }
    }

    /// What a container definition says in `valueFrom`:
    /// `arn:…:secret:<name>[-<suffix>][:<key>:<stage>:<version>]`, or the ARN or the name of a parameter.
    pub fn from_value_from(text: &str) -> Self {
        let Some((start, rest)) = text.split_once(":secret:").filter(|(start, _)| start.starts_with("arn:")) else {
            return Self::Parameter(text.to_owned());
        };
        let mut parts = rest.split(':');
        let name = parts.next().unwrap_or_default();
        let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
        Self::Secret { secret: format!("{start}:secret:{name}"), key: part(), stage: part(), version: part() }
    }

    /// As a container definition says it.
    pub fn value_from(&self) -> String {
        match self {
            Self::Parameter(name) => name.clone(),
            Self::Secret { secret, key: None, stage: None, version: None } => secret.clone(),
            Self::Secret { secret, key, stage, version } => {
                let part = |part: &Option<String>| part.clone().unwrap_or_default();
                format!("{secret}:{}:{}:{}", part(key), part(stage), part(version))
            }
        }
    }

    /// The name of a secret of the environment; `None` if it is named by an ARN, or is a parameter.
    pub fn own_name(&self) -> Option<&str> {
        match self {
            Self::Secret { secret, .. } if !secret.starts_with("arn:") => Some(secret),
            _ => None,
        }
    }

    /// The same part of another secret.
    #[must_use]
    pub fn of(self, secret: String) -> Self {
        match self {
            Self::Secret { key, stage, version, .. } => Self::Secret { secret, key, stage, version },
            parameter @ Self::Parameter(_) => parameter,
        }
    }

    /// The file that takes its place on one machine, relative to the folder of secrets: what it is called, and its key. A machine has
    /// one version of each.
    pub fn file(&self) -> String {
        match self {
            Self::Parameter(name) => {
                let name = name.split_once(":parameter").map_or(&**name, |(_, name)| name);
                name.trim_start_matches('/').to_owned()
            }
            Self::Secret { secret, key, .. } => {
                let name = secret.split_once(":secret:").map_or(&**secret, |(_, name)| without_suffix(name));
                key.as_ref().map_or_else(|| name.to_owned(), |key| format!("{name}:{key}"))
            }
        }
    }
}

/// The name of a secret, from what its ARN ends with.
pub fn without_suffix(name: &str) -> &str {
    let is_suffix = |suffix: &str| suffix.len() == SUFFIX && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name.rsplit_once('-').filter(|(_, suffix)| is_suffix(suffix)).map_or(name, |(name, _)| name)
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value_from())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DB: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gaming-system/production/db-AbCdEf";

    #[track_caller]
    fn check(value_from: &str, written: Value, file: &str) {
        let reference = SecretReference::from_value_from(value_from);
        assert_eq!(json!(reference), written);
        assert_eq!(serde_json::from_value::<SecretReference>(written).unwrap(), reference);
        assert_eq!(reference.value_from(), value_from);
        assert_eq!(reference.file(), file);
    }

    #[test]
    fn every_part_of_a_reference_is_kept() {
        let file = "gaming-system/production/db";
        check(DB, json!({ "secret": DB }), file);
        check(&format!("{DB}:password::"), json!({ "secret": DB, "key": "password" }), &format!("{file}:password"));
        check(&format!("{DB}::AWSPREVIOUS:"), json!({ "secret": DB, "stage": "AWSPREVIOUS" }), file);
        check(&format!("{DB}:::0123-4567"), json!({ "secret": DB, "version": "0123-4567" }), file);
        let all = json!({ "secret": DB, "key": "k", "stage": "S", "version": "V" });
        check(&format!("{DB}:k:S:V"), all, &format!("{file}:k"));
    }

    #[test]
    fn a_secret_of_another_account_or_without_a_suffix_is_named_by_its_arn() {
        let other = "arn:aws:secretsmanager:eu-west-1:999999999999:secret:shared/token";
        check(other, json!({ "secret": other }), "shared/token");
        assert_eq!(SecretReference::from_value_from(other).own_name(), None);
        assert_eq!(SecretReference::whole("db").own_name(), Some("db"));
    }

    #[test]
    fn what_is_no_secret_is_a_parameter() {
        check("/app/token", json!({ "parameter": "/app/token" }), "app/token");
        let arn = "arn:aws:ssm:us-east-1:123456789012:parameter/app/token";
        check(arn, json!({ "parameter": arn }), "app/token");
    }

    #[test]
    fn a_name_alone_is_a_whole_secret() {
        assert_eq!(serde_json::from_value::<SecretReference>(json!("db")).unwrap(), SecretReference::whole("db"));
    }
}
