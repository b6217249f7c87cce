//! Secrets: whether they exist, have a value, and hold complete identities on NATS.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_secretsmanager::types::SecretListEntry;
use serde_json::Value;

use super::{APPLY, Finding};
use crate::aws::desired::IDENTITY;
use crate::aws::secrets::CURRENT;
use crate::aws::{self, Aws};
use crate::manifest::ServiceManifest;
use crate::model::desired::Role;
use crate::model::secret::SecretReference;

/// The secrets that exist.
pub(super) struct Listed {
    pub(super) by_name: BTreeMap<String, Secret>,
}

/// A secret that exists.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) arn: String,
    pub(super) has_value: bool,
    pub(super) versions: Versions,
}

/// The versions of a secret that have staging labels: those by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(BTreeMap<String, BTreeSet<String>>);

impl Versions {
    /// From what Secrets Manager says of a secret.
    pub(super) fn of(said: Option<&HashMap<String, Vec<String>>>) -> Self {
        let version = |(id, stages): (&String, &Vec<String>)| (id.clone(), stages.iter().cloned().collect());
        Self(said.into_iter().flatten().map(version).collect())
    }

    /// What is missing of the version that has this stage and this id; without both, of the current one.
    pub(super) fn lacking(&self, stage: Option<&str>, version: Option<&str>) -> Option<String> {
        let has = |stage: &str| self.0.values().any(|stages| stages.contains(stage));
        match (stage, version) {
            (None, None) => (!has(CURRENT)).then(|| "has no value".to_owned()),
            (Some(stage), None) => (!has(stage)).then(|| format!("has no version with the stage `{stage}`")),
            (stage, Some(version)) => match (self.0.get(version), stage) {
                (None, _) => Some(format!("has no version `{version}` with a stage")),
                (Some(stages), Some(stage)) if !stages.contains(stage) => {
                    Some(format!("version `{version}` does not have the stage `{stage}`"))
                }
                _ => None,
            },
        }
    }
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
        let redis = aws.handover.redis.iter().map(|redis| (redis.auth_secret.clone(), Use::Variable));
        self.wanted_by(aws, aws.manifests.services.values()).into_iter().chain(redis).collect()
    }

    /// Names of the secrets that these services of it need, and natsctl.
    pub(super) fn wanted_by<'a>(
        &self,
        aws: &Aws,
        services: impl Iterator<Item = &'a ServiceManifest>,
    ) -> BTreeMap<String, Use> {
        let handover = &aws.handover;
        let mut wanted = BTreeMap::new();
        let mut shares_caches = false;
        for service in services {
            shares_caches |= !service.caches.is_empty();
            let named = service.all_secrets().filter_map(SecretReference::own_name);
            wanted.extend(named.map(|secret| (handover.secret(secret), Use::Variable)));
            if service.role != Role::Standalone {
                wanted.insert(handover.nats_secret(&service.name), Use::Identity);
            }
        }
        wanted.insert(handover.nats.operator_secret.clone(), Use::Own);
        let redis = handover.redis.iter().filter(|_| shares_caches);
        wanted.extend(redis.map(|redis| (redis.auth_secret.clone(), Use::Variable)));
        wanted
    }
}

pub(super) async fn list(aws: &Aws) -> anyhow::Result<Listed> {
    let handover = &aws.handover;
    let names = [&handover.names.secret, &handover.names.nats_secret, &handover.nats.operator_secret];
    let redis = handover.redis.as_ref().map(|redis| &redis.auth_secret);
    let templates: Vec<&str> = names.into_iter().chain(redis).map(String::as_str).collect();
    let one = |secret: SecretListEntry| {
        let has_value = aws::secrets::has_value(&secret);
        let versions = Versions::of(secret.secret_versions_to_stages());
        (secret.name.unwrap_or_default(), Secret { arn: secret.arn.unwrap_or_default(), has_value, versions })
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
