//! Builds the images of services, and pushes them to a registry or writes them into a folder.

use std::collections::BTreeMap;
use std::path::Path;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::registry::{Registry, saved};
use super::{
    BuildOptions, BuiltImage, Reference, ServiceImage, Store, built, megabytes, pack_all, platform, write_layout,
};
use crate::error::Hinted;
use crate::model::desired::Architecture;

/// Images that are pushed at the same time; the registry's client limits its own requests.
const PARALLEL_PUSHES: usize = 4;

/// Where images are pushed to.
pub(crate) struct Destination {
    pub(crate) registry: Registry,
    /// Repositories by service.
    pub(crate) repositories: BTreeMap<String, String>,
}

/// An image that was built or found.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    /// The repository with its registry; without a push, the name and tag of the image in the folder.
    pub(crate) image: String,
    pub(crate) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Bytes that were sent; `None` if it was not pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    /// What was done with it, for people.
    #[serde(skip)]
    pub(crate) remark: String,
    #[serde(skip)]
    pub(crate) warning: Option<String>,
}

/// Builds the images of `order` and pushes them to `destination`; writes them into the folder `layout` too, as an OCI layout.
///
/// # Errors
/// What cargo, the registry or the file system refuses; an image that should exist and does not.
pub(crate) async fn publish(
    order: &BuildOptions<'_>,
    destination: Option<&Destination>,
    layout: Option<&Path>,
) -> anyhow::Result<BTreeMap<String, Published>> {
    let built = built(order).await?;
    if let Some(folder) = layout {
        let images = built.values().filter_map(|built| match built {
            ServiceImage::Built(image) => Some(image),
            ServiceImage::Existing(_) => None,
        });
        write_layout(folder, &pack_all(images, order.store).await?)?;
    }
    let published = stream::iter(&built).map(async |(name, built)| {
        let architecture = order.manifests.services.get(name).map(|service| service.settings.architecture);
        let service = Service { name, architecture: architecture.unwrap_or_default() };
        Ok::<_, anyhow::Error>((name.clone(), publish_one(service, built, destination, order.store).await?))
    });
    published.buffer_unordered(PARALLEL_PUSHES).try_collect().await
}

/// A service whose image is published.
#[derive(Clone, Copy)]
struct Service<'a> {
    name: &'a str,
    architecture: Architecture,
}

async fn publish_one(
    service: Service<'_>,
    built: &ServiceImage,
    destination: Option<&Destination>,
    store: &Store,
) -> anyhow::Result<Published> {
    match (built, destination) {
        (ServiceImage::Existing(reference), None) => Ok(existing(reference, "exists elsewhere")),
        (ServiceImage::Existing(reference), Some(destination)) => {
            find(reference, service, &destination.registry).await?;
            Ok(existing(reference, "exists"))
        }
        (ServiceImage::Built(image), Some(destination)) => push(service.name, image, destination, store).await,
        (ServiceImage::Built(image), None) => pack(service.name, image, store).await,
    }
}

fn existing(reference: &Reference, remark: &str) -> Published {
    Published {
        image: format!("{}/{}", reference.registry, reference.repository),
        digest: reference.digest.to_string(),
        tag: None,
        sent: None,
        remark: remark.to_owned(),
        warning: None,
    }
}

/// An image that was built elsewhere must exist, and be for the processors of the service's tasks.
async fn find(reference: &Reference, service: Service<'_>, registry: &Registry) -> anyhow::Result<()> {
    let digest = reference.digest.as_str();
    let found = if reference.registry == registry.host() {
        registry.platforms(&reference.repository, digest).await?
    } else {
        let other = Registry::new(&reference.registry, saved(&reference.registry)?)?;
        other.platforms(&reference.repository, digest).await?
    };
    let hint = "see `build` in the service's manifest";
    let found = found.ok_or_else(|| Hinted::new(format!("there is no image `{reference}`"), hint))?;
    Ok(platform::check(reference, service.name, &found, service.architecture)?)
}

async fn pack(service: &str, image: &BuiltImage, store: &Store) -> anyhow::Result<Published> {
    let packed = image.pack(store).await?;
    Ok(Published {
        image: format!("{service}:{}", packed.tag),
        digest: packed.digest().to_string(),
        remark: megabytes(packed.size()).to_string(),
        tag: Some(packed.tag),
        sent: None,
        warning: None,
    })
}

async fn push(
    service: &str,
    image: &BuiltImage,
    destination: &Destination,
    store: &Store,
) -> anyhow::Result<Published> {
    let (registry, repository) = (&destination.registry, &destination.repositories[service]);
    let progress = |progress| tracing::info!(service, ?progress, "pushing");
    let pushed = registry.push(repository, image, store, &progress).await?;
    Ok(Published {
        image: format!("{}/{repository}", registry.host()),
        digest: pushed.digest.to_string(),
        tag: Some(image.tag()),
        sent: Some(pushed.bytes),
        remark: match pushed.existed {
            true => "unchanged".to_owned(),
            false => format!("pushed, {} sent", megabytes(pushed.bytes)),
        },
        warning: pushed.refused_bom.map(|reason| format!("the registry refuses the bill of materials: {reason}")),
    })
}
