//! A registry of images: is an image there, and if not, what is missing of it? Blobs that are there are not sent, and a
//! blob that several images share is sent once.

mod auth;
mod blobs;
mod http;
mod platforms;
mod proxy;
mod saved;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ::http::{Method, StatusCode};
use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

pub(crate) use self::auth::{Credentials, Login, Renew};
pub(crate) use self::http::{Connector, connector};
use self::http::{Http, RegistryRequest, RegistryResponse};
pub(crate) use self::saved::saved;
use super::digest::Digest;
use super::oci::{Blob, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, Index, MANIFEST, Manifest, json};
use super::{BuiltImage, Packed, Referrer, Store};
use crate::error::Hinted;

const ANY_MANIFEST: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];
/// Says that a registry has understood what something is attached to.
const SUBJECT: &str = "OCI-Subject";
const CONTENT_DIGEST: &str = "Docker-Content-Digest";
/// Blobs of one image at the same time.
const BLOBS_AT_ONCE: usize = 4;

/// One registry, for as long as natsctl runs.
pub(crate) struct Registry {
    http: Http,
    /// A repository that has the blob, by the blob's digest. Who is first holds the lock until it is there.
    sources: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Option<String>>>>>,
}

/// What happens to the blobs of an image while it is pushed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The repository has it.
    Skipped(u64),
    /// Another repository of the registry has it.
    Mounted(u64),
    /// It was sent.
    Sent(u64),
}

/// An image that the registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Of the manifest that the registry has under the tag.
    pub(crate) digest: Digest,
    /// Whether it was there before.
    pub(crate) existed: bool,
    /// Bytes that were sent.
    pub(crate) bytes: u64,
    /// Why the list of what it is made of is not attached to it, if it should be.
    pub(crate) refused_bom: Option<String>,
}

impl Registry {
    /// Connects when it is first used. Without TLS if it is on this machine.
    ///
    /// # Errors
    /// What is no name of a registry.
    pub(crate) fn new(host: &str, credentials: Credentials) -> anyhow::Result<Self> {
        Ok(Self { http: Http::new(host, credentials)?, sources: Mutex::default() })
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        self.http.host()
    }

    /// The digest of the manifest that has this tag or digest, if there is one.
    pub(crate) async fn has(&self, repository: &str, reference: &str) -> anyhow::Result<Option<Digest>> {
        Ok(self.manifest(repository, reference).await?.map(|(digest, _)| digest))
    }

    /// The digest of the manifest under the tag of the image, if the registry has this image. Compressed otherwise, it
    /// is still this image.
    ///
    /// # Errors
    /// The tag is another image's.
    pub(crate) async fn find(&self, repository: &str, image: &BuiltImage) -> anyhow::Result<Option<Digest>> {
        self.find_content(repository, &image.tag(), &image.config_digest()).await
    }

    /// Sends what the registry has not got of an image, the tag last: a tag that is there has everything behind it. An
    /// image that is there is not even packed.
    ///
    /// # Errors
    /// What cannot be packed; what the registry refuses, or that it cannot be reached.
    pub(crate) async fn push(
        &self,
        repository: &str,
        image: &BuiltImage,
        store: &Store,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> anyhow::Result<Pushed> {
        let failed = || format!("failed to push the image of `{}` to `{}/{repository}`", image.service, self.host());
        if let Some(digest) = self.find(repository, image).await.with_context(failed)? {
            return Ok(Pushed { digest, existed: true, bytes: 0, refused_bom: None });
        }
        let packed = image.pack(store).await?;
        self.push_missing(repository, &packed, progress).await.with_context(failed)
    }

    async fn push_missing(
        &self,
        repository: &str,
        image: &Packed,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> anyhow::Result<Pushed> {
        let attached = image.bom.iter().flat_map(|bom| &bom.blobs);
        let bytes = stream::iter(image.blobs.iter().chain(attached))
            .map(|blob| self.ensure(repository, blob, progress))
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_fold(0, async |sum, sent| Ok(sum + sent))
            .await?;
        let mut refused_bom = None;
        if let Some(bom) = &image.bom {
            // What it is attached to must be there, and the tag comes last.
            self.put(repository, image.digest().as_str(), &image.manifest).await?;
            refused_bom = self.attach(repository, &image.manifest.descriptor, bom).await?;
        }
        let digest = self.tag(repository, image).await?;
        Ok(Pushed { digest, existed: false, bytes, refused_bom })
    }

    /// Gives the image its tag.
    async fn tag(&self, repository: &str, image: &Packed) -> anyhow::Result<Digest> {
        let answer = self.ask_to_put(repository, &image.tag, &image.manifest).await?;
        let refused = match answer.status {
            status if status.is_success() => return Ok(image.digest().clone()),
            _ if says_taken(&answer) => self.find_content(repository, &image.tag, image.config_digest()).await?,
            _ => None,
        };
        // Another push of the same image was faster, or the registry refuses even the same again.
        refused.ok_or_else(|| self.unexpected(repository, &format!("the tag `{}`", image.tag), &answer))
    }

    /// Attaches the list of what an image is made of. Why not, if the registry takes no such things.
    async fn attach(&self, repository: &str, image: &Descriptor, bom: &Referrer) -> anyhow::Result<Option<String>> {
        let answer = self.ask_to_put(repository, bom.manifest.digest().as_str(), &bom.manifest).await?;
        if !answer.status.is_success() {
            return Ok(Some(format!("{} {}", answer.status, answer.words())));
        }
        if answer.header(SUBJECT).is_some() {
            return Ok(None);
        }
        // The way of registries that are older than attachments: an index under a tag that is made of the digest.
        let tag = image.digest.as_str().replace(':', "-");
        let known = self.manifest(repository, &tag).await?.and_then(|(_, body)| serde_json::from_slice(&body).ok());
        let mut index: Index = known.unwrap_or_else(|| Index::new(Vec::new()));
        if index.manifests.iter().any(|known| known.digest == *bom.manifest.digest()) {
            return Ok(None);
        }
        index.manifests.push(bom.descriptor());
        let answer = self.ask_to_put(repository, &tag, &Blob::of(INDEX, json(&index))).await?;
        Ok((!answer.status.is_success()).then(|| format!("{} {}", answer.status, answer.words())))
    }

    async fn find_content(&self, repository: &str, tag: &str, config: &Digest) -> anyhow::Result<Option<Digest>> {
        let Some((digest, body)) = self.manifest(repository, tag).await? else { return Ok(None) };
        let found = serde_json::from_slice::<Manifest>(&body).ok().map(|manifest| manifest.config.digest);
        if found.as_ref() == Some(config) {
            return Ok(Some(digest));
        }
        let message = format!("tag `{tag}` of `{}/{repository}` is another image's: `{digest}`", self.host());
        let hint = "tags are made of what is in an image, so this one was set by hand: remove that tag, after finding out \
                    who uses it";
        Err(Hinted::new(message, hint).into())
    }

    /// A manifest and its digest, as computed here.
    async fn manifest(&self, repository: &str, reference: &str) -> anyhow::Result<Option<(Digest, bytes::Bytes)>> {
        let call = RegistryRequest::new(Method::GET, repository, &format!("manifests/{reference}"));
        let answer = self.http.call(&RegistryRequest { accept: &ANY_MANIFEST, ..call }).await?;
        match answer.status {
            StatusCode::OK => {
                let digest = Digest::of(&answer.body);
                if Digest::parse(reference).is_some_and(|wanted| wanted != digest) {
                    bail!("registry `{}` has something else under `{repository}@{reference}`: `{digest}`", self.host());
                }
                Ok(Some((digest, answer.body)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(repository, &format!("`{reference}`"), &answer)),
        }
    }

    async fn put(&self, repository: &str, reference: &str, manifest: &Blob) -> anyhow::Result<()> {
        let answer = self.ask_to_put(repository, reference, manifest).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(self.unexpected(repository, &format!("`{reference}`"), &answer))
    }

    async fn ask_to_put(&self, repository: &str, reference: &str, manifest: &Blob) -> anyhow::Result<RegistryResponse> {
        let call = RegistryRequest::new(Method::PUT, repository, &format!("manifests/{reference}"));
        let answer = self.http.call(&RegistryRequest { blob: Some(manifest), ..call }).await?;
        match answer.header(CONTENT_DIGEST) {
            Some(digest) if answer.status.is_success() && digest != manifest.digest().as_str() => {
                bail!(
                    "registry `{}` has stored `{reference}` as `{digest}` instead of `{}`",
                    self.host(),
                    manifest.digest()
                )
            }
            _ => Ok(answer),
        }
    }

    /// An answer that is no success as an error.
    fn unexpected(&self, repository: &str, what: &str, answer: &RegistryResponse) -> anyhow::Error {
        let host = self.host();
        let said = answer.words();
        if answer.says("NAME_UNKNOWN") {
            let hint = "repositories are made beforehand: on AWS by `terraform apply` in the environment's folder";
            return Hinted::new(format!("registry `{host}` has no repository `{repository}`"), hint).into();
        }
        if answer.status == StatusCode::FORBIDDEN || answer.says("DENIED") {
            let message = format!("registry `{host}` does not allow this in `{repository}`: {said}");
            return Hinted::new(message, "the credentials need the right to push to this repository").into();
        }
        let message = format!("registry `{host}` refuses {what}: {} {said}", answer.status);
        Hinted::new(message, "`-vv` shows the requests; running the command again is safe").into()
    }
}

/// Whether the tag exists and cannot be moved.
fn says_taken(answer: &RegistryResponse) -> bool {
    let is_known = answer.says("TAG_INVALID") || answer.words().contains("AlreadyExists");
    answer.status == StatusCode::CONFLICT || answer.status.is_client_error() && is_known
}
