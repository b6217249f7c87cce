//! Images of services that cargo does not build: `docker buildx` builds them from a Dockerfile, into files, and from
//! there they go the same way as all others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::digest::Digest;
use super::oci::{Blob, Contents, Descriptor, INDEX, Index, Manifest};
use super::platform::Platforms;
use crate::error::{Hinted, at};
use crate::model::desired::Architecture;

/// One image to be built.
#[derive(Clone, Debug)]
pub(super) struct DockerBuild<'a> {
    /// What builds it.
    pub(super) docker: &'a Path,
    pub(super) service: &'a str,
    pub(super) dockerfile: PathBuf,
    /// What the Dockerfile sees; its own folder if `None`.
    pub(super) context: Option<PathBuf>,
    pub(super) architecture: Architecture,
    /// Where the result is cached until the next build.
    pub(super) folder: PathBuf,
}

impl DockerBuild<'_> {
    /// Builds it: the configuration and the layers.
    pub(super) async fn run(&self) -> anyhow::Result<(Bytes, Vec<Blob>)> {
        let here = Path::new(".");
        if !self.dockerfile.is_file() {
            let message =
                format!("there is no `{}`, which service `{}` is built from", self.dockerfile.display(), self.service);
            return Err(Hinted::new(message, "see `build` in its manifest").into());
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("failed to make folder `{}`", self.folder.display()))?;
        let archive = self.folder.join("image.tar");
        let context = self.context.as_deref().or(self.dockerfile.parent()).unwrap_or(here);
        let mut docker = Command::new(self.docker);
        docker.args(["buildx", "build", "--quiet", "--provenance=false", "--platform"]);
        docker.arg(format!("linux/{}", self.architecture.oci()));
        docker.arg("--output").arg(format!("type=oci,rewrite-timestamp=true,dest={}", archive.display()));
        docker.arg("--file").arg(&self.dockerfile).arg(context);
        // As far as the Dockerfile allows it, the same files make the same image.
        docker.env("SOURCE_DATE_EPOCH", "0");
        self.build(docker).await?;
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || read(&archive, &folder)).await?;
        let (config, layers) =
            read.with_context(|| format!("failed to read what `docker buildx` made of `{}`", self.service))?;
        let platforms = Platforms::of_config(&config);
        if !platforms.fit(self.architecture) {
            let message = format!(
                "the image that `docker buildx` made of `{}` {}",
                self.dockerfile.display(),
                platforms.misfit(self.architecture)
            );
            let hint = "a `FROM --platform=…` in the Dockerfile fixes what it is for: leave it out, or set `architecture` in the manifest";
            return Err(Hinted::new(message, hint).into());
        }
        Ok((config, layers))
    }

    async fn build(&self, mut docker: Command) -> anyhow::Result<()> {
        tracing::info!(service = self.service, "building with docker buildx");
        let output = docker.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| {
            let message = format!("service `{}` is built from a Dockerfile, and `docker` cannot be run", self.service);
            Hinted::new(message, INSTALL).because(error)
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let hint = if said.contains("buildx") && said.contains("unknown") || said.contains("is not a docker command") {
            INSTALL
        } else {
            "the same by hand: `docker buildx build` with its Dockerfile"
        };
        let message = format!("`docker buildx` failed to build `{}`:\n{}", self.service, said.trim_end());
        Err(Hinted::new(message, hint).into())
    }
}

const INSTALL: &str = "install Docker with the plugin buildx (https://docs.docker.com/engine/install), or name an image that \
                       exists: `build: { image: repository@sha256:… }`";

/// The one image of an archive of an OCI layout; its blobs are unpacked into the folder.
fn read(archive: &Path, folder: &Path) -> anyhow::Result<(Bytes, Vec<Blob>)> {
    let unpacked = folder.join("layout");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).map_err(at("remove", &unpacked))?;
    }
    let opened = File::open(archive).map_err(at("open", archive))?;
    tar::Archive::new(opened).unpack(&unpacked).map_err(at("unpack", archive))?;
    fs::remove_file(archive).map_err(at("remove", archive))?;
    let file = unpacked.join("index.json");
    let index = fs::read(&file).map_err(at("read", &file))?;
    let index: Index =
        serde_json::from_slice(&index).with_context(|| format!("`{}` is no index of images", file.display()))?;
    let mut chosen = only(&index)?.clone();
    if chosen.media_type == INDEX {
        chosen = only(&parsed::<Index>(&unpacked, &chosen)?)?.clone();
    }
    let manifest: Manifest = parsed(&unpacked, &chosen)?;
    let config = contents(&unpacked, &manifest.config)?;
    let layer = |descriptor: &Descriptor| {
        let file = path(&unpacked, descriptor);
        let (digest, size) = File::open(&file).and_then(Digest::of_reader).map_err(at("read", &file))?;
        if (&digest, size) != (&descriptor.digest, descriptor.size) {
            bail!("layer `{}` is damaged", descriptor.digest);
        }
        Ok(Blob { descriptor: descriptor.clone(), contents: Contents::File(file) })
    };
    Ok((config, manifest.layers.iter().map(layer).collect::<anyhow::Result<_>>()?))
}

fn only(index: &Index) -> anyhow::Result<&Descriptor> {
    match index.manifests.as_slice() {
        [one] => Ok(one),
        others => bail!("it made {} images instead of one", others.len()),
    }
}

fn parsed<T: DeserializeOwned>(layout: &Path, descriptor: &Descriptor) -> anyhow::Result<T> {
    serde_json::from_slice(&contents(layout, descriptor)?)
        .with_context(|| format!("`{}` is not what its media type says", descriptor.digest))
}

fn contents(layout: &Path, descriptor: &Descriptor) -> anyhow::Result<Bytes> {
    let file = path(layout, descriptor);
    let bytes = fs::read(&file).map_err(at("read", &file))?;
    if Digest::of(&bytes) != descriptor.digest {
        bail!("`{}` is damaged", descriptor.digest);
    }
    Ok(bytes.into())
}

fn path(layout: &Path, descriptor: &Descriptor) -> PathBuf {
    layout.join("blobs/sha256").join(descriptor.digest.hex())
}
