//! What the local environment needs of this machine: programs, manifests, ports.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::environment::Local;
use super::ports;
use super::protocol::{Description, ServiceStatus};
use crate::error::hint;
use crate::manifest::{Environment, LocalEnvironment};
use crate::nats::locate;

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
            findings.push(ok("manifests", format!("{} services", local.manifests.services.len())));
            findings.extend(state(workspace, &local).await);
        }
        Err(error) => {
            let found = first_line(&format!("{error:#}"));
            findings.push(missing("manifests", found, "`natsctl validate` shows all problems"));
        }
    }
    findings
}

/// What is wrong with the state directory, and ports that are taken. What is as it should be is not worth a line.
async fn state(workspace: &Path, local: &Local) -> Vec<Finding> {
    if let Err(error) = local.refuse_foreign() {
        return vec![damaged("state", &error)];
    }
    let mut findings = Vec::new();
    match local.describe().await {
        Ok(running) => findings.extend(taken_ports(&local.manifests.environment, &running.unwrap_or_default())),
        // Without it nobody knows whose the ports are.
        Err(error) => findings.push(damaged("supervisor", &error)),
    }
    findings.extend(local.damaged_files(workspace).iter().map(|error| damaged("state", error)));
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
fn taken_ports(environment: &Environment, running: &Description) -> Vec<Finding> {
    let Environment::Local(LocalEnvironment { nats, gateway }) = environment else {
        return Vec::new();
    };
    let first = [nats.client_port, nats.route_port, nats.monitor_port];
    let stopped = (1..=nats.nodes)
        .filter(|number| !running.nodes.get(&format!("nats-{number}")).is_some_and(|node| node.running));
    let of_nodes = stopped.flat_map(|number| {
        let offset = u16::try_from(number - 1).unwrap_or(u16::MAX);
        first.into_iter().filter(|port| *port != 0).map(move |port| port.saturating_add(offset))
    });
    let listens = |service: &ServiceStatus| service.http.is_some_and(|address| address.port() == gateway.port);
    let of_gateway = Some(gateway.port).filter(|_| !running.services.values().any(listens));
    let taken = of_nodes
        .chain(of_gateway)
        .filter(|port| *port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
    let finding = |port: u16| {
        let holder = ports::holder(port).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
        let hint = "stop it, or set another port in the environment's manifest";
        missing(&format!("port {port}"), format!("held by {holder}"), hint)
    };
    taken.map(finding).collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
