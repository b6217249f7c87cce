//! A machine on which something is missing or in the way.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use natsctl::nats::locate;

use super::fleet::Fleet;
use super::run::{Run, Running};

/// A port that this process holds.
fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn who_holds_a_port_that_is_needed_is_named() {
    let fleet = Fleet::new(1);
    let (_listener, port) = taken();
    let me = format!("(pid {})", std::process::id());

    fleet.environment(1, port, 0);
    let refused = fleet.deploy(&["--all"]).await.ends(1);
    refused.says(&[
        &format!("port {port}, which `nats-1` needs for clients, is held by "),
        &me,
        "hint: ",
        "`client_port`",
    ]);
    let doctor = fleet.run(&["doctor"]).await.ends(1).out;
    assert!(doctor.contains(&format!("port {port}")) && doctor.contains(&me), "{doctor}");

    fleet.environment(1, 0, port);
    let said =
        [&format!("port {port}, which `gateway` needs for HTTP clients, is held by "), &me[..], "`gateway.port`"];
    fleet.plan(&[]).await.ends(1).says(&said);
    fleet.deploy(&["--all"]).await.ends(1).says(&said);
    assert_eq!(fleet.processes().into_values().collect::<Vec<_>>(), Vec::<String>::new(), "nothing was started");
    // What does not need the port is deployed.
    fleet.deploy(&["quest-system"]).await.ends(0);
    fleet.run(&["down"]).await.ends(0);

    fleet.environment(1, 0, 0);
    fleet.deploy(&["--all"]).await.ends(0);
}

async fn deploy_with(fleet: &Fleet, server: &Path) -> Run {
    let binaries = fleet.path("bin").display().to_string();
    let mut command = fleet.command(&["deploy", "--all", "--binaries", &binaries]);
    command.env(locate::VARIABLE, server);
    Running::start(command).ended().await
}

#[tokio::test]
async fn a_nats_server_that_cannot_be_used_is_explained() {
    let fleet = Fleet::new(1);
    let missing = deploy_with(&fleet, &fleet.path("nowhere/nats-server")).await.ends(1);
    missing.says(&["nowhere/nats-server", "hint: ", "`./scripts/up` installs it"]);

    let old = fleet.script("old", "echo 'nats-server: v2.9.25'");
    let refused = deploy_with(&fleet, &old).await.ends(1);
    refused.says(&["is version 2.9.25, and at least 2.12.0 is needed", "hint: ", "`./scripts/up` installs it"]);

    let dying = r#"case "$1" in --version) echo 'nats-server: v2.15.1' ;; -t) ;; *) echo 'the vault is locked' >&2; exit 3 ;; esac"#;
    let dying = fleet.script("dying", dying);
    let failed = deploy_with(&fleet, &dying).await.ends(1);
    failed.says(&["`nats-1` does not start", "exited with code 3", "the vault is locked", "hint: "]);
    fleet.run(&["status"]).await.ends(3);
}

#[tokio::test]
async fn the_doctor_says_what_is_missing_and_where_it_comes_from() {
    let fleet = Fleet::new(1);
    let mut command = fleet.command(&["doctor"]);
    command.env_remove(locate::VARIABLE).env("PATH", fleet.path("empty"));
    let doctor = Running::start(command).ended().await.ends(1).out;
    for text in ["cargo", "https://rustup.rs", "nats-server", "`./scripts/up` installs it", "6 services"] {
        assert!(doctor.contains(text), "`{text}` is missing: {doctor}");
    }
}
