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

/// The name that an ECS service has in the environment, by its tags; `None` if natsctl did not create it for this environment.
pub(super) fn name(handover: &Handover, service: &Service) -> Option<String> {
    let value = |key: &str| service.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    let is_of_environment =
        value(PROJECT) == Some(&*handover.project) && value(ENVIRONMENT) == Some(&*handover.environment);
    value(SERVICE).filter(|_| is_of_environment).map(str::to_owned)
}
