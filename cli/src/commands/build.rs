//! `natsctl build`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::deploy::chosen;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::error::Hinted;
use crate::image::registry::{Credentials, Registry, saved};
use crate::image::{self, Binaries, Built, Compression, Image, Order, Reference, Store, megabytes};
use crate::manifest::{Environment, Manifests};
use crate::screen::{Report, note, table};

/// Images that are pushed at the same time; what is sent at the same time, the registry's client limits.
const AT_ONCE: usize = 4;

/// Make container images of services, and push them or write them to a folder.
#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    which: Which,
    /// Push the images that the registry has not got
    #[arg(long)]
    push: bool,
    /// Write the images into this folder, as an OCI layout
    #[arg(long, value_name = "DIR")]
    oci_dir: Option<PathBuf>,
    #[command(flatten)]
    images: ImageOptions,
}

/// How images are made.
#[derive(Debug, Args)]
pub(crate) struct ImageOptions {
    /// How layers are compressed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    compression: Compression,
    /// Take static binaries from this folder, called after their services, without building them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Cargo profile of the binaries
    #[arg(long, default_value = "release", value_name = "NAME", conflicts_with = "binaries")]
    profile: String,
}

/// Where images go.
struct Destination {
    registry: Registry,
    /// Repositories by service.
    repositories: BTreeMap<String, String>,
}

/// What became of one image.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Where it is; as it is found in the folder if it was not pushed.
    image: String,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Bytes that were sent; `None` if it was not pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip)]
    what: String,
}

impl Build {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let manifests = invocation.load()?;
        let names = chosen(&self.which, &manifests)?;
        // Before minutes are spent on compiling.
        let destination = if self.push { Some(destination(invocation, &manifests).await?) } else { None };
        let workspace = invocation.workspace()?;
        let store = self.images.store(invocation)?;
        let built = image::built(&Order {
            manifests: &manifests,
            names: &names,
            workspace: &workspace,
            binaries: &self.images.binaries(),
            compression: self.images.compression,
            store: &store,
        })
        .await?;
        let images: Vec<&Image> = built.values().filter_map(image_of).collect();
        if let Some(folder) = &self.oci_dir {
            image::write_layout(folder, &image::pack_all(images.iter().copied(), &store).await?)?;
        }
        let outcomes: BTreeMap<String, Outcome> = stream::iter(&built)
            .map(async |(name, built)| {
                Ok::<_, anyhow::Error>((name.clone(), outcome(name, built, destination.as_ref(), &store).await?))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let rows = outcomes.iter().map(|(name, outcome)| {
            vec![name.clone(), outcome.image.clone(), outcome.digest.clone(), outcome.what.clone()]
        });
        let text = table(&["service", "image", "digest", ""], rows);
        Ok(Report::new(&outcomes, text))
    }
}

impl ImageOptions {
    pub(crate) fn binaries(&self) -> Binaries {
        match &self.binaries {
            Some(folder) => Binaries::Folder(folder.clone()),
            None => Binaries::Cargo { profile: self.profile.clone() },
        }
    }

    pub(crate) fn store(&self, invocation: &Invocation) -> anyhow::Result<Store> {
        let folder = invocation.states()?.join(&invocation.global.env).join("images");
        Store::open(&folder).with_context(|| format!("failed to make folder `{}`", folder.display()))
    }
}

fn image_of(built: &Built) -> Option<&Image> {
    match built {
        Built::Image(image) => Some(image),
        Built::Existing(_) => None,
    }
}

async fn outcome(
    name: &str,
    built: &Built,
    destination: Option<&Destination>,
    store: &Store,
) -> anyhow::Result<Outcome> {
    match (built, destination) {
        (Built::Existing(reference), None) => Ok(existing(reference, "exists elsewhere")),
        (Built::Existing(reference), Some(destination)) => {
            find(reference, &destination.registry).await?;
            Ok(existing(reference, "exists"))
        }
        (Built::Image(image), Some(destination)) => push(name, image, destination, store).await,
        (Built::Image(image), None) => {
            let packed = image.pack(store).await?;
            Ok(Outcome {
                image: format!("{name}:{}", packed.tag),
                digest: packed.digest().to_string(),
                what: megabytes(packed.size()).to_string(),
                tag: Some(packed.tag),
                sent: None,
            })
        }
    }
}

fn existing(reference: &Reference, what: &str) -> Outcome {
    Outcome {
        image: format!("{}/{}", reference.registry, reference.repository),
        digest: reference.digest.to_string(),
        tag: None,
        sent: None,
        what: what.to_owned(),
    }
}

/// An image that somebody else has made must be there.
async fn find(reference: &Reference, registry: &Registry) -> anyhow::Result<()> {
    let digest = reference.digest.as_str();
    let found = if reference.registry == registry.host() {
        registry.has(&reference.repository, digest).await?
    } else {
        let other = Registry::new(&reference.registry, saved(&reference.registry)?)?;
        other.has(&reference.repository, digest).await?
    };
    if found.is_some() {
        return Ok(());
    }
    Err(Hinted::new(format!("there is no image `{reference}`"), "see `build` in the service's manifest").into())
}

async fn push(name: &str, image: &Image, destination: &Destination, store: &Store) -> anyhow::Result<Outcome> {
    let (registry, repository) = (&destination.registry, &destination.repositories[name]);
    let progress = |progress| tracing::info!(service = name, ?progress, "pushing");
    let pushed = registry.push(repository, image, store, &progress).await?;
    if let Some(why) = &pushed.refused_bom {
        note(&format!("warning: {name}: the registry does not take the list of what the image is made of: {why}"));
    }
    let what = match pushed.existed {
        true => "unchanged".to_owned(),
        false => format!("pushed, {} sent", megabytes(pushed.bytes)),
    };
    Ok(Outcome {
        image: format!("{}/{repository}", registry.host()),
        digest: pushed.digest.to_string(),
        tag: Some(image.tag()),
        sent: Some(pushed.bytes),
        what,
    })
}

/// The registry of the environment; for one on this machine, the one that the variable `NATSCTL_REGISTRY` names.
async fn destination(invocation: &Invocation, manifests: &Manifests) -> anyhow::Result<Destination> {
    let (host, credentials, repositories) = match &manifests.environment {
        Environment::Aws(_) => {
            let aws = invocation.aws().await?;
            let of = |(name, service): (&String, _)| (name.clone(), aws.handover.repository(service));
            let host = aws.registry();
            let credentials = crate::aws::ecr::credentials(&aws, &host)?;
            (host, credentials, manifests.services.iter().map(of).collect())
        }
        Environment::Local(_) => {
            let typed = std::env::var("NATSCTL_REGISTRY").ok().filter(|host| !host.is_empty());
            let host = typed.ok_or_else(|| {
                let message = format!("environment `{}` has no registry to push to", manifests.name);
                Hinted::new(message, "set NATSCTL_REGISTRY to a host, or write images to a folder with `--oci-dir`")
            })?;
            let project = &manifests.project.project;
            let repositories = manifests.services.iter();
            let repositories =
                repositories.map(|(name, service)| (name.clone(), format!("{project}/{}", service.ecs_name())));
            let credentials: Credentials = saved(&host)?;
            (host, credentials, repositories.collect())
        }
    };
    Ok(Destination { registry: Registry::new(&host, credentials)?, repositories })
}
