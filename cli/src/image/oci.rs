//! What the OCI image specification calls things: media types, descriptors, manifests, indexes and configurations.
//! Everything is written in one order, so that the same contents have the same digest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::digest::Digest;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const CYCLONE_DX: &str = "application/vnd.cyclonedx+json";

/// What Docker calls the same things; read, never written.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Annotation of an index: the name under which an image is found in it.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const TITLE: &str = "org.opencontainers.image.title";
pub(crate) const SOURCE: &str = "org.opencontainers.image.source";

/// Names a blob or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }

    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// What an image, or something attached to one, consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// What this is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
}

impl Manifest {
    /// Of an image.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), artifact_type: None, config, layers, subject: None }
    }
}

/// Several manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX.to_owned(), manifests }
    }
}

/// How an image is run. Neither time nor revision: with those, every commit would make another image of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Config {
    pub(crate) architecture: &'static str,
    pub(crate) config: ExecutionParameters,
    pub(crate) os: &'static str,
    pub(crate) rootfs: RootFs,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ExecutionParameters {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
}

/// The layers before they were compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
}

/// Something that a registry or a layout keeps under its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) descriptor: Descriptor,
    pub(crate) contents: Contents,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    Bytes(Bytes),
    File(PathBuf),
}

impl Blob {
    pub(crate) fn of(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { descriptor: Descriptor::of(media_type, &bytes), contents: Contents::Bytes(bytes) }
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }
}

/// As JSON, in the order in which the type is written.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    // No type here has a map with keys that are not texts, so it cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}
