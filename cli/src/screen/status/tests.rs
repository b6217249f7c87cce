use super::*;
use crate::model::status::{ClusterHealth, Deploying, GatewayStatus, NodeHealth, OldTasks};

const NOW: &str = "2026-11-30T17:00:00Z";

fn service(name: &str, state: State) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        state,
        desired: 2,
        running: 2,
        healthy: 2,
        old: None,
        revision: 7,
        version: "0.1.0+1f2e3d4c5b6a".to_owned(),
        image: None,
        restarts: 0,
        started: Some("2026-11-30T16:57:00Z".parse().unwrap()),
        last_exit: None,
        rollout: None,
        alarms: Vec::new(),
        flags: Vec::new(),
        reason: None,
    }
}

/// A rollout, a crash loop, and so many services that are healthy.
fn unwell(healthy: usize) -> Status {
    let rolling = ServiceStatus {
        healthy: 0,
        old: Some(OldTasks { running: 2, healthy: 2 }),
        reason: Some("rolling out: /readyz: no answer".to_owned()),
        ..service("quest-system", State::RollingOut)
    };
    let looping = ServiceStatus {
        healthy: 1,
        restarts: 5,
        last_exit: Some("exited with code 1".to_owned()),
        flags: vec![Flag::ScaledByHand],
        reason: Some("crash loop: 5 restarts of a task; the last one exited with code 1".to_owned()),
        ..service("auth", State::CrashLoop)
    };
    let well = (1..=healthy).map(|number| service(&format!("service-{number}"), State::Healthy));
    let node = NodeHealth {
        name: "nats-1".to_owned(),
        url: "tls://127.0.0.1:4222".to_owned(),
        healthy: true,
        meta_leader: true,
        version: Some("2.15.1".to_owned()),
        reason: None,
        settled: true,
    };
    Status {
        environment: "local".to_owned(),
        healthy: false,
        deploying: Some(Deploying {
            who: "arn:aws:sts::123456789012:assumed-role/deploy/ann".to_owned(),
            command: "natsctl deploy --all".to_owned(),
            since: "2026-11-30T16:59:00Z".parse().unwrap(),
        }),
        services: [rolling, looping].into_iter().chain(well).collect(),
        nats: Some(ClusterHealth { nodes: vec![node], quorum: true, problem: None, streams: Vec::new() }),
        gateway: GatewayStatus { url: Some("http://127.0.0.1:8000".to_owned()) },
        open_circuits: Vec::new(),
        problems: vec!["alarm `nodes`".to_owned()],
        notes: Vec::new(),
    }
}

#[track_caller]
fn check(status: &Status, space: Space, expected: &str) {
    assert_eq!(environment(status, NOW.parse().unwrap(), space), expected.trim_matches('\n'));
}

#[test]
fn the_worst_comes_first_and_the_verdict_last_too() {
    check(
        &unwell(1),
        Space::Columns(80),
        "
environment local: NOT healthy (and 2 more): auth: crash loop
DEPLOYING by deploy/ann since 2026-11-30T16:59:00Z: natsctl deploy --all
  alarm `nodes`
  auth: crash loop: 5 restarts of a task; the last one exited with code 1
  quest-system: rolling out: /readyz: no answer

SERVICE       STATE        TASKS                 REV  AGE    RESTARTS          …
auth          crash loop   1/2                   r7   3 min  5         scaled b…
quest-system  rolling out  2/2 serving, new 0/2  r7   3 min  0                 …
service-1     healthy      2/2                   r7   3 min  0                 …

NODE    URL                   VERSION  ROLE         STATE
nats-1  tls://127.0.0.1:4222  2.15.1   meta leader  healthy
quorum: yes

gateway: http://127.0.0.1:8000

environment local: NOT healthy (and 2 more): auth: crash loop
",
    );
}

#[test]
fn a_window_shows_what_is_wrong_and_counts_what_is_healthy() {
    check(
        &unwell(12),
        Space::Window(Size { columns: 60, rows: 18 }),
        "
environment local: NOT healthy (and 2 more): auth: crash lo…
DEPLOYING by deploy/ann since 2026-11-30T16:59:00Z: natsctl…
  alarm `nodes`
  auth: crash loop: 5 restarts of a task; the last one exit…
  quest-system: rolling out: /readyz: no answer

SERVICE       STATE        TASKS                 REV  AGE  …
auth          crash loop   1/2                   r7   3 min…
quest-system  rolling out  2/2 serving, new 0/2  r7   3 min…
service-1     healthy      2/2                   r7   3 min…
… 11 more healthy

nats: 1 node healthy, quorum: yes

gateway: http://127.0.0.1:8000

environment local: NOT healthy (and 2 more): auth: crash lo…
",
    );
}

#[test]
fn the_verdict_is_in_any_window() {
    for (columns, rows) in [(80, 24), (200, 50), (40, 10), (20, 4), (10, 2)] {
        let shown = environment(&unwell(30), NOW.parse().unwrap(), Space::Window(Size { columns, rows }));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() < rows, "{columns} x {rows}:\n{shown}");
        assert!(lines.iter().all(|line| crate::screen::layout::width(line) <= columns), "{columns} x {rows}:\n{shown}");
        assert!(lines[0].starts_with("environm"), "{columns} x {rows}:\n{shown}");
    }
}

#[test]
fn what_cannot_be_asked_is_unknown_and_shown_as_it_was() {
    let now: Timestamp = NOW.parse().unwrap();
    let healthy =
        Status { healthy: true, deploying: None, problems: Vec::new(), services: Vec::new(), nats: None, ..unwell(0) };
    let shown = unknown(
        "local",
        "the supervisor does not answer",
        Some((now, |space| environment(&healthy, now, space))),
        Space::Unlimited,
    );
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[..2],
        ["environment local: UNKNOWN: the supervisor does not answer", "as it was at 2026-11-30T17:00:00Z:"]
    );
    assert!(shown.contains("gateway: http://127.0.0.1:8000"), "{shown}");
}

#[test]
fn ages_are_in_one_unit() {
    let now: Timestamp = NOW.parse().unwrap();
    let ages = [5, 65, 7_300, 200_000].map(|seconds| age(now - jiff::SignedDuration::from_secs(seconds), now));
    assert_eq!(ages, ["5 s", "1 min", "2 h", "2 d"]);
}
