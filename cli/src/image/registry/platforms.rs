//! What an image in a registry can run on.

use ::http::{Method, StatusCode, header::LOCATION};
use anyhow::Context as _;
use serde_json::Value;

use super::Registry;
use super::http::RegistryRequest;
use crate::image::digest::Digest;
use crate::image::platform::Platforms;

impl Registry {
    /// What an image is for; `None` if the registry has no such image.
    ///
    /// # Errors
    /// What the registry refuses; something else than an image.
    pub(crate) async fn platforms(&self, repository: &str, digest: &str) -> anyhow::Result<Option<Platforms>> {
        let Some((_, body)) = self.manifest(repository, digest).await? else { return Ok(None) };
        let manifest: Value = serde_json::from_slice(&body)
            .with_context(|| format!("`{repository}@{digest}` is neither an image nor an index of images"))?;
        if manifest["manifests"].is_array() {
            return Ok(Some(Platforms::of_index(&manifest)));
        }
        let config = manifest["config"]["digest"].as_str().unwrap_or_default();
        let Some(config) = Digest::parse(config) else {
            anyhow::bail!("`{repository}@{digest}` is neither an image nor an index of images");
        };
        let config = self.small_blob(repository, config.as_str()).await?;
        Ok(Some(Platforms::of_config(&config)))
    }

    /// The contents of a blob that fits in memory, such as a configuration. Registries may have them elsewhere.
    async fn small_blob(&self, repository: &str, digest: &str) -> anyhow::Result<bytes::Bytes> {
        let call = RegistryRequest::new(Method::GET, repository, &format!("blobs/{digest}"));
        let mut answer = self.http.call(&call).await?;
        if answer.status.is_redirection() {
            let path = answer
                .header(LOCATION.as_str())
                .context("the registry says that a blob is elsewhere, and not where")?;
            let call = RegistryRequest { path: path.to_owned(), ..call };
            answer = self.http.call(&call).await?;
        }
        if answer.status != StatusCode::OK {
            return Err(self.unexpected(repository, &format!("`{digest}`"), &answer));
        }
        if Digest::of(&answer.body).as_str() != digest {
            anyhow::bail!("registry `{}` has something else under `{repository}@{digest}`", self.host());
        }
        Ok(answer.body)
    }
}
