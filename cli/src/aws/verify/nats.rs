//! Whether NATS can be reached from here, or by which other route.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Finding;
use crate::aws::Aws;

/// How long a server in the same network may take.
const REACHED_WITHIN: Duration = Duration::from_secs(2);
/// The program that connects to sessions.
const PLUGIN: &str = "session-manager-plugin";

pub(super) async fn check(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let nats = &aws.handover.nats;
    let address = format!("{}:{}", nats.host, nats.port);
    let greeting = timeout(REACHED_WITHIN, greeting(&address)).await;
    let has_plugin =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| has(&folder)));
    Ok(vec![judge(&address, greeting.ok().and_then(Result::ok).as_deref(), has_plugin)])
}

/// The INFO line, with which a NATS server greets its clients.
async fn greeting(address: &str) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect(address).await?).read_line(&mut line).await?;
    Ok(line)
}

pub(super) fn judge(address: &str, greeting: Option<&str>, has_plugin: bool) -> Finding {
    let what = format!("NATS at `{address}`");
    let Some(greeting) = greeting else {
        let hint = if has_plugin {
            "`natsctl tunnel nats` reaches it through Session Manager; `deploy` does so by itself"
        } else {
            "`deploy` asks it by a task in the cluster; with session-manager-plugin it would ask through a tunnel"
        };
        return Finding::note(what, "not reached from here", hint);
    };
    let info = greeting.strip_prefix("INFO ").and_then(|json| serde_json::from_str::<Value>(json).ok());
    match info {
        Some(info) if info["tls_required"] == true => {
            let version = info["version"].as_str().unwrap_or("without a version").to_owned();
            Finding::ok(what, format!("nats-server {version}, TLS required"))
        }
        Some(_) => {
            let hint = "its configuration lacks TLS; clients would be refused, or could be intercepted";
            Finding::missing(what, "does not require TLS", hint)
        }
        None => {
            Finding::missing(what, "what answers is no nats-server", "see `nats.host` and `nats.port` of the handover")
        }
    }
}

fn has(folder: &Path) -> bool {
    folder.join(PLUGIN).is_file()
}
