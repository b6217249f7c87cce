//! What AWS would refuse of a desired state that the manifests allow: found before anything is changed, rather than in the middle of a
//! deployment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use super::task_definition::registration;
use crate::error::Hinted;
use crate::model::desired::{Definition, Desired};

/// Most bytes of a task definition, as JSON:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const TASK_DEFINITION: usize = 64 << 10;
/// Most subnets of a task.
const SUBNETS: usize = 16;
/// Most security groups of a task.
const SECURITY_GROUPS: usize = 5;
/// Longest names of services and of families of task definitions.
const NAME: usize = 255;
/// Longest name of a repository, without its registry:
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html>
const REPOSITORY: usize = 256;

/// Refuses services of which AWS would refuse something.
///
/// # Errors
/// What exceeds which limit, all of it.
pub(super) async fn check(ecs: &aws_sdk_ecs::Client, desired: &Desired) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for (name, service) in &desired.services {
        let bytes = size(ecs, name, &service.definition).await?;
        if bytes > TASK_DEFINITION {
            let largest = largest(&service.definition);
            problems.push(format!(
                "the task definition of `{name}` has {bytes} bytes, and ECS takes {TASK_DEFINITION}{largest}"
            ));
        }
        let mut limit = |what: &str, found: usize, most: usize, unit: &str| {
            if found > most {
                problems.push(format!("{what} of `{name}` has {found} {unit}, and AWS takes {most}"));
            }
        };
        if let Some(ecs) = &service.ecs {
            limit("the network", ecs.subnets.len(), SUBNETS, "subnets");
            limit("the network", ecs.security_groups.len(), SECURITY_GROUPS, "security groups");
            limit("the name on ECS", ecs.name.len(), NAME, "characters");
        }
        if let Some(task) = &service.definition.ecs {
            limit("the family", task.family.len(), NAME, "characters");
            let (_, repository) = task.repository.split_once('/').unwrap_or_default();
            limit("the repository", repository.len(), REPOSITORY, "characters");
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let hint = "variables and secrets come from the manifest, let the service read what is large from elsewhere; network and names \
                come from Terraform's handover; nothing was changed";
    Err(Hinted::new(problems.join("; "), hint).into())
}

/// Names the largest variable of a definition.
fn largest(definition: &Definition) -> String {
    let largest = definition.environment.iter().max_by_key(|(name, value)| name.len() + value.len());
    let named = largest.map(|(name, value)| format!("; the variable `{name}` alone has {}", value.len()));
    named.unwrap_or_default()
}

/// Bytes of the call that would register a definition. Nothing is sent.
async fn size(ecs: &aws_sdk_ecs::Client, name: &str, definition: &Definition) -> anyhow::Result<usize> {
    let measure = Measure::default();
    let call = registration(ecs, name, definition)?.customize().interceptor(measure.clone());
    // It always ends with the error that keeps it from being sent.
    drop(call.send().await);
    match measure.0.load(Ordering::Relaxed) {
        0 => anyhow::bail!("failed to measure the task definition of `{name}`"),
        bytes => Ok(bytes),
    }
}

/// Notes how large a request is, and keeps it from being sent.
#[derive(Clone, Debug, Default)]
struct Measure(Arc<AtomicUsize>);

impl Intercept for Measure {
    fn name(&self) -> &'static str {
        "Measure"
    }

    fn read_after_serialization(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.request().body().bytes().map_or(0, <[u8]>::len);
        self.0.store(bytes, Ordering::Relaxed);
        Err("it was measured, and is not sent".into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::aws::desired::DesiredOnEcs;
    use crate::handover::Handover;
    use crate::manifest::fixture::Tree;
    use crate::model::desired::Image;
    use crate::model::secret::SecretReference;

    fn desired(change: impl Fn(&mut Handover)) -> Desired {
        let mut handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
        change(&mut handover);
        let manifests = Tree::valid().load().unwrap();
        let names = manifests.services.keys();
        let images: BTreeMap<String, Image> = names.clone().map(|name| (name.clone(), Image::default())).collect();
        let mut secrets: BTreeMap<String, String> =
            names.map(|name| (handover.nats_secret(name), format!("arn:{name}"))).collect();
        secrets.extend(handover.redis.iter().map(|redis| (redis.auth_secret.clone(), "arn:redis".to_owned())));
        DesiredOnEcs { manifests: &manifests, handover: &handover, secrets: &secrets, images: &images }
            .desired()
            .unwrap()
    }

    async fn refused(desired: &Desired) -> Option<String> {
        let config = aws_sdk_ecs::Config::builder().behavior_version(aws_sdk_ecs::config::BehaviorVersion::latest());
        let ecs = aws_sdk_ecs::Client::from_conf(config.region(aws_sdk_ecs::config::Region::new("us-east-1")).build());
        check(&ecs, desired).await.err().map(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_fits_is_let_through_without_a_call() {
        assert_eq!(refused(&desired(|_| ())).await, None);
    }

    #[tokio::test]
    async fn a_task_definition_is_refused_by_its_size_whatever_it_consists_of() {
        let mut large = desired(|_| ());
        let definition = &mut large.services.get_mut("quest-system").unwrap().definition;
        definition.environment.insert("RULES".to_owned(), "\n".repeat(40_000));
        let message = refused(&large).await.unwrap();
        assert!(message.starts_with("the task definition of `quest-system` has 8"), "{message}");
        assert!(message.ends_with("ECS takes 65536; the variable `RULES` alone has 40000"), "{message}");

        let mut many = desired(|_| ());
        let secrets = &mut many.services.get_mut("quest-system").unwrap().definition.ecs.as_mut().unwrap().secrets;
        let secret = SecretReference::whole("a".repeat(100));
        secrets.extend((0..600).map(|number| (format!("KEY_{number}"), secret.clone())));
        let message = refused(&many).await.unwrap();
        assert!(message.starts_with("the task definition of `quest-system` has"), "{message}");
    }

    #[tokio::test]
    async fn more_subnets_groups_or_letters_than_aws_takes_are_refused() {
        let many = |count: usize| (0..count).map(|number| format!("x-{number}")).collect::<Vec<_>>();
        let message = refused(&desired(|handover| handover.network.subnets = many(17))).await.unwrap();
        assert!(message.contains("the network of `quest-system` has 17 subnets, and AWS takes 16"), "{message}");
        let message = refused(&desired(|handover| handover.network.security_groups = many(6))).await.unwrap();
        assert!(message.contains("has 6 security groups, and AWS takes 5"), "{message}");
        let family = "f".repeat(256);
        let message = refused(&desired(|handover| handover.names.task_family.clone_from(&family))).await.unwrap();
        assert!(message.contains("the family of `quest-system` has 256 characters, and AWS takes 255"), "{message}");
    }
}
