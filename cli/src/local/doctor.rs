//! What the local environment needs of this machine: programs, manifests, ports.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::dir::Dir;
use super::environment::Local;
use super::protocol::Description;
use super::secrets;
use super::taken_ports::{self, TakenPort};
use crate::error::hint;
use crate::nats::locate;
use crate::problem::counted;

/// One thing that the local environment needs.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) ok: bool,
    pub(crate) found: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// Checks everything that `deploy` would need, whether or not the manifests are valid and whatever has become of the state directory.
pub(crate) async fn check(workspace: &Path, local: anyhow::Result<Local>) -> Vec<Finding> {
    let mut findings = vec![
        program("cargo", &["--version"], "install Rust from https://rustup.rs, or run `./scripts/up`"),
        program(
            "cc",
            &["--version"],
            "install a C compiler: `apt-get install build-essential`, or `xcode-select --install` on macOS",
        ),
        nats_server(workspace),
    ];
    match local {
        Ok(local) => {
            findings.push(ok("manifests", counted(local.manifests.services.len(), "service")));
            findings.extend(state(workspace, &local).await);
        }
        Err(error) => {
            let found = first_line(&format!("{error:#}"));
            findings.push(missing("manifests", found, "`natsctl validate` shows all problems"));
        }
    }
    findings
}

/// What is wrong with the state directory, ports that are taken, and secrets without a value. What is as it should be is not worth a line.
async fn state(workspace: &Path, local: &Local) -> Vec<Finding> {
    if let Err(error) = local.refuse_foreign() {
        return vec![damaged("state", &error)];
    }
    let mut findings = Vec::new();
    match local.describe().await {
        Ok(running) => findings.extend(taken_ports(local, &running.unwrap_or_default())),
        // Without it nobody knows whose the ports are.
        Err(error) => findings.push(damaged("supervisor", &error)),
    }
    findings.extend(local.damaged_files(workspace).iter().map(|error| damaged("state", error)));
    match Dir::new(&local.dir) {
        Ok(dir) => {
            let without_value = secrets::missing(&dir, local.manifests.services.values());
            findings.extend(without_value.into_iter().map(|one| missing(&one.what, one.reason, one.hint)));
        }
        Err(error) => findings.push(damaged("state", &error.into())),
    }
    findings
}

fn damaged(what: &str, error: &anyhow::Error) -> Finding {
    let hint = hint(error);
    Finding { what: what.to_owned(), ok: false, found: first_line(&format!("{error:#}")), hint }
}

fn ok(what: &str, found: String) -> Finding {
    Finding { what: what.to_owned(), ok: true, found, hint: None }
}

fn missing(what: &str, found: String, hint: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), ok: false, found, hint: Some(hint.into()) }
}

fn program(name: &str, arguments: &[&str], hint: &str) -> Finding {
    match Command::new(name).args(arguments).output() {
        Ok(output) if output.status.success() => ok(name, first_line(&String::from_utf8_lossy(&output.stdout))),
        Ok(output) => missing(name, first_line(&String::from_utf8_lossy(&output.stderr)), hint),
        Err(error) => missing(name, error.to_string(), hint),
    }
}

fn nats_server(workspace: &Path) -> Finding {
    match locate::locate(workspace) {
        Ok(server) => ok("nats-server", format!("{} in {}", server.version, server.path.display())),
        Err(error) => missing("nats-server", error.to_string(), error.hint()),
    }
}

/// Ports that the environment needs and another process holds. Free ports are not worth a line.
fn taken_ports(local: &Local, running: &Description) -> Vec<Finding> {
    let taken = taken_ports::of_environment(&local.manifests.environment, local.gateway(), running);
    let hint = "stop it, or set another port in the environment's manifest";
    let finding =
        |taken: &TakenPort| missing(&format!("port {}", taken.port), format!("held by {}", taken.held_by()), hint);
    taken.iter().map(finding).collect()
}

/// What a program or natsctl itself says first, without the word for it.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
