//! Rolling the NATS servers while everything works: nothing that was acknowledged is lost or comes twice, and no request fails.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use super::fleet::{Fleet, eventually, signal};
use super::load::{Load, Waits, lasting};
use super::nats_load::NatsLoad;

/// How many rolls follow each other. `NATSCTL_ROLLS` asks for more.
fn rolls() -> usize {
    std::env::var("NATSCTL_ROLLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The processes of the servers.
async fn processes(fleet: &Fleet) -> BTreeMap<String, u32> {
    let nodes = fleet.description().await.nodes.into_iter();
    nodes.map(|(name, node)| (name, node.pid.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_of_all_servers_loses_nothing_and_fails_no_request() {
    let fleet = Fleet::deployed(5).await;
    let (load, nats) = (Load::start(&fleet.gateway().await, lasting), NatsLoad::start(&fleet).await);
    let preview = fleet.run(&["nats", "roll", "--restart", "--dry-run", "--output", "json"]).await.ends(2).json();
    let order: Vec<&Value> = preview["nodes"].as_array().unwrap().iter().collect();
    assert_eq!(
        (order.len(), &order[4]["meta_leader"], &preview["obstacles"]),
        (5, &true.into(), &serde_json::json!([]))
    );

    for _ in 0..rolls() {
        let before = processes(&fleet).await;
        let rolled = fleet.run(&["nats", "roll", "--restart", "--output", "json"]).await.ends(0).json();
        assert_eq!(rolled["nodes"].as_array().unwrap().len(), 5, "{rolled:#}");
        let after = processes(&fleet).await;
        assert!(before.iter().all(|(node, pid)| after[node] != *pid), "{before:?} {after:?}");
        report(&rolled);
    }
    let tally = nats.ends().await.expect_whole(500);
    let Waits { longest, p999 } = load.ends_without_a_failure(200).await;
    report(&format!("{}; requests: 99.9 % within {p999:?}, the longest {longest:?}", tally.figures()));
    fleet.is_healthy().await;

    let history = fleet.run(&["history", "--output", "json"]).await.ends(0).json();
    let text = history.to_string();
    assert!(text.contains("natsctl nats roll --restart") && text.contains("roll node nats-1"), "{history:#}");
    fleet.run(&["nats", "roll", "--resume"]).await.ends(1).says(&["no roll was interrupted", "hint: "]);
}

/// Killed, hung, and without who watches over it: each time the next command goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_that_is_disturbed_or_interrupted_is_resumed_and_loses_nothing() {
    let fleet = Fleet::deployed(5).await;
    let nats = NatsLoad::start(&fleet).await;
    let before = processes(&fleet).await;

    // Ctrl-C while the first server leaves.
    let mut roll = fleet.start(&["nats", "roll", "--restart"]);
    roll.until("leaves").await;
    roll.interrupt();
    roll.ended().await.ends(130).says(&["`natsctl nats roll --resume` goes on"]);

    // Killed while the second one does; and another server dies meanwhile.
    let mut roll = fleet.start(&["nats", "roll", "--resume"]);
    roll.until("going on with").await.until("leaves").await;
    signal(roll.pid(), Signal::KILL);
    drop(roll.ended().await);
    let dead = processes(&fleet).await["nats-4"];
    signal(dead, Signal::KILL);
    eventually("the server is started again", || async {
        let node = fleet.description().await.nodes.remove("nats-4").unwrap();
        (node.running && node.pid != Some(dead)).then_some(())
    })
    .await;

    // One hangs: nothing more is taken, and it is named.
    let hung = processes(&fleet).await["nats-5"];
    signal(hung, Signal::STOP);
    let run = fleet.run(&["nats", "roll", "--resume", "--timeout", "6 s"]).await;
    // It is the next one to be restarted, which continues it; or another one is, which waits for it.
    if run.err.contains("error") {
        let run = run.ends(1).says(&["`nats-5`", "`natsctl nats roll --resume` goes on"]);
        report(&run.err);
        signal(hung, Signal::CONT);
        fleet.becomes_healthy().await;
        fleet.run(&["nats", "roll", "--resume"]).await.ends(0);
    } else {
        run.ends(0);
    }
    let after = processes(&fleet).await;
    assert!(before.iter().all(|(node, pid)| after[node] != *pid), "{before:?} {after:?}");
    report(&nats.ends().await.expect_whole(500).figures());
    fleet.is_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_and_certificates_are_rolled_out_where_they_differ() {
    let fleet = Fleet::deployed(3).await;
    fleet.run(&["nats", "roll", "--config"]).await.ends(0).shows(&["nothing had to be done"]);
    let settings = std::fs::read_to_string(fleet.manifest("fleet.yaml")).unwrap();
    let changed = settings.replace("max_payload: 1 MiB", "max_payload: 2 MiB");
    assert_ne!(changed, settings);
    std::fs::write(fleet.manifest("fleet.yaml"), changed).unwrap();
    fleet.run(&["nats", "roll", "--config", "--dry-run"]).await.ends(2).shows(&["3 nodes to roll"]);
    fleet.run(&["nats", "roll", "--config"]).await.ends(0).shows(&["rolled 3 nodes"]);

    let certificate = || std::fs::read(fleet.state().join("pki/servers/nats-1.crt")).unwrap();
    let before = (certificate(), processes(&fleet).await);
    fleet.run(&["nats", "roll", "--certificates", "--dry-run"]).await.ends(2);
    assert_eq!(certificate(), before.0, "a dry run makes none");
    fleet.run(&["nats", "roll", "--certificates"]).await.ends(0).shows(&["rolled 3 nodes"]);
    let after = (certificate(), processes(&fleet).await);
    assert!(before.0 != after.0 && before.1.iter().all(|(node, pid)| after.1[node] != *pid));
    fleet.is_healthy().await;
    let plan = fleet.plan(&[]).await.ends(0).json();
    assert_eq!(plan["steps"].as_array().unwrap().len(), 0, "{plan:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_rolled_is_refused_before_a_server_is_touched() {
    let fleet = Fleet::new(3);
    fleet.run(&["nats", "roll", "--restart"]).await.ends(1).says(&["nothing is deployed", "hint: "]);
    fleet.deploy(&["--all"]).await.ends(0);
    let before = processes(&fleet).await;
    fleet.run(&["nats", "roll"]).await.ends(64);
    fleet.run(&["nats", "roll", "--restart", "--config"]).await.ends(64);
    fleet.run(&["nats", "roll", "--version", "two"]).await.ends(64).says(&["`two` is not a version"]);
    let missing = fleet.run(&["nats", "roll", "--version", "2.99.0"]).await.ends(1);
    missing.says(&["there is no nats-server 2.99.0 on this machine", "./scripts/nats-server 2.99.0"]);
    let way = fleet.run(&["nats", "roll", "--version", "2.12.8", "--force", "x"]).await.ends(1);
    way.says(&["it panics at what 2.15 has written", "hint: there is no way back before 2.14"]);
    fleet.run(&["nats", "roll", "--resume"]).await.ends(1).says(&["no roll was interrupted"]);

    NatsLoad::single_replica(&fleet).await;
    let fragile = fleet.run(&["nats", "roll", "--restart"]).await.ends(1);
    fragile.says(&["nothing was rolled: stream `SINGLE` has its only replica on `nats-", "--accept-r1"]);
    assert_eq!(processes(&fleet).await, before);
    fleet.run(&["nats", "roll", "--restart", "--accept-r1"]).await.ends(0).shows(&["rolled 3 nodes"]);

    // The two that are gone stay gone for as long as the supervisor waits before it starts them again.
    let lost = processes(&fleet).await;
    for node in ["nats-2", "nats-3"] {
        signal(lost[node], Signal::STOP);
    }
    let run = fleet.run(&["nats", "roll", "--restart", "--accept-r1", "--timeout", "3 s"]).await.ends(1);
    run.says(&["`nats-2` does not answer", "the cluster has no meta leader"]);
    assert_eq!(processes(&fleet).await, lost);
    for node in ["nats-2", "nats-3"] {
        signal(lost[node], Signal::CONT);
    }
    fleet.becomes_healthy().await;
}

/// The release before, which `scripts/nats-server` installs.
const BEFORE: &str = "2.14.6";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_go_to_the_release_before_and_back_without_a_loss() {
    let fleet = Fleet::deployed(3).await;
    fleet.other_nats_server(BEFORE);
    let now = fleet.status().await["nats"]["nodes"][0]["version"].as_str().unwrap().to_owned();
    let refused = fleet.run(&["nats", "roll", "--version", BEFORE]).await.ends(1);
    refused.says(&["that is a downgrade", "--force REASON"]);
    let (load, nats) = (Load::start(&fleet.gateway().await, lasting), NatsLoad::start(&fleet).await);
    let back = fleet.run(&["nats", "roll", "--version", BEFORE, "--force", "a rehearsal"]).await.ends(0);
    back.says(&["back as 2.14.6"]).shows(&["rolled 3 nodes"]);
    fleet.run(&["nats", "roll", "--version", BEFORE]).await.ends(0).shows(&["nothing had to be done"]);
    fleet.run(&["nats", "roll", "--version", &now]).await.ends(0).shows(&["rolled 3 nodes"]);
    report(&nats.ends().await.expect_whole(500).figures());
    load.ends_without_a_failure(200).await;
    assert_eq!(fleet.plan(&[]).await.ends(0).json()["steps"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_where_they_are_asked_to_and_a_check_finds_what_is_wrong() {
    let fleet = Fleet::deployed(3).await;
    fleet.run(&["nats", "check"]).await.ends(0);
    NatsLoad::single_replica(&fleet).await;
    let check = fleet.run(&["nats", "check", "--output", "json"]).await.ends(0).json();
    let codes: Vec<&Value> = check["findings"].as_array().unwrap().iter().map(|finding| &finding["code"]).collect();
    assert_eq!(codes, ["few-replicas"], "{check:#}");

    let leader = async || {
        let status = fleet.status().await;
        let streams = status["nats"]["streams"].as_array().unwrap().clone();
        let stream = streams.iter().find(|stream| stream["name"] == "KV_quests").unwrap();
        let replicas: Vec<String> =
            stream["replicas"].as_array().unwrap().iter().map(|one| one["node"].as_str().unwrap().to_owned()).collect();
        (stream["leader"].as_str().unwrap().to_owned(), replicas)
    };
    let (before, replicas) = leader().await;
    let other = replicas.iter().find(|node| **node != before).unwrap();
    fleet.run(&["nats", "step-down", "KV_quests", "--to", other]).await.ends(0).shows(&[&format!("-> {other}")]);
    assert_eq!(&leader().await.0, other);
    fleet.run(&["nats", "step-down", "--meta"]).await.ends(0).shows(&["the meta leader: "]);
    fleet.run(&["nats", "step-down"]).await.ends(64);
    fleet.run(&["nats", "step-down", "NONE"]).await.ends(1).says(&["no server has a stream `NONE`"]);
    fleet.run(&["nats", "step-down", "SINGLE"]).await.ends(1).says(&["stream `SINGLE` is on `nats-"]);
    fleet.run(&["nats", "step-down", "--meta", "--to", "x"]).await.ends(1).says(&["`x` cannot lead the meta leader"]);
    fleet.run(&["nats", "lame-duck", "nats-9"]).await.ends(1).says(&["there is no server `nats-9`"]);
    fleet.run(&["nats", "lame-duck", other, "--accept-r1"]).await.ends(0).shows(&["rolled 1 node"]);

    let hung = processes(&fleet).await["nats-3"];
    signal(hung, Signal::STOP);
    let check = fleet.run(&["nats", "check"]).await.ends(3);
    check.shows(&["critical: `nats-3` does not answer [node-silent]"]);
    let metrics = fleet.run(&["nats", "check", "--output", "prometheus"]).await.ends(3);
    metrics.shows(&["natsctl_nats_healthy 0", r#"{code="node-silent",severity="critical",about="nats-3"} 1"#]);
    signal(hung, Signal::CONT);
    fleet.becomes_healthy().await;
    fleet.run(&["status", "--output", "prometheus"]).await.ends(64).says(&["is for `natsctl nats check`"]);
}

#[expect(clippy::print_stderr, reason = "figures for who runs it by hand")]
fn report(figures: &impl std::fmt::Debug) {
    eprintln!("{figures:?}");
}
