//! The desired state on ECS: that of the manifests, with what only ECS has. Pure.

mod words;

use std::collections::BTreeMap;

use crate::aws::service_settings;
use crate::aws::task_definition::{health_on_ecs, own_document};
use crate::error::Hinted;
use crate::handover::{Handover, Redis};
use crate::manifest::{Manifests, ServiceManifest};
use crate::model::desired::{Desired, Health, Image, Role};
use crate::model::ecs::{Autoscaling, EcsService, EcsTask, LoadBalanced};
use crate::model::secret::SecretReference;
use crate::model::task::{self, GATEWAY_PORT};
use crate::pipeline::load::{self, BuiltArtifact, Inputs};

/// Variables of a service's identity on NATS, and the keys of the secret that hold their values.
pub(super) const IDENTITY: [(&str, &str); 5] =
    [("NATS_URLS", "urls"), ("NATS_CA", "ca"), ("NATS_CERT", "cert"), ("NATS_KEY", "key"), ("NATS_CREDS", "creds")];
/// The variable that names the nodes of Redis, and those of its credentials with the keys of the secret that hold their values.
const REDIS_URLS: &str = "REDIS_URLS";
pub(super) const REDIS_CREDENTIALS: [(&str, &str); 2] =
    [("REDIS_USERNAME", "username"), ("REDIS_PASSWORD", "password")];
/// A rolling deployment never has fewer tasks than wanted, nor more than twice as many.
const MINIMUM_HEALTHY_PERCENT: i32 = 100;
const MAXIMUM_PERCENT: i32 = 200;
/// How long ECS ignores the health checks of a load balancer after a task has started.
const HEALTH_CHECK_GRACE_SECONDS: i32 = 60;

/// Inputs of the desired state on ECS.
pub(crate) struct DesiredOnEcs<'a> {
    pub(crate) manifests: &'a Manifests,
    pub(crate) handover: &'a Handover,
    /// ARNs of secrets by name.
    pub(crate) secrets: &'a BTreeMap<String, String>,
    /// Images, by service.
    pub(crate) images: &'a BTreeMap<String, Image>,
}

/// References to the keys of an identity's secret, by variable.
pub(super) fn identity_from(arn: &str) -> impl Iterator<Item = (String, SecretReference)> {
    keys_of(arn, &IDENTITY)
}

/// References to the keys of a secret, by variable.
fn keys_of(arn: &str, keys: &'static [(&str, &str)]) -> impl Iterator<Item = (String, SecretReference)> {
    keys.iter().map(move |(variable, key)| ((*variable).to_owned(), SecretReference::key(arn, key)))
}

impl DesiredOnEcs<'_> {
    /// The desired state.
    ///
    /// # Errors
    /// Secrets that do not exist; a service without an image.
    pub(crate) fn desired(&self) -> anyhow::Result<Desired> {
        let artifacts = self.images.iter().map(|(name, image)| {
            (
                name.clone(),
                BuiltArtifact {
                    digest: image.digest.clone(),
                    version: task::version(env!("CARGO_PKG_VERSION"), &image.digest),
                },
            )
        });
        let inputs = Inputs { artifacts: artifacts.collect(), nodes: BTreeMap::new() };
        let mut fleet = load::desired(self.manifests, &inputs)?;
        self.refuse_missing_secrets()?;
        for (name, desired) in &mut fleet.services {
            let service = &self.manifests.services[name];
            desired.definition.health = match service.role {
                Role::Standalone if service.ecs.container.health_check.is_none() => Health::default(),
                _ => health_on_ecs(desired.definition.health),
            };
            desired.definition.ecs = Some(self.task(service));
            if let Some(redis) = self.redis_of(service) {
                let url = format!("rediss://{}:{}", redis.host, redis.port);
                desired.definition.environment.insert(REDIS_URLS.to_owned(), url);
            }
            desired.ecs = Some(self.service(service));
        }
        fleet.images = self.images.clone();
        Ok(fleet)
    }

    fn task(&self, service: &ServiceManifest) -> EcsTask {
        let handover = self.handover;
        let container = service.container_name();
        let task = EcsTask {
            family: handover.task_family(service),
            container: container.to_owned(),
            repository: self.images.get(&*service.name).map(|image| image.repository.clone()).unwrap_or_default(),
            execution_role: handover.execution_role.clone(),
            task_role: handover.task_role(&service.name),
            log_group: handover.log_group.clone(),
            log_prefix: service.ecs_name(),
            region: handover.region.clone(),
            architecture: service.settings.architecture,
            secrets: self.secrets_of(service),
            document: own_document(container, service.role, service.settings.execute_command),
        };
        words::over_task(service, task, |reference| self.resolved(reference))
    }

    fn service(&self, service: &ServiceManifest) -> EcsService {
        let scaling = &service.settings.autoscaling;
        let figure = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let balanced = || LoadBalanced { container: service.container_name().to_owned(), port: GATEWAY_PORT.into() };
        let gateway = self.handover.gateway.as_ref().filter(|_| service.role == Role::Gateway);
        let made = EcsService {
            name: service.ecs_name(),
            subnets: self.handover.network.subnets.iter().cloned().collect(),
            security_groups: self.handover.network.security_groups.iter().cloned().collect(),
            alarms: self.handover.alarms(&service.name).collect(),
            circuit_breaker: true,
            minimum_healthy_percent: MINIMUM_HEALTHY_PERCENT,
            maximum_percent: MAXIMUM_PERCENT,
            zone_rebalancing: true,
            execute_command: service.settings.execute_command,
            assign_public_ip: false,
            capacity_providers: service_settings::fargate(),
            platform_version: service_settings::LATEST.to_owned(),
            managed_tags: true,
            propagate_tags: service_settings::PROPAGATE_TAGS.to_owned(),
            grace_period_seconds: gateway.map(|_| HEALTH_CHECK_GRACE_SECONDS),
            load_balancers: gateway.map(|gateway| (gateway.target_group.clone(), balanced())).into_iter().collect(),
            deployment: serde_json::Map::new(),
            autoscaling: Some(Autoscaling {
                min: figure(scaling.min),
                max: figure(scaling.max),
                cpu_percent: f64::from(scaling.cpu_percent).into(),
                memory_percent: f64::from(scaling.memory_percent).into(),
            }),
        };
        words::over_service(service, made)
    }

    /// A reference with the ARN of its secret, if it names a secret of the environment.
    fn resolved(&self, reference: &SecretReference) -> SecretReference {
        let arn = |name: &str| self.secrets.get(&self.handover.secret(name)).cloned().unwrap_or_default();
        reference.own_name().map_or_else(|| reference.clone(), |name| reference.clone().of(arn(name)))
    }

    /// References to the values of secrets, by variable.
    fn secrets_of(&self, service: &ServiceManifest) -> BTreeMap<String, SecretReference> {
        let arn = |name: &str| self.secrets.get(name).cloned().unwrap_or_default();
        let identity = arn(&self.handover.nats_secret(&service.name));
        let own = service.secrets.iter().map(|(variable, from)| (variable.to_string(), self.resolved(from)));
        if service.role == Role::Standalone {
            return own.collect();
        }
        let redis = self.redis_of(service).map(|redis| arn(&redis.auth_secret));
        let redis = redis.iter().flat_map(|arn| keys_of(arn, &REDIS_CREDENTIALS));
        identity_from(&identity).chain(own).chain(redis).collect()
    }

    /// Redis, if the service has caches to share in it.
    fn redis_of(&self, service: &ServiceManifest) -> Option<&Redis> {
        self.handover.redis.as_ref().filter(|_| !service.caches.is_empty())
    }

    fn refuse_missing_secrets(&self) -> anyhow::Result<()> {
        let mut missing: Vec<String> = Vec::new();
        for (name, service) in &self.manifests.services {
            let identity = (service.role != Role::Standalone).then(|| self.handover.nats_secret(name));
            let own = service.all_secrets().filter_map(SecretReference::own_name);
            let own = own.map(|secret| self.handover.secret(secret));
            let redis = self.redis_of(service).map(|redis| redis.auth_secret.clone());
            let absent = own.chain(identity).chain(redis).filter(|secret| !self.secrets.contains_key(secret));
            missing.extend(absent.map(|secret| format!("`{secret}` (of `{name}`)")));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let hint = "Terraform makes them: `terraform apply` in the environment's folder; or remove them from `secrets` of the manifest";
        Err(Hinted::new(format!("these secrets are not there: {}", missing.join(", ")), hint).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::fixture::Tree;

    const AUTH: &str =
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:gaming-system/production/redis/auth-AbCdEf";

    /// The desired state of a fleet whose quest system has a cache.
    fn desired(handover: &Handover, auth: Option<&str>) -> anyhow::Result<Desired> {
        let mut tree = Tree::valid();
        tree.replace("services/quest-system.yaml", "serves", "caches: { plans: { ttl: 1 min } }\nserves");
        let manifests = tree.load().unwrap();
        let names = manifests.services.keys();
        let images: BTreeMap<String, Image> = names.clone().map(|name| (name.clone(), Image::default())).collect();
        let mut secrets: BTreeMap<String, String> =
            names.map(|name| (handover.nats_secret(name), format!("arn:{name}"))).collect();
        if let (Some(redis), Some(auth)) = (&handover.redis, auth) {
            secrets.insert(redis.auth_secret.clone(), auth.to_owned());
        }
        DesiredOnEcs { manifests: &manifests, handover, secrets: &secrets, images: &images }.desired()
    }

    #[test]
    fn services_with_caches_and_no_others_are_told_of_redis() {
        let handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
        let redis = Redis { host: "cache.internal".to_owned(), port: 6379, auth_secret: "a/redis/auth".to_owned() };
        let handover = Handover { redis: Some(redis), ..handover };
        let desired = desired(&handover, Some(AUTH)).unwrap();
        let [quest, npc] = ["quest-system", "npc-behavior"].map(|name| &desired.services[name].definition);
        let secrets = &quest.ecs.as_ref().unwrap().secrets;
        assert_eq!(quest.environment["REDIS_URLS"], "rediss://cache.internal:6379");
        assert_eq!(secrets["REDIS_USERNAME"].to_string(), format!("{AUTH}:username::"));
        assert_eq!(secrets["REDIS_PASSWORD"].to_string(), format!("{AUTH}:password::"));
        assert!(!npc.environment.contains_key("REDIS_URLS"));
        assert!(!npc.ecs.as_ref().unwrap().secrets.contains_key("REDIS_PASSWORD"));
    }

    #[test]
    fn a_cache_without_redis_is_in_the_process_alone() {
        let handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
        let desired = desired(&Handover { redis: None, ..handover }, None).unwrap();
        let quest = &desired.services["quest-system"].definition;
        assert!(quest.environment.contains_key("SERVICE_CACHES") && !quest.environment.contains_key("REDIS_URLS"));
    }

    #[test]
    fn credentials_of_redis_that_are_not_there_are_refused() {
        let handover: Handover = crate::handover::tests::GOOD.parse().unwrap();
        let redis = Redis { host: "cache.internal".to_owned(), port: 6379, auth_secret: "a/redis/auth".to_owned() };
        let refused = desired(&Handover { redis: Some(redis), ..handover }, None).unwrap_err();
        assert_eq!(refused.to_string(), "these secrets are not there: `a/redis/auth` (of `quest-system`)");
    }
}
