//! What exists on AWS, according to AWS and not to Terraform.

use std::collections::BTreeSet;
use std::fs;

use natsctl::handover::Handover;
use serde_json::{Value, json};

use super::schema;
use super::tree::{Environment, root};
use crate::emulator::{ACCOUNT, Emulator};

/// Checks everything that natsctl and on-call engineers depend on.
pub(crate) fn everything_is_there(environment: &Environment<'_>, emulator: &Emulator, outputs: &Value) {
    let handover = handover(environment, emulator);
    let services: BTreeSet<String> = fs::read_dir(environment.manifests.join("services"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(services.len(), 23);
    repositories(environment, emulator, &services);
    alarms(environment, emulator, &handover, &services, &outputs["alarm_names"]["value"]);
    secrets(environment, emulator, &services);
    nodes(emulator, &handover);
    natsctl_misses_values_only(environment, emulator, &services);
    let secrets = secret_values(&serde_json::from_str(&environment.state()).unwrap());
    assert!(secrets.is_empty(), "in the state of `{}`: {secrets:?}", environment.name);
}

/// Attributes with secret values.
fn secret_values(state: &Value) -> Vec<String> {
    const SECRET: [&str; 6] = ["auth_token", "password", "passwords", "private_key", "secret_binary", "secret_string"];
    let empty = |value: &Value| value.is_null() || *value == json!("") || *value == json!([]);
    match state {
        Value::Array(items) => items.iter().flat_map(secret_values).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match SECRET.contains(&&**name) && !empty(value) {
                true => vec![format!("{name}: {value}")],
                false => secret_values(value),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The parameter, checked against the schema and parsed by natsctl.
fn handover(environment: &Environment<'_>, emulator: &Emulator) -> Handover {
    let name = format!("/gaming-system/{}/natsctl", environment.name);
    let found = emulator.call("ssm", "GetParameter", &json!({ "Name": name }));
    let text = found["Parameter"]["Value"].as_str().unwrap();
    assert!(text.len() < 4096, "{} bytes", text.len());
    let schema = fs::read_to_string(root().join("manifests/schema/handover.schema.json")).unwrap();
    let problems = schema::problems(&serde_json::from_str(&schema).unwrap(), &serde_json::from_str(text).unwrap(), "");
    assert!(problems.is_empty(), "{problems:#?}");
    let handover: Handover = text.parse().unwrap();
    assert_eq!((&*handover.environment, &*handover.account), (environment.name, ACCOUNT));
    assert!(handover.redis.is_some() && handover.gateway.is_some());
    let table = emulator.call("dynamodb", "DescribeTable", &json!({ "TableName": handover.ledger }));
    assert_eq!(table["Table"]["DeletionProtectionEnabled"], environment.name == "production");
    handover
}

fn repositories(environment: &Environment<'_>, emulator: &Emulator, services: &BTreeSet<String>) {
    let found = emulator.call("ecr", "DescribeRepositories", &json!({ "maxResults": 1000 }));
    let prefix = match environment.name {
        "production" => "bodybroker-services/".to_owned(),
        other => format!("bodybroker-services-{other}/"),
    };
    let ours =
        found["repositories"].as_array().unwrap().iter().filter(|one| text(one, "repositoryName").starts_with(&prefix));
    let names: BTreeSet<String> = ours
        .map(|one| {
            assert_eq!(one["imageTagMutability"], "IMMUTABLE");
            text(one, "repositoryName").trim_start_matches(&prefix).to_owned()
        })
        .collect();
    let expected = services.iter().map(|name| match &**name {
        "gateway" => "http-nats-gateway".to_owned(),
        name => format!("{name}-nats"),
    });
    assert_eq!(names, expected.chain(["natsctl".to_owned()]).collect());
}

fn alarms(
    environment: &Environment<'_>,
    emulator: &Emulator,
    handover: &Handover,
    services: &BTreeSet<String>,
    by_kind: &Value,
) {
    let prefix = format!("gaming-system-{}-", environment.name);
    let found = emulator.aws(&["cloudwatch", "describe-alarms"]).expect("the aws CLI");
    let found: Vec<&Value> = found["MetricAlarms"].as_array().unwrap().iter().collect();
    let ours: BTreeSet<&str> =
        found.iter().map(|alarm| text(alarm, "AlarmName")).filter(|name| name.starts_with(&prefix)).collect();
    for service in services {
        for name in handover.alarms(service) {
            assert!(ours.contains(&*name), "there is no alarm `{name}`");
        }
    }
    for alarm in found.iter().filter(|alarm| text(alarm, "AlarmName").starts_with(&prefix)) {
        for actions in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm[actions], json!([handover.alerts_topic]), "{alarm}");
        }
        let runbook = text(alarm, "AlarmDescription").rsplit('/').next().unwrap().to_owned();
        assert!(root().join("docs/runbooks").join(&runbook).exists(), "{alarm}: there is no `{runbook}`");
    }
    let kinds = by_kind.as_object().unwrap();
    let output: BTreeSet<&str> =
        kinds.values().flat_map(|names| names.as_array().unwrap()).filter_map(Value::as_str).collect();
    let differing: Vec<_> = output.symmetric_difference(&ours).collect();
    assert!(differing.is_empty(), "Terraform outputs other alarms than exist: {differing:?}");
    for (kind, names) in kinds {
        println!("{}: {} alarms of kind {kind}", environment.name, names.as_array().unwrap().len());
    }
    let of_services: usize =
        ["service-circuit", "service-cpu", "service-dead-letters", "service-memory", "service-tasks"]
            .iter()
            .map(|kind| kinds[*kind].as_array().unwrap().len())
            .sum();
    assert_eq!(of_services, 5 * (22 + 1));
}

/// They exist, and have no value.
fn secrets(environment: &Environment<'_>, emulator: &Emulator, services: &BTreeSet<String>) {
    for name in names_of_secrets(services) {
        let id = format!("gaming-system/{}/{name}", environment.name);
        let found = emulator.call("secretsmanager", "DescribeSecret", &json!({ "SecretId": id }));
        assert!(found["VersionIdsToStages"].as_object().is_none_or(serde_json::Map::is_empty), "{found}");
    }
}

fn names_of_secrets(services: &BTreeSet<String>) -> impl Iterator<Item = String> {
    let own = ["nats/authority", "nats/errand", "nats/operator", "bank/key", "redis/auth"].map(str::to_owned);
    services.iter().map(|name| format!("nats/{name}")).chain(own)
}

/// Each is where the handover says, in three zones, without public access.
fn nodes(emulator: &Emulator, handover: &Handover) {
    let zones: BTreeSet<&str> = handover.nats.nodes.values().map(|node| &*node.zone).collect();
    assert_eq!((handover.nats.nodes.len(), zones.len()), (5, 3));
    for node in handover.nats.nodes.values() {
        let found =
            emulator.aws(&["ec2", "describe-instances", "--instance-ids", &node.instance]).expect("the aws CLI");
        let instance = &found["Reservations"][0]["Instances"][0];
        assert_eq!(instance["PrivateIpAddress"], node.address);
        assert_eq!(instance["Placement"]["AvailabilityZone"], node.zone);
        assert_eq!(instance["MetadataOptions"]["HttpTokens"], "required");
        assert!(instance["KeyName"].is_null(), "{instance}");
    }
}

/// `natsctl verify` finds everything but what Terraform never makes: values of secrets. With these it finds nothing missing.
#[cfg(feature = "aws")]
fn natsctl_misses_values_only(environment: &Environment<'_>, emulator: &Emulator, services: &BTreeSet<String>) {
    let verify = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_natsctl"));
        command
            .args(["verify", "--output", "json", "--env", environment.name, "--manifests"])
            .arg(&environment.manifests);
        // The registry of the handover is ECR.
        let output = command.envs(emulator.env()).env_remove("NATSCTL_REGISTRY").output().unwrap();
        let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).join("\n");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("natsctl verify: {said}"));
        let missing = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| ["missing", "unknown"].contains(&text(finding, "state")));
        missing.cloned().collect::<Vec<Value>>()
    };
    let missing = verify();
    assert!(
        !missing.is_empty() && missing.iter().all(|finding| text(finding, "what").contains("secret")),
        "{missing:#?}"
    );
    let identity = json!({ "urls": "tls://nats:4222", "ca": "-", "cert": "-", "key": "-", "creds": "-" });
    for name in names_of_secrets(services) {
        let id = format!("gaming-system/{}/{name}", environment.name);
        emulator.call(
            "secretsmanager",
            "PutSecretValue",
            &json!({ "SecretId": id, "SecretString": identity.to_string() }),
        );
    }
    let missing = verify();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[cfg(not(feature = "aws"))]
fn natsctl_misses_values_only(environment: &Environment<'_>, _: &Emulator, _: &BTreeSet<String>) {
    eprintln!("skipped: `natsctl verify --env {}`: this natsctl is built without the feature `aws`", environment.name);
}

/// Except what AWS keeps for a while: keys and secrets that wait for their deletion.
pub(crate) fn nothing_is_left(emulator: &Emulator) {
    let left = |arguments: &[&str], query: &str| {
        let found = emulator.aws(&[arguments, &["--query", query]].concat()).expect("the aws CLI");
        assert_eq!(found, json!([]), "left behind: {arguments:?}");
    };
    left(&["ec2", "describe-vpcs"], "Vpcs[?!IsDefault].VpcId");
    left(&["ec2", "describe-instances"], "Reservations[].Instances[?State.Name!='terminated'].InstanceId[]");
    left(&["ec2", "describe-volumes"], "Volumes[].VolumeId");
    left(&["ec2", "describe-network-interfaces"], "NetworkInterfaces[].NetworkInterfaceId");
    left(&["ec2", "describe-addresses"], "Addresses[].AllocationId");
    left(&["elbv2", "describe-load-balancers"], "LoadBalancers[].LoadBalancerName");
    left(&["elbv2", "describe-target-groups"], "TargetGroups[].TargetGroupName");
    left(&["ecr", "describe-repositories"], "repositories[].repositoryName");
    left(&["ecs", "describe-clusters"], "clusters[?status=='ACTIVE'].clusterName");
    left(&["logs", "describe-log-groups"], "logGroups[].logGroupName");
    left(&["cloudwatch", "describe-alarms"], "MetricAlarms[].AlarmName");
    left(&["cloudwatch", "list-dashboards"], "DashboardEntries[].DashboardName");
    left(&["iam", "list-roles"], "Roles[?starts_with(RoleName, 'gaming-system')].RoleName");
    left(&["iam", "list-policies", "--scope", "Local"], "Policies[].PolicyName");
    left(&["sns", "list-topics"], "Topics[].TopicArn");
    left(&["ssm", "describe-parameters"], "Parameters[?starts_with(Name, '/gaming-system')].Name");
    left(&["dynamodb", "list-tables"], "TableNames");
    left(&["elasticache", "describe-replication-groups"], "ReplicationGroups[].ReplicationGroupId");
    left(&["route53", "list-hosted-zones"], "HostedZones[].Name");
    left(&["lambda", "list-functions"], "Functions[].FunctionName");
    left(&["secretsmanager", "list-secrets"], "SecretList[?DeletedDate==null].Name");
    let keys = emulator.call("kms", "ListKeys", &json!({}));
    for key in keys["Keys"].as_array().unwrap() {
        let found = emulator.call("kms", "DescribeKey", &json!({ "KeyId": key["KeyId"] }));
        // The emulator makes itself a key for disks that are encrypted by default.
        let is_ours = found["KeyMetadata"]["Description"] != "Default key";
        assert!(!is_ours || found["KeyMetadata"]["KeyState"] == "PendingDeletion", "{found}");
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
