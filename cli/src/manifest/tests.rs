//! Manifests, right and wrong.

mod cloud;
mod hostile;
mod on_ecs;
mod overrides;
mod refused;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;
use snapbox::{assert_data_eq, file, str};

use super::fixture::Tree;
use super::*;

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
fn the_manifests_of_this_repository_serve_every_package() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let manifests = load(&folder, "local").unwrap();
    let served: BTreeSet<&str> =
        manifests.services.values().flat_map(|service| service.serves.iter().map(|package| &**package)).collect();
    assert_eq!(served, proto::SERVICES.iter().map(|service| service.package).collect());
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
    let [service, fleet, environment] = schemas();
    assert_eq!(
        [service.0, fleet.0, environment.0],
        ["service.schema.json", "fleet.schema.json", "environment.schema.json"]
    );
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
        "minItems",
        "maxItems",
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
                    schema.contains_key("format") || names::FORMS.iter().any(|form| form.pattern == value),
                    "pattern `{value}` is not checked"
                ),
                _ => {}
            }
        }
    }
    for (_, text) in schemas() {
        walk(&serde_json::from_str(&text).unwrap());
    }
}
