//! A node is planned and its script is made, as data.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::plan::{Effect, NodePlan, refusals};
use super::state::{NodeState, Running};
use super::*;
use crate::manifest::Archive;
use crate::nats::identity::AccountToken;

fn cluster() -> ClusterSpec {
    let archive = |arch: &str, digit: &str| Archive {
        url: format!("https://example.com/nats-server-{arch}.tar.gz"),
        sha256: digit.repeat(64),
    };
    ClusterSpec {
        name: "gaming-system-production".to_owned(),
        region: "us-east-1".to_owned(),
        nodes: (1..=3).map(|number| (format!("nats-{number}"), Ipv4Addr::new(10, 0, number, 17))).collect(),
        host: "nats.gaming-system.internal".to_owned(),
        release: Release { version: "2.15.0".to_owned(), amd64: archive("amd64", "a"), arm64: archive("arm64", "b") },
        max_payload: 1 << 20,
        max_file: 100 << 30,
    }
}

fn trust() -> Trust {
    let account = |id: &str| AccountToken { id: id.to_owned(), jwt: format!("jwt-{id}") };
    Trust { operator: "jwt-O".to_owned(), system: account("ASYS"), accounts: vec![account("AQUEST")] }
}

fn spec_of(cluster: &ClusterSpec) -> NodeSpec {
    cluster.node("nats-2", "gaming-system/production/nats/nats-2", "0123456789abcdef", &trust()).unwrap()
}

/// A node that has everything and runs it.
fn applied(spec: &NodeSpec) -> NodeState {
    NodeState {
        name: spec.name.clone(),
        machine: "x86_64".to_owned(),
        mounted: true,
        prepared: true,
        owner: format!("{} {}", spec.cluster, spec.name),
        state: "active".to_owned(),
        installed: BTreeMap::from([(spec.release.version.clone(), spec.release.amd64.sha256.clone())]),
        accounts_file: spec.accounts_digest(),
        accounts: BTreeMap::from([
            ("ASYS".to_owned(), sha256("jwt-ASYS")[..16].to_owned()),
            ("AQUEST".to_owned(), sha256("jwt-AQUEST")[..16].to_owned()),
        ]),
        certificates: BTreeMap::from([(spec.certificates.clone(), "Nov 30 12:00:00 2027 GMT".to_owned())]),
        running: Some(Running {
            version: spec.release.version.clone(),
            unit: spec.unit.digest.clone(),
            config: "sha256:1".to_owned(),
            config_in_files: "sha256:1".to_owned(),
            health: r#"{"status":"ok"}"#.to_owned(),
            leader: "nats-1".to_owned(),
        }),
        config: Some(spec.config.clone()),
        unit: Some(spec.unit.text.clone()),
    }
}

fn fresh() -> NodeState {
    NodeState {
        name: "nats-2".to_owned(),
        machine: "x86_64".to_owned(),
        mounted: true,
        prepared: true,
        state: "inactive".to_owned(),
        ..NodeState::default()
    }
}

/// What is planned when the cluster should be another one, or the node is another one.
#[track_caller]
fn check(change: impl FnOnce(&mut ClusterSpec), spoil: impl FnOnce(&mut NodeState), expected: &[(&str, Effect)]) {
    let before = spec_of(&cluster());
    let mut state = applied(&before);
    spoil(&mut state);
    let mut wanted = cluster();
    change(&mut wanted);
    let plan = NodePlan::new(&spec_of(&wanted), &state, &BTreeMap::new());
    let found: Vec<_> = plan.changes.iter().map(|change| (change.what, change.effect)).collect();
    assert_eq!(found, expected, "{}", plan.text());
}

#[test]
fn a_node_that_is_as_planned_has_no_plan() {
    check(|_| (), |_| (), &[]);
}

#[test]
fn a_fresh_node_gets_everything_and_is_started() {
    let plan = NodePlan::new(&spec_of(&cluster()), &fresh(), &BTreeMap::new());
    snapbox::assert_data_eq!(
        plan.text(),
        snapbox::str![[r#"
+ nats-2: is started
    release: nats-server 2.15.0 is to be installed
    certificates: 0123456789abcdef are to be fetched
    configuration: is to be written
    accounts: 2 are to be written
    unit: is to be written
    server: is inactive
"#]]
    );
    assert!(plan.starts() && plan.applies() && !plan.needs_roll());
}

#[test]
fn what_a_server_reloads_is_reloaded() {
    check(|cluster| cluster.max_payload = 2 << 20, |_| (), &[("configuration", Effect::Reload)]);
    let fewer = |cluster: &mut ClusterSpec| cluster.nodes.retain(|name, _| name != "nats-3");
    check(fewer, |_| (), &[("configuration", Effect::Reload)]);
    check(|_| (), |state| state.accounts_file = "other".to_owned(), &[("accounts", Effect::Reload)]);
    let other = |state: &mut NodeState| state.running.as_mut().unwrap().config = "sha256:2".to_owned();
    check(|_| (), other, &[("server", Effect::Reload)]);
}

#[test]
fn what_takes_a_restart_needs_a_roll() {
    check(|cluster| cluster.max_file = 1 << 30, |_| (), &[("configuration", Effect::Roll)]);
    check(|cluster| cluster.name = "other".to_owned(), |_| (), &[("configuration", Effect::Roll)]);
    let older = |state: &mut NodeState| state.running.as_mut().unwrap().version = "2.14.2".to_owned();
    check(|_| (), older, &[("release", Effect::Roll)]);
    let unit = |state: &mut NodeState| state.running.as_mut().unwrap().unit = "other".to_owned();
    check(|_| (), unit, &[("unit", Effect::Roll)]);
}

#[test]
fn another_release_is_installed_beside_the_one_that_runs() {
    check(|cluster| cluster.release.version = "2.15.1".to_owned(), |_| (), &[("release", Effect::Install)]);
    check(|_| (), |state| state.installed.clear(), &[("release", Effect::Install)]);
}

#[test]
fn a_server_that_has_ended_is_started() {
    let ended = |state: &mut NodeState| {
        state.running = None;
        state.state = "failed".to_owned();
    };
    check(|_| (), ended, &[("server", Effect::Start)]);
}

#[test]
fn a_plan_shows_the_lines_that_differ_and_accounts_by_name() {
    let before = spec_of(&cluster());
    let mut state = applied(&before);
    state.accounts_file = "other".to_owned();
    state.accounts.insert("AQUEST".to_owned(), "other".to_owned());
    state.accounts.insert("AGONE".to_owned(), "any".to_owned());
    let wanted = ClusterSpec { max_payload: 2 << 20, max_file: 1 << 30, ..cluster() };
    let names = BTreeMap::from([("AQUEST".to_owned(), "quest-system".to_owned())]);
    let plan = NodePlan::new(&spec_of(&wanted), &state, &names);
    snapbox::assert_data_eq!(
        plan.text(),
        snapbox::str![[r#"
> nats-2: needs a roll
    configuration: differs in what takes a restart: jetstream.max_file_store
-     max_payload: 1048576
+     max_payload: 2097152
-       max_file_store: 107374182400
+       max_file_store: 1073741824
    accounts: ~quest-system -AGONE (by a reload)
"#]]
    );
    assert_eq!(plan.reload(), Reload::AccountsOnly);
}

#[test]
fn a_node_that_is_another_one_is_refused() {
    let spec = spec_of(&cluster());
    let check = |spoil: &dyn Fn(&mut NodeState), expected: &str| {
        let mut state = applied(&spec);
        spoil(&mut state);
        assert_eq!(refusals(&spec, &state), [expected]);
    };
    assert!(refusals(&spec, &fresh()).is_empty() && refusals(&spec, &applied(&spec)).is_empty());
    check(&|state| state.name = "nats-3".to_owned(), "`nats-2` is a machine that calls itself `nats-3`");
    check(&|state| state.mounted = false, "`nats-2` has no data volume mounted at /var/lib/nats");
    check(
        &|state| state.owner = "other nats-2".to_owned(),
        "the data volume of `nats-2` belongs to server `nats-2` of cluster `other`, not to `nats-2` of \
         `gaming-system-production`",
    );
    check(
        &|state| state.machine = "riscv64".to_owned(),
        "`nats-2` is a machine of type `riscv64`, for which there is no nats-server",
    );
}

#[test]
fn a_server_may_be_called_by_all_of_its_names() {
    let name = cluster().server_name("nats-2");
    assert_eq!(name.dns, ["nats.gaming-system.internal", "nats-2", "localhost", "nats-2.gaming-system.internal"]);
    assert_eq!(name.addresses, ["10.0.2.17", "127.0.0.1"].map(|address| address.parse::<IpAddr>().unwrap()));
    let by_address = ClusterSpec { host: "10.0.9.9".to_owned(), ..cluster() }.server_name("nats-2");
    assert_eq!((by_address.dns.len(), by_address.addresses.len()), (2, 3));
}

/// What a shell says about a script; `None` where there is no `shellcheck`.
fn shellcheck(script: &str) -> Option<String> {
    let mut command = Command::new("shellcheck");
    command.args(["--shell", "bash", "--exclude", "SC2154", "-"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.ok()?;
    child.stdin.take()?.write_all(script.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn scripts_have_no_flaws_and_no_parameters_of_systems_manager() {
    let spec = spec_of(&cluster());
    let uploads = upload_scripts(&spec.accounts_digest(), "QUJD", 2);
    assert_eq!(uploads.len(), 2);
    let scripts = [spec.apply_script(Reload::Allowed), OBSERVE_SCRIPT.to_owned(), uploads[0].clone()];
    for script in &scripts {
        // Systems Manager would take it for the name of a parameter.
        assert!(!script.contains("{{"), "{script}");
        if let Some(flaws) = shellcheck(script) {
            assert_eq!(flaws, "");
        }
    }
}

#[test]
fn a_script_says_nothing_but_what_is_quoted() {
    let mut wanted = cluster();
    wanted.name = "it's $(here)".to_owned();
    let script = spec_of(&wanted).apply_script(Reload::AccountsOnly);
    assert!(script.contains("cluster='it'\\''s $(here)'\n") && script.contains("reload='no'\n"), "{script}");
}
