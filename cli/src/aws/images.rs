//! The services' images: what they would be, whether the registry has them, and how they come there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};

use super::ledger::State;
use super::{Aws, ecr};
use crate::error::Hinted;
use crate::image::registry::Registry;
use crate::image::{self, Binaries, BuildOptions, BuiltImage, Compression, ServiceImage, Store, megabytes};
use crate::model::desired;
use crate::screen::note;

/// Images that are packed or pushed at the same time.
const AT_ONCE: usize = 4;

/// The images of a deployment.
pub(crate) struct Images {
    /// What should be in the registry, by service.
    pub(crate) desired: BTreeMap<String, desired::Image>,
    /// Services whose image is known to be there.
    pub(crate) present: BTreeSet<String>,
    /// Those that were made here.
    made: BTreeMap<String, BuiltImage>,
    store: Store,
}

/// What an image of a service is, and whether the registry has it.
struct Found {
    name: String,
    image: desired::Image,
    is_there: bool,
    made: Option<BuiltImage>,
}

impl Images {
    /// Names the content of a service's image; `None` for one that was made elsewhere.
    pub(crate) fn tag(&self, service: &str) -> Option<String> {
        self.made.get(service).map(BuiltImage::tag)
    }
}

impl Aws {
    /// Builds the images of these services; sends nothing. An image that was deployed before is recognised by its tag.
    ///
    /// # Errors
    /// What does not compile, and what cannot be asked of the registry.
    pub(crate) async fn images(
        &self,
        which: &BTreeSet<String>,
        binaries: &Binaries,
        state: &State,
    ) -> anyhow::Result<Images> {
        let store = Store::open(&self.cache.join("images")).context("failed to make the folder of images")?;
        let order = BuildOptions {
            manifests: &self.manifests,
            names: which,
            workspace: &self.workspace,
            binaries,
            compression: Compression::default(),
            store: &store,
        };
        let registry = self.open_registry()?;
        let one = |(name, built): (String, ServiceImage)| self.found(name, built, &registry, &store, state);
        let found: Vec<Found> =
            futures::stream::iter(image::built(&order).await?).map(one).buffered(AT_ONCE).try_collect().await?;
        let mut images = Images { desired: BTreeMap::new(), present: BTreeSet::new(), made: BTreeMap::new(), store };
        for Found { name, image, is_there, made } in found {
            images.present.extend(is_there.then(|| name.clone()));
            images.made.extend(made.map(|made| (name.clone(), made)));
            images.desired.insert(name, image);
        }
        Ok(images)
    }

    async fn found(
        &self,
        name: String,
        built: ServiceImage,
        registry: &Registry,
        store: &Store,
        state: &State,
    ) -> anyhow::Result<Found> {
        let made = match built {
            // Whether it is there, `natsctl verify` asks: it may be in a registry that only ECS can get into.
            ServiceImage::Existing(reference) => {
                return Ok(Found { name, image: reference.into(), is_there: true, made: None });
            }
            ServiceImage::Built(made) => made,
        };
        let own = self.handover.repository(&self.manifests.services[&name]);
        let repository = format!("{}/{own}", registry.host());
        let known = state.services.get(&name).filter(|known| known.tag.as_deref() == Some(&*made.tag()));
        let known = known.and_then(|known| Some(known.image.strip_prefix(&repository)?.strip_prefix('@')?.to_owned()));
        let (digest, is_there) = match known {
            Some(digest) => (digest, true),
            None => match registry.find(&own, &made).await? {
                Some(digest) => (digest.to_string(), true),
                None => (made.pack(store).await?.digest().to_string(), false),
            },
        };
        Ok(Found { name, image: desired::Image { repository, digest }, is_there, made: Some(made) })
    }

    /// Sends images; what they have in common is sent once.
    ///
    /// # Errors
    /// What the registry refuses, or that it cannot be reached. What was sent is kept and is not sent again.
    pub(crate) async fn push(&self, names: &[&str], images: &Images) -> anyhow::Result<()> {
        let registry = self.open_registry()?;
        let (registry, images) = (&registry, images);
        let one = |name: String| async move {
            let Some(made) = images.made.get(&name) else { return Ok(()) };
            let repository = self.handover.repository(&self.manifests.services[&name]);
            let progress = |progress| tracing::info!(service = name, ?progress, "pushing");
            let pushed = registry.push(&repository, made, &images.store, &progress).await?;
            if let Some(why) = &pushed.refused_bom {
                note(&format!(
                    "warning: {name}: the registry does not take the list of what the image is made of: {why}"
                ));
            }
            note(&format!("image {name}: {} sent", megabytes(pushed.bytes)));
            let wanted = &images.desired[&name].digest;
            if pushed.digest.as_str() == wanted {
                return Ok(());
            }
            let message = format!("the registry has the image of `{name}` as {}, not {wanted}", pushed.digest);
            Err(Hinted::new(message, "somebody has pushed it meanwhile: run it again").into())
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        futures::stream::iter(names).map(one).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    /// Where images go.
    pub(super) fn open_registry(&self) -> anyhow::Result<Registry> {
        let host = self.registry();
        Registry::new(&host, ecr::credentials(self, &host)?)
    }
}
