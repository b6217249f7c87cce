//! Secrets: whether they exist, have a value, and hold complete identities on NATS.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_secretsmanager::types::SecretListEntry;
use serde_json::Value;

use super::{APPLY, Finding};
use crate::aws::desired::IDENTITY;
use crate::aws::{self, Aws};
use crate::model::desired::Role;
use crate::model::secret::SecretReference;

/// Staging label of the version that is read.
const CURRENT: &str = "AWSCURRENT";

/// The secrets that exist.
pub(super) struct Listed {
    pub(super) by_name: BTreeMap<String, Secret>,
}

/// A secret that exists.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) arn: String,
    pub(super) has_value: bool,
}

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A manifest names it.
    Variable,
    /// A service's identity on NATS.
    Identity,
    /// natsctl's own identity.
    Own,
}

impl Listed {
    /// Names of the secrets that the environment needs.
    pub(super) fn wanted(&self, aws: &Aws) -> BTreeMap<String, Use> {
        let handover = &aws.handover;
        let mut wanted = BTreeMap::new();
        for (name, service) in &aws.manifests.services {
            let named = service.all_secrets().filter_map(SecretReference::own_name);
            wanted.extend(named.map(|secret| (handover.secret(secret), Use::Variable)));
            if service.role != Role::Standalone {
                wanted.insert(handover.nats_secret(name), Use::Identity);
            }
        }
        wanted.insert(handover.nats.operator_secret.clone(), Use::Own);
        wanted.extend(handover.redis.iter().map(|redis| (redis.auth_secret.clone(), Use::Variable)));
        wanted
    }
}

pub(super) async fn list(aws: &Aws) -> anyhow::Result<Listed> {
    let handover = &aws.handover;
    let names = [&handover.names.secret, &handover.names.nats_secret, &handover.nats.operator_secret];
    let redis = handover.redis.as_ref().map(|redis| &redis.auth_secret);
    let templates: Vec<&str> = names.into_iter().chain(redis).map(String::as_str).collect();
    let one = |secret: SecretListEntry| {
        let stages = secret.secret_versions_to_stages().into_iter().flat_map(|versions| versions.values().flatten());
        let has_value = stages.into_iter().any(|stage| stage == CURRENT);
        (secret.name.unwrap_or_default(), Secret { arn: secret.arn.unwrap_or_default(), has_value })
    };
    Ok(Listed {
        by_name: crate::aws::secrets::list(aws.clients.secrets(), &templates).await?.into_iter().map(one).collect(),
    })
}

pub(super) async fn check(aws: &Aws, listed: &anyhow::Result<Listed>) -> anyhow::Result<Vec<Finding>> {
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return Ok(vec![Finding::unknown("secrets", error)]),
    };
    let wanted = listed.wanted(aws);
    let mut findings = judge(&wanted, &listed.by_name, &aws.manifests.name);
    let identities = wanted.iter().filter(|(_, of)| **of == Use::Identity).map(|(name, _)| name);
    let readable: Vec<String> =
        identities.filter(|name| listed.by_name.get(*name).is_some_and(|secret| secret.has_value)).cloned().collect();
    match contents(aws, &readable).await {
        Ok(contents) => findings.extend(judge_identities(&contents, &aws.manifests.name)),
        Err(error) => findings.push(Finding::unknown("identities on NATS", &error)),
    }
    Ok(findings)
}

/// Whether the secrets that are needed exist and have a value.
pub(super) fn judge(
    wanted: &BTreeMap<String, Use>,
    existing: &BTreeMap<String, Secret>,
    environment: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut good = 0;
    for (name, of) in wanted {
        let what = format!("secret `{name}`");
        match existing.get(name) {
            Some(secret) if secret.has_value => good += 1,
            None => findings.push(Finding::missing(what, "not there", APPLY)),
            Some(_) => {
                let hint = match of {
                    Use::Variable => {
                        format!("`aws secretsmanager put-secret-value --secret-id {name} --secret-string file://…`")
                    }
                    Use::Identity | Use::Own => identities(environment),
                };
                findings.push(Finding::missing(what, "has no value", hint));
            }
        }
    }
    if good > 0 {
        findings.insert(0, Finding::ok("secrets", format!("{good} of {} have a value", wanted.len())));
    }
    findings
}

/// Whether each identity is complete; `contents` are its keys that have a text.
pub(super) fn judge_identities(contents: &BTreeMap<String, BTreeSet<String>>, environment: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, keys) in contents {
        let missing: Vec<&str> = IDENTITY.into_iter().map(|(_, key)| key).filter(|key| !keys.contains(*key)).collect();
        if !missing.is_empty() {
            let found = format!("has no {}", missing.join(", "));
            findings.push(Finding::missing(format!("secret `{name}`"), found, identities(environment)));
        }
    }
    let good = contents.len() - findings.len();
    if good > 0 {
        findings.insert(0, Finding::ok("identities on NATS", format!("{good} of {} are complete", contents.len())));
    }
    findings
}

fn identities(environment: &str) -> String {
    format!("`natsctl nats identities --env {environment}` writes it")
}

/// The keys of each of these secrets that have a text.
async fn contents(aws: &Aws, names: &[String]) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let keys = |text: &str| {
        let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) else { return BTreeSet::new() };
        let filled = object.into_iter().filter(|(_, value)| value.as_str().is_some_and(|text| !text.is_empty()));
        filled.map(|(key, _)| key).collect()
    };
    let values = aws::secrets::values(aws.clients.secrets(), names).await?;
    Ok(values.iter().map(|(name, text)| (name.clone(), keys(text))).collect())
}
