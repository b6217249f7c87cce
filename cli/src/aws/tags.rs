//! Tags of what natsctl creates: they say of which project, environment and service it is.

use aws_sdk_ecs::types::{Service, Tag};

use crate::handover::Handover;

const PROJECT: &str = "natsctl:project";
const ENVIRONMENT: &str = "natsctl:environment";
const SERVICE: &str = "natsctl:service";

/// Tags of what is created for a service of the environment.
pub(super) fn of(handover: &Handover, service: &str) -> Vec<Tag> {
    [(PROJECT, &*handover.project), (ENVIRONMENT, &handover.environment), (SERVICE, service)]
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .to_vec()
}

/// Tags that are neither natsctl's own nor those of AWS, by their keys.
pub(super) fn others(tags: &[Tag]) -> impl Iterator<Item = (String, serde_json::Value)> {
    let others = tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().into())));
    others.filter(|(key, _)| !key.starts_with("natsctl:") && !key.starts_with("aws:"))
}

/// Of which service of which environment something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    project: String,
    pub(super) environment: String,
    service: String,
}

impl Owner {
    /// A service of this environment.
    pub(super) fn new(handover: &Handover, service: &str) -> Self {
        let (project, environment) = (handover.project.clone(), handover.environment.clone());
        Self { project, environment, service: service.to_owned() }
    }

    /// By the tags that natsctl gives; `None` if natsctl did not create it.
    pub(super) fn read(tags: &[Tag]) -> Option<Self> {
        let value = |key: &str| tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value).map(str::to_owned);
        Some(Self { project: value(PROJECT)?, environment: value(ENVIRONMENT)?, service: value(SERVICE)? })
    }
}

/// The name that an ECS service has in the environment, by its tags; `None` if natsctl did not create it for this environment.
pub(super) fn name(handover: &Handover, service: &Service) -> Option<String> {
    let owner = Owner::read(service.tags())?;
    let is_of_environment = owner.project == handover.project && owner.environment == handover.environment;
    is_of_environment.then_some(owner.service)
}
