//! Blobs: asked for before they are sent, taken from another repository if one has them, else sent as a whole.

use std::sync::{Arc, PoisonError};

use ::http::{Method, StatusCode};
use anyhow::Context as _;

use super::http::{Attempts, RegistryRequest, RegistryResponse, encoded};
use super::{Blob, Progress, Registry};
use crate::image::digest::Digest;

/// The repository that a blob can be mounted from, once one has it.
type BlobSource = Arc<tokio::sync::Mutex<Option<String>>>;

impl Registry {
    /// Makes the repository have a blob, and says how many bytes were sent for it.
    pub(super) async fn ensure(
        &self,
        repository: &str,
        blob: &Blob,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> anyhow::Result<u64> {
        let source = self.source(blob.digest());
        let mut holder = source.lock().await;
        let sent = match holder.clone() {
            None => {
                let sent = self.upload(repository, blob, None).await?;
                *holder = Some(repository.to_owned());
                sent
            }
            Some(held_by) if held_by == repository => false,
            Some(other) => {
                drop(holder);
                match self.mount(repository, blob.digest(), &other).await? {
                    Mount::Done => {
                        progress(Progress::Mounted(blob.descriptor.size));
                        return Ok(0);
                    }
                    Mount::Refused(session) => self.upload(repository, blob, session).await?,
                }
            }
        };
        let size = blob.descriptor.size;
        progress(if sent { Progress::Sent(size) } else { Progress::Skipped(size) });
        Ok(if sent { size } else { 0 })
    }

    fn source(&self, digest: &Digest) -> BlobSource {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sources.entry(digest.clone()).or_default())
    }

    async fn mount(&self, repository: &str, digest: &Digest, from: &str) -> anyhow::Result<Mount> {
        let path = format!("blobs/uploads/?mount={}&from={}", encoded(digest.as_str()), encoded(from));
        let answer = self.http.call(&RegistryRequest::new(Method::POST, repository, &path)).await?;
        Ok(match answer.status {
            StatusCode::CREATED => Mount::Done,
            StatusCode::ACCEPTED => Mount::Refused(answer.header("location").map(str::to_owned)),
            // Whatever it has against mounting, an upload that follows says it better.
            _ => Mount::Refused(None),
        })
    }

    /// Whether it had to be sent. An upload that fails is started again from its beginning, since it is not known what
    /// the registry has of it.
    async fn upload(&self, repository: &str, blob: &Blob, mut session: Option<String>) -> anyhow::Result<bool> {
        let mut attempts = Attempts::default();
        loop {
            let session = match session.take() {
                Some(session) => session,
                // Perhaps it has arrived, and only the answer was lost.
                None if self.has_blob(repository, blob.digest()).await? => return Ok(false),
                None => self.begin(repository).await?,
            };
            let failed = match self.finish(repository, blob, &session).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(true),
                Ok(answer) if is_final(&answer) => {
                    return Err(self.unexpected(repository, &format!("blob `{}`", blob.digest()), &answer));
                }
                other => other,
            };
            attempts.wait(&self.http, &format!("upload to `{repository}`"), failed).await?;
        }
    }

    async fn has_blob(&self, repository: &str, digest: &Digest) -> anyhow::Result<bool> {
        let answer =
            self.http.call(&RegistryRequest::new(Method::HEAD, repository, &format!("blobs/{digest}"))).await?;
        match answer.status {
            // Some have their blobs elsewhere, and say where.
            status if status.is_success() || status.is_redirection() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.unexpected(repository, &format!("blob `{digest}`"), &answer)),
        }
    }

    async fn begin(&self, repository: &str) -> anyhow::Result<String> {
        let answer = self.http.call(&RegistryRequest::new(Method::POST, repository, "blobs/uploads/")).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(self.unexpected(repository, "an upload", &answer));
        }
        let session = answer.header("location").map(str::to_owned);
        session.with_context(|| format!("registry `{}` does not say where to upload to", self.host()))
    }

    async fn finish(&self, repository: &str, blob: &Blob, session: &str) -> anyhow::Result<RegistryResponse> {
        let sign = if session.contains('?') { '&' } else { '?' };
        let path = format!("{session}{sign}digest={}", encoded(blob.digest().as_str()));
        let call = RegistryRequest { method: Method::PUT, path, repository, accept: &[], blob: Some(blob) };
        self.http.attempt(&call).await
    }
}

enum Mount {
    Done,
    /// The registry may have started an upload instead.
    Refused(Option<String>),
}

/// What another attempt will not change. A session that is gone, or contents that were damaged on the way, it may.
fn is_final(answer: &RegistryResponse) -> bool {
    let status = answer.status;
    matches!(status, StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::METHOD_NOT_ALLOWED)
        || answer.says("NAME_UNKNOWN")
        || answer.says("DENIED")
}
