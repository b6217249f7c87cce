//! Repositories, and images that exist already.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;

use super::{APPLY, Finding, Kind, all_there};
use crate::aws::error::failed;
use crate::aws::{AT_ONCE, Aws};
use crate::image::Reference;
use crate::image::registry::Registry;

pub(super) async fn there(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let (built, taken) = sources(aws);
    let host = aws.registry();
    let mut findings = match built.first() {
        None => Vec::new(),
        Some(_) if host == aws.handover.registry => repositories(aws, &built).await?,
        Some(repository) => vec![answers(aws, &host, repository).await],
    };
    findings.extend(existing(aws, taken).await);
    Ok(findings)
}

/// Repositories of what is built here, and images that are taken as they are, with their services.
fn sources(aws: &Aws) -> (BTreeSet<String>, BTreeMap<String, BTreeSet<&str>>) {
    let (mut built, mut taken) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<&str>>::new());
    for (name, service) in &aws.manifests.services {
        match service.build.as_ref().and_then(|build| build.image.clone()) {
            Some(image) => drop(taken.entry(image).or_default().insert(name)),
            None => drop(built.insert(aws.handover.repository(service))),
        }
    }
    (built, taken)
}

/// Repositories of ECR for what is built here.
async fn repositories(aws: &Aws, wanted: &BTreeSet<String>) -> anyhow::Result<Vec<Finding>> {
    let mut pages = aws.clients.ecr().describe_repositories().max_results(1000).into_paginator().items().send();
    let mut there = BTreeSet::new();
    while let Some(repository) = pages.next().await {
        let repository = repository.map_err(|error| failed("list the repositories", error))?;
        there.extend(repository.repository_name);
    }
    Ok(all_there(Kind { one: "repository", many: "repositories" }, wanted, &there, APPLY))
}

/// Another registry makes repositories when they are pushed to; it must answer.
async fn answers(aws: &Aws, host: &str, repository: &str) -> Finding {
    let what = format!("registry `{host}`");
    let asked = async { Registry::new(host, aws.credentials(host)?)?.has(repository, "none").await };
    match asked.await {
        Ok(_) => Finding::ok(what, "answers"),
        Err(error) => Finding::unknown(what, &error),
    }
}

/// Whether the images are there that manifests take as they are.
async fn existing(aws: &Aws, taken: BTreeMap<String, BTreeSet<&str>>) -> Vec<Finding> {
    let count = taken.len();
    let named = |(image, services): (String, BTreeSet<&str>)| (image, Vec::from_iter(services).join(", "));
    let taken: Vec<(String, String)> = taken.into_iter().map(named).collect();
    let one = |(image, services): (String, String)| async move {
        let what = format!("image `{image}`");
        match has(aws, &image).await {
            Ok(true) => None,
            Ok(false) => {
                Some(Finding::missing(what, "not there", format!("see `build` in the manifest of {services}")))
            }
            Err(error) => Some(Finding::unknown(what, &error)),
        }
    };
    let findings: Vec<Option<Finding>> = futures::stream::iter(taken).map(one).buffered(AT_ONCE).collect().await;
    let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
    if count > findings.len() {
        let found = format!("{} of {count} are there", count - findings.len());
        findings.insert(0, Finding::ok("images that exist already", found));
    }
    findings
}

async fn has(aws: &Aws, image: &str) -> anyhow::Result<bool> {
    let reference: Reference = image.parse()?;
    let registry = Registry::new(&reference.registry, aws.credentials(&reference.registry)?)?;
    Ok(registry.has(&reference.repository, reference.digest.as_str()).await?.is_some())
}
