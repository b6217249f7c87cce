//! `natsctl doctor`

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use clap::Args;
use serde::Serialize;

use crate::commands::invocation::Invocation;
use crate::local::ports;
use crate::local::protocol::{Description, ServiceStatus};
use crate::manifest::{Environment, LocalEnvironment};
use crate::nats::locate;
use crate::screen::{FAILED, Report, table};

/// Find out what is missing on this machine, and how to install it.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// One thing that the local environment needs.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Doctor {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let workspace = invocation.workspace()?;
        let mut findings = vec![
            program("cargo", &["--version"], "install Rust from https://rustup.rs, or run `./scripts/up`"),
            program(
                "cc",
                &["--version"],
                "install a C compiler: `apt-get install build-essential`, or `xcode-select --install` on macOS",
            ),
            nats_server(&workspace),
        ];
        match invocation.local() {
            Ok(local) => {
                findings.push(ok("manifests", format!("{} services", local.manifests.services.len())));
                let own = local.describe().await?.unwrap_or_default();
                findings.extend(taken_ports(&local.manifests.environment, &own));
            }
            Err(error) => {
                let hint = Some("`natsctl validate` shows all problems".to_owned());
                findings.push(Finding {
                    what: "manifests".to_owned(),
                    ok: false,
                    found: first_line(&format!("{error:#}")),
                    hint,
                });
            }
        }
        let rows = findings.iter().map(|finding| {
            let verdict = if finding.ok { "ok" } else { "MISSING" };
            vec![
                finding.what.clone(),
                verdict.to_owned(),
                finding.found.clone(),
                finding.hint.clone().unwrap_or_default(),
            ]
        });
        let text = table(&["what", "", "found", "how to mend it"], rows);
        let healthy = findings.iter().all(|finding| finding.ok);
        Ok(Report::new(&findings, text).code(if healthy { 0 } else { FAILED }))
    }
}

fn ok(what: &str, found: String) -> Finding {
    Finding { what: what.to_owned(), ok: true, found, hint: None }
}

fn program(name: &str, arguments: &[&str], hint: &str) -> Finding {
    match Command::new(name).args(arguments).output() {
        Ok(output) if output.status.success() => ok(name, first_line(&String::from_utf8_lossy(&output.stdout))),
        Ok(output) => Finding {
            what: name.to_owned(),
            ok: false,
            found: first_line(&String::from_utf8_lossy(&output.stderr)),
            hint: Some(hint.to_owned()),
        },
        Err(error) => {
            Finding { what: name.to_owned(), ok: false, found: error.to_string(), hint: Some(hint.to_owned()) }
        }
    }
}

fn nats_server(workspace: &Path) -> Finding {
    match locate::locate(workspace) {
        Ok(server) => ok("nats-server", format!("{} in {}", server.version, server.path.display())),
        Err(error) => {
            Finding { what: "nats-server".to_owned(), ok: false, found: error.to_string(), hint: Some(error.hint()) }
        }
    }
}

/// Ports that the environment needs and somebody else has; nothing is worth telling of the others.
fn taken_ports(environment: &Environment, own: &Description) -> Vec<Finding> {
    let Environment::Local(LocalEnvironment { nats, gateway }) = environment else {
        return Vec::new();
    };
    let first = [nats.client_port, nats.route_port, nats.monitor_port];
    let stopped =
        (1..=nats.nodes).filter(|number| !own.nodes.get(&format!("nats-{number}")).is_some_and(|node| node.running));
    let of_nodes = stopped.flat_map(|number| {
        let offset = u16::try_from(number - 1).unwrap_or(u16::MAX);
        first.into_iter().filter(|port| *port != 0).map(move |port| port.saturating_add(offset))
    });
    let listens = |service: &ServiceStatus| service.http.is_some_and(|address| address.port() == gateway.port);
    let of_gateway = Some(gateway.port).filter(|_| !own.services.values().any(listens));
    let taken = of_nodes
        .chain(of_gateway)
        .filter(|port| *port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
    let finding = |port: u16| Finding {
        what: format!("port {port}"),
        ok: false,
        found: ports::holder(port)
            .map_or_else(|| "held by another process".to_owned(), |holder| format!("held by {holder}")),
        hint: Some("stop it, or set another port in the environment's manifest".to_owned()),
    };
    taken.map(finding).collect()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
