//! Secrets in Secrets Manager: which exist, and their values.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry};
use futures::{StreamExt as _, TryStreamExt as _};

use super::AT_ONCE;
use super::error::{code, failed};
use crate::error::Hinted;
use crate::handover::{Handover, prefix};

/// There is no such secret, or it has no value.
const NOT_FOUND: &str = "ResourceNotFoundException";
/// What BatchGetSecretValue takes at once.
const SECRETS_PER_CALL: usize = 20;

/// Staging label of the version that is read.
pub(super) const CURRENT: &str = "AWSCURRENT";

/// The environment's secrets, as far as listing them shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    /// ARNs by name.
    pub(super) arns: BTreeMap<String, String>,
    /// Names of those that have a value.
    pub(super) filled: BTreeSet<String>,
}

/// The environment's secrets; natsctl's own identity is among them.
pub(super) async fn of_environment(client: &Client, handover: &Handover) -> anyhow::Result<Secrets> {
    let redis = handover.redis.as_ref().map(|redis| &*redis.auth_secret);
    let names = [&*handover.names.secret, &handover.names.nats_secret, &handover.nats.operator_secret];
    let listed = list(client, &names.into_iter().chain(redis).collect::<Vec<_>>()).await?;
    let filled = listed.iter().filter(|secret| has_value(secret)).filter_map(|secret| secret.name.clone()).collect();
    let arns = listed.into_iter().filter_map(|secret| Some((secret.name?, secret.arn?))).collect();
    Ok(Secrets { arns, filled })
}

/// ARNs of the environment's secrets, by name.
pub(super) async fn arns(client: &Client, handover: &Handover) -> anyhow::Result<BTreeMap<String, String>> {
    Ok(of_environment(client, handover).await?.arns)
}

/// Whether a secret has a value that tasks can read.
pub(super) fn has_value(secret: &SecretListEntry) -> bool {
    let mut stages = secret.secret_versions_to_stages().into_iter().flat_map(|versions| versions.values().flatten());
    stages.any(|stage| stage == CURRENT)
}

/// The secrets that have one of these names, or whose name may be made of one of these templates.
pub(super) async fn list(client: &Client, templates: &[&str]) -> anyhow::Result<Vec<SecretListEntry>> {
    let mut prefixes: Vec<&str> = Vec::new();
    for prefix in templates.iter().map(|template| prefix(template)).collect::<BTreeSet<_>>() {
        if !prefixes.iter().any(|shorter| prefix.starts_with(shorter)) {
            prefixes.push(prefix);
        }
    }
    let prefixes = prefixes.into_iter().map(str::to_owned).collect();
    let filter = Filter::builder().key(FilterNameStringType::Name).set_values(Some(prefixes)).build();
    let mut pages = client.list_secrets().filters(filter).max_results(100).into_paginator().send();
    let mut secrets = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed("list the secrets", error))?;
        secrets.extend(page.secret_list.unwrap_or_default());
    }
    Ok(secrets)
}

/// The values of these secrets by name; those that have none are left out.
pub(super) async fn values(client: &Client, names: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let calls = names.chunks(SECRETS_PER_CALL).map(|names| page(client, names));
    let pages: Vec<Vec<(String, String)>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
    Ok(pages.into_iter().flatten().collect())
}

/// The value of a secret; empty if it is not a text.
pub(super) async fn value(client: &Client, name: &str) -> anyhow::Result<String> {
    let answer = client.get_secret_value().secret_id(name).send().await;
    let answer = answer.map_err(|error| failed(&format!("read the secret `{name}`"), error))?;
    Ok(answer.secret_string.unwrap_or_default())
}

/// Makes a text the current value of a secret.
///
/// # Errors
/// The secret does not exist: Terraform makes it, without a value.
pub(super) async fn put(client: &Client, name: &str, text: String) -> anyhow::Result<()> {
    let put = client.put_secret_value().secret_id(name).secret_string(text).send().await;
    put.map(drop).map_err(|error| {
        let is_missing = code(&error) == Some(NOT_FOUND);
        let error = failed(&format!("write the secret `{name}`"), error);
        let hint = "Terraform makes it: `terraform apply` in the environment's folder";
        if is_missing { Hinted::new(format!("there is no secret `{name}`"), hint).into() } else { error }
    })
}

async fn page(client: &Client, names: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let answer = match client.batch_get_secret_value().set_secret_id_list(Some(names.to_vec())).send().await {
        Ok(answer) => answer,
        // One of them has no value.
        Err(error) if code(&error) == Some(NOT_FOUND) => return one_by_one(client, names).await,
        Err(error) => return Err(failed("read the identities on NATS", error)),
    };
    if let Some(refused) = answer.errors().iter().find(|one| one.error_code() != Some(NOT_FOUND)) {
        let (name, why) = (refused.secret_id().unwrap_or_default(), refused.message().unwrap_or_default());
        let code = refused.error_code().unwrap_or("an error without a code");
        let hint = "the caller lacks the right to read it, or to use its key; docs/iam.md has the policies";
        return Err(Hinted::new(format!("failed to read the secret `{name}`: {code}: {why}"), hint).into());
    }
    let values = answer.secret_values.unwrap_or_default();
    Ok(values.into_iter().filter_map(|value| Some((value.name?, value.secret_string?))).collect())
}

async fn one_by_one(client: &Client, names: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let calls = names.iter().map(|name| async move {
        match client.get_secret_value().secret_id(name).send().await {
            Ok(answer) => Ok(answer.secret_string.map(|text| (name.clone(), text))),
            Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(failed(&format!("read the secret `{name}`"), error)),
        }
    });
    let values: Vec<Option<(String, String)>> = futures::stream::iter(calls).buffered(AT_ONCE).try_collect().await?;
    Ok(values.into_iter().flatten().collect())
}
