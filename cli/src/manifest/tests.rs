//! Manifests, right and wrong, and what follows from them.

mod cloud;
mod refused;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use snapbox::{assert_data_eq, file, str};

use super::fixture::Tree;
use super::*;
use crate::fleet;
use crate::units::Size;

/// Each problem as `file:line:column: message (hint)`, files relative to the folder of the manifests.
fn said(tree: &Tree) -> Vec<String> {
    let Err(problems) = tree.load() else {
        return Vec::new();
    };
    let problem = |problem: &Problem| {
        let place = format!("{}:{}:{}", problem.file.display(), problem.line, problem.column);
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        tree.shown(&format!("{place}: {}{hint}", problem.message)).replace("manifests/", "")
    };
    problems.iter().map(problem).collect()
}

#[test]
fn the_sample_is_valid() {
    assert_eq!(said(&Tree::valid()), Vec::<String>::new());
}

#[test]
fn the_manifests_of_this_repository_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    for environment in environments(&folder) {
        load(&folder, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn everything_is_reported_at_once() {
    let mut tree = Tree::valid();
    tree.replace("fleet.yaml", "replicas: 3", "replicas: 2");
    tree.replace("fleet.yaml", "interval: 10 s", "interval: 10");
    tree.replace("environments/local.yaml", "nodes: 5", "nodes: five");
    tree.replace("environments/local.yaml", "port: 8000", "port: 8224");
    tree.replace("services/ai-integration.yaml", "calls:", "tasts: 3\ntasks: 40\ncalls:");
    tree.replace("services/ai-integration.yaml", "[model-management]", "[model-managment, quest-system]");
    tree.replace("services/model-management.yaml", "models: {}", "models: { history: 100 }");
    tree.replace("services/npc-behavior.yaml", "calls: []", "calls: [state-manager]\nenvironment: { DEBUG: yes }");
    tree.replace(
        "services/quest-system.yaml",
        "serves: [quest.v1]",
        "serves: [quest.v1, npc.behavior.v1]\nstop_timeout: 3 min",
    );
    tree.replace(
        "services/state-manager.yaml",
        "name: state-manager",
        "name: state-manager\ncalls: [npc-behavior]\nmemory: 512 MB",
    );
    tree.write("services/quest.yaml", "name: quest-system\nname: quest\n");
    tree.write("services/broken.yaml", "name: [\n");
    tree.write("../services/weather/Cargo.toml", "");
    let problems = tree.load().unwrap_err();
    assert_data_eq!(tree.shown(&problems), file!["tests/broken.txt"]);
}

#[test]
fn problems_are_data_too() {
    let mut tree = Tree::valid();
    tree.replace("services/quest-system.yaml", "serves", "tasts: 3\nserves");
    let problems = tree.load().unwrap_err();
    assert_data_eq!(
        tree.shown(&serde_json::to_string(&problems).unwrap()),
        str![[
            r#"[{"file":"manifests/services/quest-system.yaml","line":2,"column":1,"message":"unknown key `tasts`","hint":"did you mean `tasks`?"}]"#
        ]]
    );
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let [service, fleet, environment, handover] = schemas();
    assert_eq!(
        [service.0, fleet.0, environment.0, handover.0],
        ["service.schema.json", "fleet.schema.json", "environment.schema.json", "handover.schema.json"]
    );
    assert_data_eq!(handover.1, file!["../../../manifests/schema/handover.schema.json"].raw());
    assert_data_eq!(service.1, file!["../../../manifests/schema/service.schema.json"].raw());
    assert_data_eq!(fleet.1, file!["../../../manifests/schema/fleet.schema.json"].raw());
    assert_data_eq!(environment.1, file!["../../../manifests/schema/environment.schema.json"].raw());
}

#[test]
fn every_manifest_names_its_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    for (files, schema) in
        [("", "schema/fleet"), ("environments", "../schema/environment"), ("services", "../schema/service")]
    {
        for file in yaml_files(&folder.join(files)) {
            let text = read(&file).unwrap();
            let line = format!("# yaml-language-server: $schema={schema}.schema.json\n");
            assert!(text.starts_with(&line), "`{}` does not start with `{line}`", file.display());
        }
    }
}

#[test]
fn the_check_knows_every_keyword_of_the_schemas() {
    const KNOWN: &[&str] = &[
        "$schema",
        "title",
        "description",
        "default",
        "examples", // for people
        "type",
        "properties",
        "additionalProperties",
        "patternProperties",
        "required",
        "items",
        "uniqueItems",
        "oneOf",
        "const",
        "enum",
        "minimum",
        "maximum",
        "pattern",
        "format",
        "x-minimum",
        "x-maximum",
        "x-default-suffix", // for Terraform
    ];
    fn walk(schema: &Json) {
        let Json::Object(schema) = schema else { return };
        for (keyword, value) in schema {
            assert!(KNOWN.contains(&keyword.as_str()), "`{keyword}` is not checked");
            match keyword.as_str() {
                "properties" | "patternProperties" => value.as_object().unwrap().values().for_each(walk),
                "oneOf" => value.as_array().unwrap().iter().for_each(walk),
                "items" => walk(value),
                // Unknown keys are always refused.
                "additionalProperties" => assert_eq!(value, false),
                "pattern" => assert!(
                    schema.contains_key("format") || files::FORMS.iter().any(|form| form.pattern == value),
                    "pattern `{value}` is not checked"
                ),
                _ => {}
            }
        }
    }
    for (_, text) in schemas().into_iter().filter(|(name, _)| *name != "handover.schema.json") {
        walk(&serde_json::from_str(&text).unwrap());
    }
}

fn inputs(manifests: &Manifests) -> Inputs {
    let artifact = Artifact { digest: "sha256:1".to_owned(), version: "0.1.0+1".to_owned() };
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
    let fleet = manifests.desired(&inputs(&manifests)).unwrap();
    let quest = &fleet.services["quest-system"];
    assert_eq!((quest.tasks, quest.scaling.min, quest.scaling.max), (3, 2, 5));
    assert_eq!(quest.definition.environment["LOG_LEVEL"], "debug");
    assert_eq!((quest.definition.cpu, quest.definition.memory_mib, quest.definition.workers), (256, 512, 2));
    let gateway = &fleet.services["gateway"];
    assert_eq!((gateway.definition.cpu, gateway.definition.memory_mib), (512, 1024));
    assert_eq!(gateway.calls.len(), 5);
}

#[test]
fn streams_and_buckets_follow_from_the_manifests() {
    let manifests = Tree::valid().load().unwrap();
    let fleet = manifests.desired(&inputs(&manifests)).unwrap();
    let names: Vec<&str> = fleet.streams.keys().map(String::as_str).collect();
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
    let state = fleet::Stream {
        subjects: vec!["evt.state.entity.updated.v1".to_owned(), "evt.state.player.updated.v1".to_owned()],
        replicas: 3,
        max_age_seconds: 7 * 86_400,
        duplicate_window_seconds: 120,
    };
    assert_eq!(fleet.streams["EVT_STATE_MANAGER"], state);
    assert_eq!(fleet.streams["AUDIT"].max_age_seconds, 400 * 86_400);
    let bucket = |replicas, history, ttl_seconds| fleet::Bucket { replicas, history, ttl_seconds };
    assert_eq!(fleet.buckets["quests"], bucket(3, 5, 30 * 86_400));
    assert_eq!(fleet.buckets["models"], bucket(3, 1, 0));
    assert_eq!(fleet.buckets["entities"], bucket(1, 64, 0));
    assert_eq!(manifests.max_file_store(), Size::from_mebibytes(10 << 10));
}

#[test]
fn a_small_environment_has_fewer_copies() {
    let mut tree = Tree::valid();
    tree.replace("environments/local.yaml", "nodes: 5", "nodes: 1");
    let manifests = tree.load().unwrap();
    let fleet = manifests.desired(&inputs(&manifests)).unwrap();
    assert!(fleet.streams.values().all(|stream| stream.replicas == 1));
    assert!(fleet.buckets.values().all(|bucket| bucket.replicas == 1));
}

#[test]
fn what_was_not_built_does_not_run() {
    let manifests = Tree::valid().load().unwrap();
    let mut inputs = inputs(&manifests);
    inputs.artifacts.remove("quest-system");
    let refused = manifests.desired(&inputs).unwrap_err();
    assert_eq!(refused.to_string(), "service `quest-system` has not been built");
}
