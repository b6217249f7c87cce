//! What is on the emulated ECS in the end: the services, what they run, and what must not be left behind.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::emulator::Emulator;

const CLUSTER: &str = "gaming-system-cluster";

/// What counts of the world, without numbers and times that differ from run to run.
#[derive(Debug, PartialEq)]
pub(crate) struct World {
    /// By name on ECS.
    pub(crate) services: BTreeMap<String, Service>,
    /// Active revisions by family.
    pub(crate) revisions: BTreeMap<String, usize>,
    /// Scaling policies by service.
    pub(crate) policies: BTreeMap<String, usize>,
    /// Scalable targets: fewest and most tasks.
    pub(crate) targets: BTreeMap<String, (i64, i64)>,
    /// Whether a process that is alive holds the lock. The lock of a dead one is free.
    pub(crate) locked: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Service {
    pub(crate) image: String,
    pub(crate) desired: i64,
    pub(crate) running: i64,
    pub(crate) deployments: usize,
    pub(crate) rollout: String,
}

impl World {
    pub(crate) fn of(emulator: &Emulator) -> Self {
        let mut services = BTreeMap::new();
        let names = list(emulator, "ListServices", "serviceArns");
        for names in names.chunks(10) {
            let answer = emulator.call("ecs", "DescribeServices", &json!({ "cluster": CLUSTER, "services": names }));
            for service in answer["services"].as_array().unwrap() {
                let name = service["serviceName"].as_str().unwrap().to_owned();
                services.insert(name, Service::of(emulator, service));
            }
        }
        let mut revisions = BTreeMap::new();
        for arn in list(emulator, "ListTaskDefinitions", "taskDefinitionArns") {
            let family = arn.rsplit('/').next().unwrap().split(':').next().unwrap().to_owned();
            *revisions.entry(family).or_default() += 1;
        }
        let scaling = |action: &str, key: &str| {
            let answer = emulator.call("application-autoscaling", action, &json!({ "ServiceNamespace": "ecs" }));
            answer[key].as_array().unwrap().clone()
        };
        let of = |value: &Value| value["ResourceId"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let mut policies = BTreeMap::new();
        for policy in scaling("DescribeScalingPolicies", "ScalingPolicies") {
            *policies.entry(of(&policy)).or_default() += 1;
        }
        let targets = scaling("DescribeScalableTargets", "ScalableTargets");
        let bounds =
            |target: &Value| (target["MinCapacity"].as_i64().unwrap(), target["MaxCapacity"].as_i64().unwrap());
        let key = json!({ "pk": { "S": "lock" }, "sk": { "S": "environment" } });
        let lock = json!({ "TableName": "gaming-system-production-natsctl", "Key": key });
        Self {
            services,
            revisions,
            policies,
            targets: targets.iter().map(|target| (of(target), bounds(target))).collect(),
            locked: is_alive(&emulator.call("dynamodb", "GetItem", &lock)["Item"]["pid"]["N"]),
        }
    }
}

impl Service {
    fn of(emulator: &Emulator, service: &Value) -> Self {
        let definition = json!({ "taskDefinition": service["taskDefinition"] });
        let definition = emulator.call("ecs", "DescribeTaskDefinition", &definition);
        let image = &definition["taskDefinition"]["containerDefinitions"][0]["image"];
        let deployments = service["deployments"].as_array().unwrap();
        Self {
            image: image.as_str().unwrap().to_owned(),
            desired: service["desiredCount"].as_i64().unwrap(),
            running: service["runningCount"].as_i64().unwrap(),
            deployments: deployments.len(),
            rollout: deployments[0]["rolloutState"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

fn list(emulator: &Emulator, action: &str, key: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut token = Value::Null;
    loop {
        let mut body = json!({ "cluster": CLUSTER });
        if !token.is_null() {
            body["nextToken"] = token;
        }
        let answer = emulator.call("ecs", action, &body);
        all.extend(answer[key].as_array().unwrap().iter().map(|arn| arn.as_str().unwrap().to_owned()));
        token = answer["nextToken"].clone();
        if token.is_null() {
            return all;
        }
    }
}

fn is_alive(pid: &Value) -> bool {
    pid.as_str().is_some_and(|pid| std::path::Path::new("/proc").join(pid).exists())
}
