//! The services' images: built, found in the registry, and pushed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};

use super::ledger::State;
use super::{Aws, ecr};
use crate::error::Hinted;
use crate::image::registry::Registry;
use crate::image::{self, Binaries, BuildOptions, BuiltImage, Compression, Reference, ServiceImage, Store, megabytes};
use crate::model::desired;
use crate::pipeline::options::BinarySource;
use crate::screen::note;

/// Images that are packed or pushed at the same time.
const AT_ONCE: usize = 4;

/// The images of a deployment.
pub(crate) struct Images {
    /// What should be in the registry, by service.
    pub(crate) desired: BTreeMap<String, desired::Image>,
    /// Services whose image is in the registry.
    pub(crate) present: BTreeSet<String>,
    /// Those that were built here.
    built: BTreeMap<String, BuiltImage>,
    store: Store,
}

/// The image of a service, and whether the registry has it.
struct Found {
    name: String,
    image: desired::Image,
    is_present: bool,
    built: Option<BuiltImage>,
}

impl Images {
    /// Names the content of a service's image; `None` if it was built elsewhere.
    pub(crate) fn tag(&self, service: &str) -> Option<String> {
        self.built.get(service).map(BuiltImage::tag)
    }
}

/// Source of the binaries in images: by default cargo builds static ones.
///
/// # Errors
/// `--no-build` asks for the binaries beside natsctl, which are not static.
pub(crate) fn binaries(source: &BinarySource) -> anyhow::Result<Binaries> {
    match source {
        BinarySource::Folder(folder) => Ok(Binaries::Folder(folder.clone())),
        BinarySource::Build => Ok(Binaries::Cargo { profile: "release".to_owned() }),
        BinarySource::LastBuild => {
            let hint = "`--binaries DIR` takes static binaries from a folder";
            Err(Hinted::new("`--no-build` is for environments on this machine", hint).into())
        }
    }
}

/// Builds the images of these services and pushes none. An image that was deployed before is recognised by its tag.
///
/// # Errors
/// A build failed; the registry could not be read.
pub(crate) async fn build(
    aws: &Aws,
    services: &BTreeSet<String>,
    binaries: &Binaries,
    state: &State,
) -> anyhow::Result<Images> {
    let store = Store::open(&aws.cache.join("images")).context("failed to make the folder of images")?;
    let order = BuildOptions {
        manifests: &aws.manifests,
        names: services,
        workspace: &aws.workspace,
        binaries,
        compression: Compression::default(),
        store: &store,
    };
    let registry = registry(aws)?;
    let one = |(name, image): (String, ServiceImage)| find(aws, name, image, &registry, &store, state);
    let found: Vec<Found> =
        futures::stream::iter(image::built(&order).await?).map(one).buffered(AT_ONCE).try_collect().await?;
    let mut images = Images { desired: BTreeMap::new(), present: BTreeSet::new(), built: BTreeMap::new(), store };
    for Found { name, image, is_present, built } in found {
        images.present.extend(is_present.then(|| name.clone()));
        images.built.extend(built.map(|built| (name.clone(), built)));
        images.desired.insert(name, image);
    }
    Ok(images)
}

/// Finds the image of a service in the registry, or packs it.
async fn find(
    aws: &Aws,
    name: String,
    image: ServiceImage,
    registry: &Registry,
    store: &Store,
    state: &State,
) -> anyhow::Result<Found> {
    let built = match image {
        ServiceImage::Existing(reference) => {
            refuse_misfit(aws, &name, &reference, registry).await?;
            return Ok(Found { name, image: reference.into(), is_present: true, built: None });
        }
        ServiceImage::Built(built) => built,
    };
    let own = aws.handover.repository(&aws.manifests.services[&name]);
    let repository = format!("{}/{own}", registry.host());
    let deployed = state.services.get(&name).filter(|deployed| deployed.tag.as_deref() == Some(&*built.tag()));
    let digest = deployed.and_then(|deployed| deployed.image.strip_prefix(&repository)?.strip_prefix('@'));
    let (digest, is_present) = match digest {
        Some(digest) => (digest.to_owned(), true),
        None => match registry.find(&own, &built).await? {
            Some(digest) => (digest.to_string(), true),
            None => (built.pack(store).await?.digest().to_string(), false),
        },
    };
    Ok(Found { name, image: desired::Image { repository, digest }, is_present, built: Some(built) })
}

/// Refuses an image of the environment's own registry that is not there, or that is for other processors than the service's tasks have.
/// `natsctl verify` checks those of other registries, which perhaps only ECS can reach.
async fn refuse_misfit(aws: &Aws, name: &str, image: &Reference, registry: &Registry) -> anyhow::Result<()> {
    let architecture = aws.manifests.services[name].settings.architecture;
    if image.registry != registry.host() {
        return Ok(());
    }
    let found = registry.platforms(&image.repository, image.digest.as_str()).await?;
    let found = found.ok_or_else(|| {
        Hinted::new(format!("there is no image `{image}`"), format!("see `build` in the manifest of `{name}`"))
    })?;
    Ok(image::platform::check(image, name, &found, architecture)?)
}

/// Pushes the images of these services; layers that they share are pushed once.
///
/// # Errors
/// The registry refuses one, or cannot be reached. What was pushed stays, and is not pushed again.
pub(crate) async fn push(aws: &Aws, services: &[&str], images: &Images) -> anyhow::Result<()> {
    let registry = &registry(aws)?;
    let one = |name: String| async move { push_one(aws, &name, images, registry).await };
    let names: Vec<String> = services.iter().map(|name| (*name).to_owned()).collect();
    futures::stream::iter(names).map(one).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

async fn push_one(aws: &Aws, name: &str, images: &Images, registry: &Registry) -> anyhow::Result<()> {
    let Some(built) = images.built.get(name) else { return Ok(()) };
    let repository = aws.handover.repository(&aws.manifests.services[name]);
    let progress = |progress| tracing::info!(service = name, ?progress, "pushing");
    let pushed = registry.push(&repository, built, &images.store, &progress).await?;
    if let Some(why) = &pushed.refused_bom {
        note(&format!("warning: {name}: the registry does not accept the software bill of materials: {why}"));
    }
    note(&format!("image {name}: {} sent", megabytes(pushed.bytes)));
    let wanted = &images.desired[name].digest;
    if pushed.digest.as_str() == wanted {
        return Ok(());
    }
    let message = format!("the registry has the image of `{name}` as {}, not {wanted}", pushed.digest);
    Err(Hinted::new(message, "another run has pushed it meanwhile: run it again").into())
}

/// The registry of the environment.
pub(super) fn registry(aws: &Aws) -> anyhow::Result<Registry> {
    let host = aws.registry();
    Registry::new(&host, ecr::credentials(aws, &host)?)
}
