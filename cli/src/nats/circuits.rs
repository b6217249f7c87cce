//! Open circuits: the calls that services reject because what they call does not answer. Each worker reports its own in
//! its statistics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::discovery::Instance;
use crate::manifest::Manifests;
use crate::model::status::OpenCircuit;

/// A circuit as a worker reports it.
#[derive(Debug, Deserialize)]
struct Reported {
    destination: String,
    since: Timestamp,
}

/// The circuits that are open, by caller and destination. Those of several workers are one, open since the first of them.
pub fn open_circuits(instances: &[Instance], manifests: &Manifests) -> Vec<OpenCircuit> {
    let mut open: BTreeMap<(&str, String), OpenCircuit> = BTreeMap::new();
    for (caller, reported) in instances.iter().flat_map(|one| reported(one).map(|circuit| (&*one.service, circuit))) {
        let entry = open.entry((caller, reported.destination.clone())).or_insert_with(|| OpenCircuit {
            caller: caller.to_owned(),
            callee: callee(manifests, &reported.destination),
            destination: reported.destination,
            since: reported.since,
            workers: 0,
        });
        entry.since = entry.since.min(reported.since);
        entry.workers += 1;
    }
    open.into_values().collect()
}

/// A worker of an older version, or of a foreign service, reports none.
fn reported(instance: &Instance) -> impl Iterator<Item = Reported> {
    let circuits = instance.data.get("open_circuits").and_then(serde_json::Value::as_array);
    circuits.into_iter().flatten().filter_map(|circuit| Reported::deserialize(circuit).ok())
}

/// The service that serves a package.
fn callee(manifests: &Manifests, package: &str) -> Option<String> {
    let mut services = manifests.services.values();
    services.find(|service| service.serves.contains(package)).map(|service| service.name.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::fixture::Tree;

    fn instance(service: &str, id: &str, data: serde_json::Value) -> Instance {
        let stats = json!({ "name": service, "id": id, "version": "0.1.0", "data": data });
        serde_json::from_value(stats).unwrap()
    }

    fn open(destination: &str, since: &str) -> serde_json::Value {
        json!({ "open_circuits": [{ "destination": destination, "since": since, "retry_after_ms": 100 }] })
    }

    #[test]
    fn circuits_of_all_workers_of_a_caller_are_one() {
        let instances = [
            instance("gateway", "a-0", open("quest.v1", "2026-11-29T12:00:07Z")),
            instance("gateway", "a-1", open("quest.v1", "2026-11-29T12:00:05.25Z")),
            instance("ai-integration", "b-0", open("foreign.v1", "2026-11-29T12:00:09Z")),
            instance("quest-system", "c-0", json!({ "open_circuits": [] })),
        ];
        let found = open_circuits(&instances, &Tree::valid().load().unwrap());
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`ai-integration` rejects calls to `foreign.v1` since 2026-11-29T12:00:09Z, in 1 worker: it did not answer",
                "`gateway` rejects calls to `quest-system` (`quest.v1`) since 2026-11-29T12:00:05Z, in 2 workers: it did \
                 not answer",
            ]
        );
    }

    #[test]
    fn statistics_of_other_forms_have_no_circuits() {
        let manifests = Tree::valid().load().unwrap();
        for data in
            [json!(null), json!("x"), json!({ "open_circuits": "x" }), json!({ "open_circuits": [{ "a": 1 }, 7] })]
        {
            assert_eq!(open_circuits(&[instance("foreign", "a", data)], &manifests), []);
        }
    }
}
