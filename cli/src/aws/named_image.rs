//! Images that a task definition names in another way than the manifest does, and that are the same all the same: by a tag beside which
//! the manifest has the digest, or by a short name of Docker Hub.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::Service;

use super::Aws;
use super::tasks::{self, DesiredStatus};
use crate::image::Reference;
use crate::model::desired::{Definition, Image};

/// Puts the image that a manifest names in the place of what the task definition of its service names, where tasks run that image.
///
/// # Errors
/// The tasks of a service whose image is named by a tag could not be described.
pub(super) async fn recognise(
    aws: &Aws,
    services: &BTreeMap<String, Service>,
    definitions: &mut BTreeMap<String, Definition>,
) -> anyhow::Result<()> {
    for (name, definition) in definitions {
        let named = aws.manifests.services.get(name).and_then(|manifest| manifest.build.as_ref()?.image.as_deref());
        let (Some(named), Some(service)) = (named, services.get(name)) else { continue };
        let (Ok(reference), Some(task)) = (named.parse::<Reference>(), definition.ecs.as_mut()) else { continue };
        let wanted = Image::from(reference);
        let is_same = match &*definition.artifact {
            "" => {
                named.split_once('@').is_some_and(|(by_tag, _)| by_tag == task.repository)
                    && runs(aws, service, &task.repository, &wanted.digest).await?
            }
            digest => is_same(&task.repository, digest, &wanted),
        };
        if is_same {
            (task.repository, definition.artifact) = (wanted.repository, wanted.digest);
        }
    }
    Ok(())
}

/// Whether two names with their digests are those of one image.
fn is_same(repository: &str, digest: &str, wanted: &Image) -> bool {
    let found = format!("{repository}@{digest}").parse::<Reference>();
    found.is_ok_and(|found| Image::from(found) == *wanted)
}

/// Whether tasks of a service run, and all of them the image of this digest where their task definition says `image`.
async fn runs(aws: &Aws, service: &Service, image: &str, digest: &str) -> anyhow::Result<bool> {
    let tasks = tasks::of_service(aws.ecs_cluster(), service.service_name(), DesiredStatus::Running).await?;
    let containers = tasks.iter().flat_map(|task| &task.containers).filter(|container| container.image == image);
    let digests: Vec<&str> = containers.filter_map(|container| container.image_digest.as_deref()).collect();
    Ok(!digests.is_empty() && digests.iter().all(|found| *found == digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_that_of_docker_hub() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let wanted = |repository: &str| Image { repository: repository.to_owned(), digest: digest.clone() };
        for (found, wanted_name, expected) in [
            ("nginx", "docker.io/library/nginx", true),
            ("nginx:1.27", "docker.io/library/nginx", true),
            ("example/app", "docker.io/example/app", true),
            ("localhost:5000/app", "docker.io/library/app", false),
            ("nginx", "docker.io/library/other", false),
        ] {
            assert_eq!(is_same(found, &digest, &wanted(wanted_name)), expected, "{found} and {wanted_name}");
        }
        let other = format!("sha256:{}", "2".repeat(64));
        assert!(!is_same("nginx", &other, &wanted("docker.io/library/nginx")));
    }
}
