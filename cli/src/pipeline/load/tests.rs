//! The desired state that follows from manifests.

use super::*;
use crate::manifest::fixture::Tree;
use crate::model::desired::ConsumerStart;
use crate::model::units::Size;

fn inputs(manifests: &Manifests) -> Inputs {
    let artifact = BuiltArtifact { digest: "sha256:1".to_owned(), version: "0.1.0+1".to_owned() };
    Inputs {
        artifacts: manifests.services.keys().map(|name| (name.clone(), artifact.clone())).collect(),
        nodes: BTreeMap::new(),
    }
}

#[test]
fn a_manifest_overrides_defaults_field_by_field() {
    let mut tree = Tree::valid();
    tree.replace(
        "services/quest-system.yaml",
        "serves",
        "tasks: 3\nautoscaling: { max: 5 }\nenvironment: { LOG_LEVEL: debug }\nserves",
    );
    let manifests = tree.load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let quest = &desired.services["quest-system"];
    assert_eq!((quest.tasks, quest.scaling.min, quest.scaling.max), (3, 2, 5));
    assert_eq!(quest.definition.environment["LOG_LEVEL"], "debug");
    assert_eq!((quest.definition.cpu, quest.definition.memory_mib, quest.definition.workers), (256, 512, 2));
    let gateway = &desired.services["gateway"];
    assert_eq!((gateway.definition.cpu, gateway.definition.memory_mib), (512, 1024));
    assert_eq!(gateway.calls.len(), 5);
}

#[test]
fn streams_and_buckets_follow_from_the_manifests() {
    let manifests = Tree::valid().load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let names: Vec<&str> = desired.streams.keys().map(String::as_str).collect();
    let expected = [
        "AUDIT",
        "DLQ",
        "EVT_AI_INTEGRATION",
        "EVT_MODEL_MANAGEMENT",
        "EVT_NPC_BEHAVIOR",
        "EVT_QUEST_SYSTEM",
        "EVT_STATE_MANAGER",
    ];
    assert_eq!(names, expected);
    let state = Stream {
        subjects: [
            "evt.state.entity.updated.v1",
            "evt.state.player.updated.v1",
            "replay.*.evt.state.entity.updated.v1.*",
            "replay.*.evt.state.player.updated.v1.*",
        ]
        .map(str::to_owned)
        .to_vec(),
        replicas: 3,
        max_age_seconds: 7 * 86_400,
        duplicate_window_seconds: 120,
        outboxes: ["entities".to_owned()].into(),
    };
    assert_eq!(desired.streams["EVT_STATE_MANAGER"], state);
    assert_eq!(desired.streams["AUDIT"].max_age_seconds, 400 * 86_400);
    let bucket = |replicas, history, ttl_seconds| Bucket { replicas, history, ttl_seconds, outbox_seconds: 2 * 3_600 };
    assert_eq!(desired.buckets["quests"], bucket(3, 5, 30 * 86_400));
    assert_eq!(desired.buckets["models"], bucket(3, 1, 0));
    assert_eq!(desired.buckets["entities"], bucket(1, 64, 0));
    assert_eq!(manifests.max_file_store(), Size::from_mebibytes(10 << 10));
}

#[test]
fn consumers_follow_from_the_manifests() {
    let mut tree = Tree::valid();
    tree.replace(
        "services/npc-behavior.yaml",
        "calls: []",
        "consumes:\n  evt.quest.generated.v1: { backoff: [100 ms, 2 s], deliveries: 3 }\n  evt.ai.model.selected.v1: { delivery: every_task }",
    );
    let manifests = tree.load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let name = "EVT_QUEST_SYSTEM/npc-behavior_quest-generated-v1";
    let consumer = Consumer {
        service: Some("npc-behavior".to_owned()),
        subjects: ["evt.quest.generated.v1", "replay.npc-behavior.evt.quest.generated.v1.*"]
            .map(str::to_owned)
            .to_vec(),
        start: ConsumerStart::All,
        ack_wait_ms: 30_000,
        max_ack_pending: 2_000,
        max_deliver: -1,
    };
    assert_eq!(desired.consumers, [(name.to_owned(), consumer)].into());
    let npc = &desired.services["npc-behavior"];
    assert_eq!(npc.consumers, [name.to_owned()].into());
    assert!(npc.streams.contains("EVT_MODEL_MANAGEMENT") && npc.streams.contains("EVT_QUEST_SYSTEM"));
    let told: serde_json::Value = serde_json::from_str(&npc.definition.environment["NATS_CONSUMERS"]).unwrap();
    assert_eq!(
        told,
        serde_json::json!([
            {
                "event": "evt.ai.model.selected.v1", "stream": "EVT_MODEL_MANAGEMENT", "durable": null,
                "max_deliveries": 5, "backoff_ms": [1_000, 5_000, 30_000, 120_000],
                "timeout_ms": 30_000, "ack_wait_ms": 30_000, "ordered": false,
            },
            {
                "event": "evt.quest.generated.v1", "stream": "EVT_QUEST_SYSTEM",
                "durable": "npc-behavior_quest-generated-v1",
                "max_deliveries": 3, "backoff_ms": [100, 2_000],
                "timeout_ms": 30_000, "ack_wait_ms": 30_000, "ordered": false,
            },
        ])
    );
}

#[test]
fn a_small_environment_has_fewer_copies() {
    let mut tree = Tree::valid();
    tree.replace("environments/local.yaml", "nodes: 5", "nodes: 1");
    let manifests = tree.load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    assert!(desired.streams.values().all(|stream| stream.replicas == 1));
    assert!(desired.buckets.values().all(|bucket| bucket.replicas == 1));
}

#[test]
fn what_was_not_built_does_not_run() {
    let manifests = Tree::valid().load().unwrap();
    let mut inputs = inputs(&manifests);
    inputs.artifacts.remove("quest-system");
    let refused = super::desired(&manifests, &inputs).unwrap_err();
    assert_eq!(refused.to_string(), "service `quest-system` has not been built");
}

#[test]
fn tasks_are_told_where_their_spans_go_and_a_service_may_say_otherwise() {
    let mut tree = Tree::valid();
    let traces = "traces: { endpoint: \"http://collector:4318\", one_in: 100 }\nplatform: local";
    tree.replace("environments/local.yaml", "platform: local", traces);
    let own = "environment: { OTEL_TRACES_SAMPLER_ARG: \"1\" }\nserves";
    tree.replace("services/quest-system.yaml", "serves", own);
    let manifests = tree.load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let variable = |service: &str, name: &str| desired.services[service].definition.environment[name].clone();
    for service in ["gateway", "quest-system"] {
        assert_eq!(variable(service, "OTEL_EXPORTER_OTLP_ENDPOINT"), "http://collector:4318");
        assert_eq!(variable(service, "OTEL_TRACES_SAMPLER"), "parentbased_traceidratio");
        assert_eq!(variable(service, "OTEL_RESOURCE_ATTRIBUTES"), "deployment.environment.name=local");
    }
    assert_eq!(variable("gateway", "OTEL_TRACES_SAMPLER_ARG"), "0.01");
    assert_eq!(variable("quest-system", "OTEL_TRACES_SAMPLER_ARG"), "1");

    let manifests = Tree::valid().load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let environment = &desired.services["gateway"].definition.environment;
    assert!(!environment.keys().any(|name| name.starts_with("OTEL_")), "{environment:?}");
}

#[test]
fn a_service_knows_the_packages_that_it_calls() {
    let manifests = Tree::valid().load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let packages = |service: &str| desired.services[service].definition.environment.get("SERVICE_CALLS").cloned();
    assert_eq!(packages("ai-integration").as_deref(), Some("ai.model.v1"));
    assert_eq!((packages("state-manager"), packages("gateway")), (None, None));
}

#[test]
fn a_service_knows_its_caches_and_needs_the_streams_that_invalidate_them() {
    let mut tree = Tree::valid();
    let caches = "caches: { plans: { ttl: 90 s, invalidated_by: [evt.ai.model.selected.v1] }, texts: { ttl: 5 min, max_size: 1 MiB } }";
    tree.replace("services/quest-system.yaml", "serves", &format!("{caches}\nserves"));
    let manifests = tree.load().unwrap();
    let desired = super::desired(&manifests, &inputs(&manifests)).unwrap();
    let quest = &desired.services["quest-system"];
    assert_eq!(
        quest.definition.environment["SERVICE_CACHES"],
        r#"{"plans":{"ttl_ms":90000,"max_bytes":16777216},"texts":{"ttl_ms":300000,"max_bytes":1048576}}"#
    );
    assert!(quest.streams.contains("EVT_MODEL_MANAGEMENT"), "{:?}", quest.streams);
    let consumers = &quest.definition.environment["NATS_CONSUMERS"];
    assert!(
        consumers.contains(r#""event":"evt.ai.model.selected.v1""#) && consumers.contains(r#""durable":null"#),
        "{consumers}"
    );
    assert!(!desired.services["npc-behavior"].definition.environment.contains_key("SERVICE_CACHES"));
}
