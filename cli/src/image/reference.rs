//! The name of an image that natsctl has not built: `repository@sha256:…`, with its registry or of Docker Hub.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use crate::error::Hinted;
use crate::model::desired;

/// The registry that is meant when none is named.
const DOCKER_HUB: &str = "docker.io";

/// An image by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host and port.
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) digest: Digest,
}

impl FromStr for Reference {
    type Err = Hinted;

    fn from_str(text: &str) -> Result<Self, Hinted> {
        let refused = |why: &str| {
            let hint = "write `repository@sha256:…`; `skopeo inspect` shows the digest";
            Hinted::new(format!("`{text}` {why}"), hint)
        };
        let (name, digest) = text.split_once('@').ok_or_else(|| refused("has no digest, and a tag can move"))?;
        let digest = Digest::parse(digest).ok_or_else(|| refused("has a digest that is none"))?;
        // A tag beside a digest says nothing.
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((host, repository)) if is_host(host) => (host, repository.to_owned()),
            Some(_) => (DOCKER_HUB, name.to_owned()),
            None => (DOCKER_HUB, format!("library/{name}")),
        };
        let is_path = repository.split('/').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        });
        if !is_path {
            return Err(refused("has a repository that no registry can have"));
        }
        Ok(Self { registry: registry.to_owned(), repository, digest })
    }
}

impl From<Reference> for desired::Image {
    fn from(Reference { registry, repository, digest }: Reference) -> Self {
        Self { repository: format!("{registry}/{repository}"), digest: digest.to_string() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn registry_and_repository_are_distinguished_as_docker_does() {
        let check = |name: &str, expected: &str| {
            let reference: Reference = format!("{name}@{DIGEST}").parse().unwrap();
            assert_eq!(reference.to_string(), format!("{expected}@{DIGEST}"));
        };
        check("nats", "docker.io/library/nats");
        check("bitnami/nats", "docker.io/bitnami/nats");
        check("public.ecr.aws/nginx/nginx:1.27", "public.ecr.aws/nginx/nginx");
        check("localhost:5000/a/b/c", "localhost:5000/a/b/c");
        check("localhost/a", "localhost/a");
    }

    #[test]
    fn what_names_no_image_is_refused() {
        let check = |text: &str, why: &str| {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        check("nats:2.15", "has no digest");
        check("nats@sha256:abc", "a digest that is none");
        check(&format!("@{DIGEST}"), "a repository that no registry can have");
        check(&format!("localhost:5000/Quest@{DIGEST}"), "a repository that no registry can have");
        check(&format!("a//b@{DIGEST}"), "a repository that no registry can have");
    }
}
