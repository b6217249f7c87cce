//! Every call that natsctl makes is in `docs/iam.md`, for the commands that make it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use super::fleet::{Fleet, Ran};
use crate::emulator::Emulator;

/// Groups of commands by call, as the document has them.
pub(super) fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/iam.md");
    let text = std::fs::read_to_string(file).unwrap();
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once('`').unwrap();
        let groups = rest.trim_end_matches(" |").rsplit("| ").next().unwrap();
        calls.entry(name.to_owned()).or_default().extend(groups.split(", ").map(str::to_owned));
    }
    assert!(calls.len() > 40, "the table was not understood: {calls:#?}");
    calls
}

/// Runs natsctl, and checks that what it called is what a caller with the policies of these groups may call.
fn check(fleet: &Fleet, emulator: &Emulator, groups: &[&str], arguments: &[&str]) -> Ran {
    emulator.reset_calls();
    let ran = fleet.natsctl(emulator, arguments);
    let documented = documented();
    let may = |name: &String| {
        let of_call = documented.get(name).unwrap_or_else(|| panic!("`{name}` of {arguments:?} is not in docs/iam.md"));
        of_call.contains("look") || groups.iter().any(|group| of_call.contains(*group))
    };
    let counts = emulator.counts();
    let beyond: Vec<&String> = counts.keys().filter(|name| !may(name)).collect();
    assert!(beyond.is_empty(), "{arguments:?} makes calls that {groups:?} may not: {beyond:?}");
    assert!(!counts.is_empty(), "{arguments:?} called nothing: {ran:#?}");
    ran
}

#[test]
fn commands_make_the_calls_that_their_policy_allows_and_no_others() {
    let fleet = Fleet::of(7);
    let emulator = fleet.emulator();
    // No registry has the images that these manifests name.
    assert_eq!(check(&fleet, &emulator, &["verify"], &["verify"]).code, Some(1));
    // Done, or found something to do or something unhealthy.
    let check = |groups: &[&str], arguments: &[&str]| {
        let ran = check(&fleet, &emulator, groups, arguments);
        assert!(matches!(ran.code, Some(0 | 2 | 3)), "{arguments:?}: {ran:#?}");
    };
    let image = Fleet::image("quest-system", 1);
    emulator.behave(&image, json!({ "one_off": { "exit": { "code": 0, "after_ms": 20 } } }));

    check(&[], &["plan", "--proof", "ecs"]);
    // The first one makes the identities on NATS.
    check(&["deploy", "identities"], &["deploy", "--all", "--proof", "ecs"]);
    for read_only in [
        &["status"][..],
        &["tasks"],
        &["tasks", "--stopped"],
        &["logs", "quest-system"],
        &["events"],
        &["history"],
        &["revisions", "quest-system"],
        &["drift"],
        &["diff", "--all"],
        &["policy"],
        &["policy", "deploy"],
    ] {
        check(&[], read_only);
    }
    std::fs::remove_file(fleet.service_file("other-1")).unwrap();
    check(&[], &["import", "other-1"]);
    fleet.version("other-1", 1);
    fleet.version("quest-system", 2);
    check(&["deploy"], &["register", "quest-system"]);
    check(&["deploy"], &["deploy", "--all", "--proof", "ecs"]);
    check(&["deploy"], &["scale", "quest-system", "3"]);
    check(&["deploy"], &["restart", "quest-system"]);
    check(&["deploy"], &["rollback", "quest-system"]);
    check(&["deploy"], &["deregister", "--all", "--keep", "1"]);
    check(&["operate"], &["run", "quest-system", "--", "/app", "healthcheck"]);
    std::fs::remove_file(fleet.service_file("other-1")).unwrap();
    // Identities are others than before.
    check(&["deploy", "identities"], &["deploy", "--all", "--prune", "--proof", "ecs"]);
}

#[test]
fn a_deployment_that_fails_makes_no_other_calls_either() {
    let fleet = Fleet::of(6);
    let emulator = fleet.emulator();
    fleet.deploy(&emulator, &[]).succeeded();
    let crash = json!({ "log": ["no"], "exit": { "code": 1, "after_ms": 20 } });
    emulator.behave(&Fleet::image("quest-system", 2), crash);
    fleet.version("quest-system", 2);
    let ran = check(&fleet, &emulator, &["deploy"], &["deploy", "--all", "--proof", "ecs"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
}
