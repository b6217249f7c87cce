//! What a manifest cannot say of a service on ECS.

use super::links::Document;
use super::yaml::Node;
use crate::problem::Problem;

/// What only services on NATS have.
const ON_NATS: &[&str] = &["serves", "public", "calls", "publishes", "consumes", "buckets", "caches"];

/// Fields of a health check that `health` says of a service's own container.
const IN_HEALTH: &[&str] = &["interval", "timeout", "retries", "start_period"];

/// What is wrong with what a service's manifest says of it on ECS.
pub(super) fn problems(document: &Document) -> Vec<Problem> {
    let mut problems = standalone(document);
    for key in IN_HEALTH {
        let Some(node) = document.root.find(&["ecs", "container", "health_check", key]) else { continue };
        let problem = document.problem(node, format!("`{key}` of the service's own health check is said twice"));
        problems.push(problem.hint(format!("write it as `health: {{ {key}: … }}`")));
    }
    let own = document.root.find(&["ecs", "container_name"]).and_then(Node::text);
    let own = own.or_else(|| document.root.get("name")?.text()).unwrap_or_default();
    let sidecars = document.root.find(&["ecs", "sidecars"]).map(Node::entries).unwrap_or_default();
    if let Some(twice) = sidecars.iter().find(|sidecar| sidecar.key == own) {
        let message = format!("sidecar `{own}` has the name of the service's own container");
        let hint = "what the service's own container is, is under `ecs.container`; `ecs.container_name` renames it";
        problems.push(Problem::new(&document.place(twice.position), message).hint(hint));
    }
    problems
}

/// What is wrong with the manifest of a standalone service.
fn standalone(document: &Document) -> Vec<Problem> {
    let root = &document.root;
    let Some(role) = root.get("role").filter(|role| role.text() == Some("standalone")) else { return Vec::new() };
    let mut problems = Vec::new();
    for key in ON_NATS {
        let Some(node) = root.get(key) else { continue };
        let problem = document.problem(node, format!("`{key}` is for services on NATS, and this one is standalone"));
        problems.push(problem.hint("remove it, or make the service a `worker`"));
    }
    let is_built = ["image", "dockerfile"].iter().all(|key| root.find(&["build", key]).is_none());
    if is_built {
        let problem =
            document.problem(role, "a standalone service has no image: cargo builds only services on NATS".to_owned());
        problems.push(problem.hint("write `build: { image: repository@sha256:… }` or `build: { dockerfile: … }`"));
    }
    problems
}
