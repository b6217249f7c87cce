//! Repositories of images that are built here, and images that manifests name.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;

use super::{APPLY, Finding, Kind, all_exist};
use crate::aws::error::failed;
use crate::aws::{AT_ONCE, Aws, ecr};
use crate::image::Reference;
use crate::image::platform::{self, Platforms};
use crate::image::registry::Registry;
use crate::model::desired::Architecture;

pub(super) async fn check(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let (built, named) = sources(aws);
    let host = aws.registry();
    let mut findings = match built.first() {
        None => Vec::new(),
        Some(_) if host == aws.handover.registry => repositories(aws, &built).await?,
        Some(repository) => vec![answers(aws, &host, repository).await],
    };
    findings.extend(existing(aws, named).await);
    Ok(findings)
}

/// An image that manifests name, and what it must be for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    image: String,
    architecture: Architecture,
}

/// Repositories of images that are built here; and images that manifests name, with their services.
fn sources(aws: &Aws) -> (BTreeSet<String>, BTreeMap<Named, BTreeSet<&str>>) {
    let (mut built, mut named) = (BTreeSet::new(), BTreeMap::<Named, BTreeSet<&str>>::new());
    for (name, service) in &aws.manifests.services {
        match service.build.as_ref().and_then(|build| build.image.clone()) {
            Some(image) => {
                let architecture = service.settings.architecture;
                named.entry(Named { image, architecture }).or_default().insert(name);
            }
            None => drop(built.insert(aws.handover.repository(service))),
        }
    }
    (built, named)
}

/// Whether ECR has these repositories.
async fn repositories(aws: &Aws, wanted: &BTreeSet<String>) -> anyhow::Result<Vec<Finding>> {
    let mut pages = aws.clients.ecr().describe_repositories().max_results(1000).into_paginator().items().send();
    let mut existing = BTreeSet::new();
    while let Some(repository) = pages.next().await {
        let repository = repository.map_err(|error| failed("list the repositories", error))?;
        existing.extend(repository.repository_name);
    }
    Ok(all_exist(Kind { one: "repository", many: "repositories" }, wanted, &existing, APPLY))
}

/// Whether a registry other than ECR answers: it makes repositories when images are pushed.
async fn answers(aws: &Aws, host: &str, repository: &str) -> Finding {
    let what = format!("registry `{host}`");
    let answer = async { Registry::new(host, ecr::credentials(aws, host)?)?.has(repository, "none").await };
    match answer.await {
        Ok(_) => Finding::ok(what, "answers"),
        Err(error) => Finding::unknown(what, &error),
    }
}

/// Whether the images exist that manifests name, and are for the processors that their tasks have.
async fn existing(aws: &Aws, named: BTreeMap<Named, BTreeSet<&str>>) -> Vec<Finding> {
    let count = named.len();
    let joined = |(named, services): (Named, BTreeSet<&str>)| (named, Vec::from_iter(services).join(", "));
    let named: Vec<(Named, String)> = named.into_iter().map(joined).collect();
    let one = |(Named { image, architecture }, services): (Named, String)| async move {
        let what = format!("image `{image}`");
        match platforms(aws, &image).await {
            Ok(Some(found)) if found.fit(architecture) => None,
            Ok(Some(found)) => {
                let hint = format!("{} (of {services})", platform::HINT);
                Some(Finding::missing(what, found.misfit(architecture), hint))
            }
            Ok(None) => Some(Finding::missing(what, "not there", format!("see `build` in the manifest of {services}"))),
            Err(error) => Some(Finding::unknown(what, &error)),
        }
    };
    let findings: Vec<Option<Finding>> = futures::stream::iter(named).map(one).buffered(AT_ONCE).collect().await;
    let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
    if count > findings.len() {
        let found = format!("{} of {count} are there", count - findings.len());
        findings.insert(0, Finding::ok("images that exist already", found));
    }
    findings
}

async fn platforms(aws: &Aws, image: &str) -> anyhow::Result<Option<Platforms>> {
    let reference: Reference = image.parse()?;
    let registry = Registry::new(&reference.registry, ecr::credentials(aws, &reference.registry)?)?;
    registry.platforms(&reference.repository, reference.digest.as_str()).await
}
