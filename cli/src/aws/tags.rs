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

/// Whose an ECS service is, by its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// natsctl created it for this environment.
    Environment,
    /// natsctl created it for another environment, or for another project.
    Elsewhere { project: String, environment: String },
    /// Nothing says that natsctl created it.
    Untagged,
}

impl Ownership {
    /// By all tags of an ECS service.
    pub(super) fn of(handover: &Handover, tags: &[Tag]) -> Self {
        let value = |key: &str| tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value);
        let (project, environment) = (value(PROJECT), value(ENVIRONMENT));
        let differs = |found: Option<&str>, own: &str| found.is_some_and(|found| found != own);
        if differs(project, &handover.project) || differs(environment, &handover.environment) {
            let text = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
            return Self::Elsewhere { project: text(project), environment: text(environment) };
        }
        if project.is_some() && environment.is_some() { Self::Environment } else { Self::Untagged }
    }
}

/// The name that an ECS service has in the environment, by its tags; `None` if natsctl did not create it for this environment.
pub(super) fn name(handover: &Handover, service: &Service) -> Option<String> {
    let owner = Owner::read(service.tags())?;
    let is_of_environment = owner.project == handover.project && owner.environment == handover.environment;
    is_of_environment.then_some(owner.service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tags: &[(&str, &str)], expected: Ownership) {
        let handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
        let tags: Vec<Tag> = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
        assert_eq!(Ownership::of(&handover, &tags), expected);
    }

    #[test]
    fn tags_of_another_project_or_environment_make_a_service_foreign_and_missing_ones_make_it_nobodys() {
        let (project, environment) = ((PROJECT, "gaming-system"), (ENVIRONMENT, "production"));
        let elsewhere = |project: &str, environment: &str| Ownership::Elsewhere {
            project: project.to_owned(),
            environment: environment.to_owned(),
        };
        check(&[project, environment, (SERVICE, "quest-system")], Ownership::Environment);
        check(&[(PROJECT, "shop"), environment], elsewhere("shop", "production"));
        check(&[project, (ENVIRONMENT, "development")], elsewhere("gaming-system", "development"));
        check(&[(PROJECT, "shop")], elsewhere("shop", "unknown"));
        check(&[project], Ownership::Untagged);
        check(&[("team", "payments")], Ownership::Untagged);
    }
}
