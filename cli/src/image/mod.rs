//! Container images without a container engine: a static binary, certificates and a user that is not root, packed so
//! that the same contents have the same digest, and pushed to any registry. Nothing in here knows AWS.

mod cargo;
mod digest;
mod docker;
mod elf;
mod layer;
mod layout;
mod oci;
pub(crate) mod platform;
pub(crate) mod publish;
mod reference;
pub(crate) mod registry;
mod sbom;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use self::cargo::{Cargo, Metadata};
pub(crate) use self::digest::Digest;
pub(crate) use self::layer::Compression;
use self::layer::{BINARY, CERTIFICATES, LayerSource};
pub(crate) use self::layout::write as write_layout;
use self::oci::{
    Blob, CONFIG, CYCLONE_DX, Config, Descriptor, EMPTY, ExecutionParameters, MANIFEST, Manifest, RootFs, SOURCE, TITLE,
};
pub(crate) use self::reference::Reference;
use self::sbom::{Bom, Checksums};
pub(crate) use self::store::Store;
use crate::manifest::{ImageSource, Manifests, ServiceManifest};
use crate::model::desired::Architecture;
use crate::model::task::user_and_group;

/// Hexadecimal digits of a tag.
const TAG_DIGITS: usize = 16;

/// Which images to build, and of what.
#[derive(Clone, Debug)]
pub(crate) struct BuildOptions<'a> {
    pub(crate) manifests: &'a Manifests,
    /// The services.
    pub(crate) names: &'a BTreeSet<String>,
    /// The folder that holds the manifests, and beside them the sources.
    pub(crate) workspace: &'a Path,
    pub(crate) binaries: &'a Binaries,
    pub(crate) compression: Compression,
    pub(crate) store: &'a Store,
}

/// Where the services' binaries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binaries {
    /// Cargo builds them, with this profile.
    Cargo { profile: String },
    /// They are in this folder, called after their services.
    Folder(PathBuf),
}

/// What there is for a service.
#[derive(Clone, Debug)]
pub(crate) enum ServiceImage {
    /// An image that was made here.
    Built(BuiltImage),
    /// One that exists already, built elsewhere.
    Existing(Reference),
}

/// An image that was made here. Its tag is known without compressing anything.
#[derive(Clone, Debug)]
pub(crate) struct BuiltImage {
    pub(crate) service: String,
    config: Bytes,
    layers: Vec<Layer>,
    compression: Compression,
    bom: Option<Arc<Bom>>,
}

#[derive(Clone, Debug)]
enum Layer {
    /// To be packed.
    Source { source: LayerSource, diff_id: Digest },
    /// Packed by Docker.
    Packed(Blob),
}

/// An image with everything that a registry is given.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) service: String,
    pub(crate) tag: String,
    manifest: Blob,
    /// Its configuration first, then its layers.
    blobs: Vec<Blob>,
    /// What it is made of, if that is known.
    bom: Option<Referrer>,
}

/// Something attached to an image: a manifest whose subject is the image's.
#[derive(Clone, Debug)]
struct Referrer {
    manifest: Blob,
    blobs: [Blob; 2],
}

impl BuiltImage {
    /// Names the content: an image that has not changed is found by it.
    pub(crate) fn tag(&self) -> String {
        self.config_digest().hex()[..TAG_DIGITS].to_owned()
    }

    fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// Compresses what has not been compressed before.
    ///
    /// # Errors
    /// A binary that cannot be read, or a folder that cannot be written.
    pub(crate) async fn pack(&self, store: &Store) -> anyhow::Result<Packed> {
        let (image, store) = (self.clone(), store.clone());
        let packed = tokio::task::spawn_blocking(move || image.pack_now(&store)).await?;
        packed.with_context(|| format!("failed to pack the image of `{}`", self.service))
    }

    fn pack_now(&self, store: &Store) -> std::io::Result<Packed> {
        let mut blobs = vec![Blob::of(CONFIG, self.config.clone())];
        for layer in &self.layers {
            blobs.push(match layer {
                Layer::Source { source, diff_id } => store.packed(source, diff_id, self.compression)?,
                Layer::Packed(blob) => blob.clone(),
            });
        }
        let descriptors = |blobs: &[Blob]| blobs.iter().map(|blob| blob.descriptor.clone()).collect();
        let manifest = Manifest::new(blobs[0].descriptor.clone(), descriptors(&blobs[1..]));
        let manifest = Blob::of(MANIFEST, oci::json(&manifest));
        let bom = self.bom.as_ref().map(|bom| Referrer::new(bom, &manifest.descriptor));
        Ok(Packed { service: self.service.clone(), tag: self.tag(), manifest, blobs, bom })
    }
}

impl Packed {
    /// Of the manifest.
    pub(crate) fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// Bytes of all that belongs to the image.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.descriptor.size).sum()
    }

    fn config_digest(&self) -> &Digest {
        self.blobs[0].digest()
    }
}

impl Referrer {
    fn new(bom: &Bom, image: &Descriptor) -> Self {
        let document = Blob::of(CYCLONE_DX, bom.document(&image.digest));
        let empty = Blob::of(EMPTY, "{}");
        let mut manifest = Manifest::new(empty.descriptor.clone(), vec![document.descriptor.clone()]);
        manifest.artifact_type = Some(CYCLONE_DX.to_owned());
        manifest.subject = Some(image.clone());
        Self { manifest: Blob::of(MANIFEST, oci::json(&manifest)), blobs: [empty, document] }
    }

    /// As an index names it.
    fn descriptor(&self) -> Descriptor {
        Descriptor { artifact_type: Some(CYCLONE_DX.to_owned()), ..self.manifest.descriptor.clone() }
    }
}

/// Builds what is to be built, and says which image each service has. Compresses nothing.
///
/// # Errors
/// What does not compile, cannot be read, or could not run in an image.
pub(crate) async fn built(order: &BuildOptions<'_>) -> anyhow::Result<BTreeMap<String, ServiceImage>> {
    let mut built = BTreeMap::new();
    let mut by_cargo: BTreeMap<Architecture, Vec<&str>> = BTreeMap::new();
    for name in order.names {
        let Some(service) = order.manifests.services.get(name) else { continue };
        match &service.build {
            None => by_cargo.entry(service.settings.architecture).or_default().push(name),
            Some(build) => {
                built.insert(name.clone(), from_elsewhere(order, service, build).await?);
            }
        }
    }
    for (architecture, names) in by_cargo {
        built.extend(from_cargo(order, architecture, &names).await?);
    }
    Ok(built)
}

/// The image of a package of the workspace that is no service; the order's names and manifests do not matter.
///
/// # Errors
/// As for services.
pub(crate) async fn of_package(
    order: &BuildOptions<'_>,
    architecture: Architecture,
    package: &str,
) -> anyhow::Result<BuiltImage> {
    let built = from_cargo(order, architecture, &[package]).await?;
    let image = built.into_iter().find_map(|(_, built)| match built {
        ServiceImage::Built(image) => Some(image),
        ServiceImage::Existing(_) => None,
    });
    image.with_context(|| format!("`{package}` has no image"))
}

/// An image that cargo has no part in.
async fn from_elsewhere(
    order: &BuildOptions<'_>,
    service: &ServiceManifest,
    build: &ImageSource,
) -> anyhow::Result<ServiceImage> {
    if let Some(image) = &build.image {
        return Ok(ServiceImage::Existing(image.parse()?));
    }
    let Some(dockerfile) = &build.dockerfile else {
        anyhow::bail!("the manifest of `{}` says `build` and not how", service.name);
    };
    let docker_build = docker::DockerBuild {
        docker: Path::new("docker"),
        service: &service.name,
        dockerfile: order.workspace.join(dockerfile),
        context: build.context.as_ref().map(|context| order.workspace.join(context)),
        architecture: service.settings.architecture,
        folder: order.store.folder(&format!("docker-{}", service.name)),
    };
    let (config, layers) = docker_build.run().await?;
    let layers = layers.into_iter().map(Layer::Packed).collect();
    let (service, compression) = (service.name.to_string(), order.compression);
    Ok(ServiceImage::Built(BuiltImage { service, config, layers, compression, bom: None }))
}

async fn from_cargo(
    order: &BuildOptions<'_>,
    architecture: Architecture,
    names: &[&str],
) -> anyhow::Result<Vec<(String, ServiceImage)>> {
    let target_dir = target_dir(order.workspace);
    let profile = match order.binaries {
        Binaries::Cargo { profile } => profile,
        Binaries::Folder(_) => "release",
    };
    let cargo = Cargo { workspace: order.workspace, target_dir: &target_dir, profile, architecture };
    let folder = match order.binaries {
        Binaries::Cargo { .. } => cargo.build(names).await?,
        Binaries::Folder(folder) => folder.clone(),
    };
    let is_workspace = order.workspace.join("Cargo.toml").is_file();
    let metadata = if is_workspace { cargo.metadata().await? } else { Metadata::default() };
    let checksums = Checksums::read(order.workspace);
    let base = layer(order.store, LayerSource::Base).await?;
    let image = async |name: &str| {
        let binary = folder.join(name);
        elf::check(&binary, architecture)?;
        let app = layer(order.store, LayerSource::Binary(binary)).await?;
        let repository = metadata.package(name).and_then(|package| package.repository.clone());
        let config = config(name, repository, architecture, [&base, &app]);
        let bom = Bom::new(name, &metadata, &checksums).map(Arc::new);
        let (layers, compression) = (vec![base.clone(), app], order.compression);
        Ok((
            name.to_owned(),
            ServiceImage::Built(BuiltImage { service: name.to_owned(), config, layers, compression, bom }),
        ))
    };
    stream::iter(names).map(|name| image(name)).buffered(parallelism()).try_collect().await
}

async fn layer(store: &Store, source: LayerSource) -> anyhow::Result<Layer> {
    let (store, read) = (store.clone(), source.clone());
    let what = match &source {
        LayerSource::Base => "the layer that all images have".to_owned(),
        LayerSource::Binary(path) => format!("`{}`", path.display()),
    };
    let diff_id = tokio::task::spawn_blocking(move || store.diff_id(&read)).await?;
    let diff_id = diff_id.with_context(|| format!("failed to read {what}"))?;
    Ok(Layer::Source { source, diff_id })
}

fn config(name: &str, repository: Option<String>, architecture: Architecture, layers: [&Layer; 2]) -> Bytes {
    let diff_id = |layer: &Layer| match layer {
        Layer::Source { diff_id, .. } => diff_id.clone(),
        Layer::Packed(blob) => blob.digest().clone(),
    };
    let labels = [(TITLE, Some(name.to_owned())), (SOURCE, repository)];
    let labels = labels.into_iter().filter_map(|(label, value)| Some((label.to_owned(), value?)));
    oci::json(&Config {
        architecture: architecture.oci(),
        config: ExecutionParameters {
            entrypoint: vec![format!("/{BINARY}")],
            env: vec!["PATH=/".to_owned(), format!("SSL_CERT_FILE=/{CERTIFICATES}")],
            labels: labels.collect(),
            user: user_and_group(),
            working_dir: "/".to_owned(),
        },
        os: "linux",
        rootfs: RootFs { diff_ids: layers.map(diff_id).to_vec(), kind: "layers" },
    })
}

/// Packs several images at the same time.
///
/// # Errors
/// As for one.
pub(crate) async fn pack_all(
    images: impl IntoIterator<Item = &BuiltImage>,
    store: &Store,
) -> anyhow::Result<Vec<Packed>> {
    stream::iter(images).map(|image| image.pack(store)).buffered(parallelism()).try_collect().await
}

/// Beside the ordinary build.
fn target_dir(workspace: &Path) -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    workspace.join(set.map_or_else(|| PathBuf::from("target"), PathBuf::from)).join("images")
}

fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `1.5 MB`, for people.
pub(crate) fn megabytes(bytes: u64) -> impl Display {
    // Good enough for what is read and not computed with.
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}
