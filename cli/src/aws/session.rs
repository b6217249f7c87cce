//! Sessions of Session Manager: commands in tasks, and tunnels to ports inside the network. natsctl starts a session; AWS'
//! session-manager-plugin makes its connection.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Aws;
use super::error::failed;
use crate::cleanup;
use crate::error::Hinted;
use crate::handover::Handover;

const PLUGIN: &str = "session-manager-plugin";
const INSTALL: &str =
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html";
/// Later versions take the token from a variable, where no other user of this machine sees it.
const TOO_OLD: [u32; 4] = [1, 2, 497, 0];
const RESPONSE: &str = "AWS_SSM_START_SESSION_RESPONSE";
/// How long a tunnel may take to open.
const OPENS: Duration = Duration::from_secs(30);

/// The plugin, which is there and new enough.
pub(crate) struct Plugin(());

/// A session that was started. The token is a secret.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) stream_url: String,
    pub(super) token: String,
}

/// What starts sessions and connects to them.
pub(crate) struct SessionManager<'a> {
    ssm: &'a aws_sdk_ssm::Client,
    region: &'a str,
    plugin: &'a Plugin,
}

/// A port of this machine that is forwarded. Dropping it closes the port, and ends the session when the command has ended.
pub(crate) struct Tunnel {
    ssm: aws_sdk_ssm::Client,
    /// `None` once it was ended.
    session: Option<String>,
    child: Child,
    /// On 127.0.0.1.
    pub(crate) local_port: u16,
    /// The node or task that it goes through.
    pub(crate) through: String,
}

/// What a port is forwarded to.
pub(crate) enum Destination {
    /// A host that the NATS nodes reach.
    Host {
        host: String,
        port: u16,
        /// Names and instances of the nodes; the first one that takes a session is used.
        through: Vec<(String, String)>,
    },
    /// A port of a task, by the target of its session.
    Task { target: String, port: u16 },
}

impl Plugin {
    /// Finds the plugin.
    ///
    /// # Errors
    /// It is missing or too old.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        let output = Command::new(PLUGIN).arg("--version").stdin(Stdio::null()).output().await;
        let hint = format!("install it: {INSTALL}");
        let output =
            output.map_err(|error| Hinted::new(format!("`{PLUGIN}` is not installed"), &*hint).because(error))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let numbers: Vec<u32> = version.split('.').filter_map(|number| number.parse().ok()).collect();
        if numbers.as_slice() > TOO_OLD.as_slice() {
            return Ok(Self(()));
        }
        Err(Hinted::new(format!("`{PLUGIN}` has version `{version}`, which is too old"), hint).into())
    }

    /// The plugin as it connects to a session.
    fn command(&self, region: &str, session: &Session, parameters: &Value) -> Command {
        let session = json!({ "SessionId": session.id, "StreamUrl": session.stream_url, "TokenValue": session.token });
        let mut command = Command::new(PLUGIN);
        command.args(arguments(region, parameters)).env(RESPONSE, session.to_string());
        command
    }
}

/// Arguments of the plugin; in place of the session the name of the variable that holds it.
fn arguments(region: &str, parameters: &Value) -> [OsString; 6] {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = variable("AWS_ENDPOINT_URL_SSM").or_else(|| variable("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://ssm.{region}.{domain}").into());
    let profile = variable("AWS_PROFILE").unwrap_or_default();
    [RESPONSE.into(), region.into(), "StartSession".into(), profile, parameters.to_string().into(), endpoint]
}

impl<'a> SessionManager<'a> {
    pub(crate) fn new(aws: &'a Aws, plugin: &'a Plugin) -> Self {
        Self { ssm: aws.clients.ssm(), region: &aws.handover.region, plugin }
    }

    /// Gives the terminal to a session, and waits until the session has ended.
    pub(super) async fn attach(&self, session: &Session, parameters: &Value) -> anyhow::Result<ExitStatus> {
        let command = self.plugin.command(self.region, session, parameters);
        let mut child = self.spawn(command, session).await?;
        child.wait().await.with_context(|| format!("`{PLUGIN}` was lost"))
    }

    async fn spawn(&self, mut command: Command, session: &Session) -> anyhow::Result<Child> {
        match command.kill_on_drop(true).spawn() {
            Ok(child) => Ok(child),
            Err(error) => {
                end(self.ssm, &session.id).await;
                Err(anyhow::Error::new(error).context(format!("failed to start `{PLUGIN}`")))
            }
        }
    }
}

/// Ends a session, rather than leaving it to its time-out.
async fn end(ssm: &aws_sdk_ssm::Client, session: &str) {
    if let Err(error) = ssm.terminate_session().session_id(session).send().await {
        tracing::info!(session, %error, "the session was not ended");
    }
}

impl Destination {
    /// NATS, through its own nodes.
    pub(crate) fn nats(handover: &Handover) -> Self {
        let nats = &handover.nats;
        let through = nats.nodes.iter().map(|(name, node)| (name.clone(), node.instance.clone())).collect();
        Self::Host { host: nats.host.clone(), port: nats.port, through }
    }

    /// What a session may go through, by name.
    fn targets(&self) -> Vec<(String, String)> {
        match self {
            Self::Task { target, .. } => vec![(target.clone(), target.clone())],
            Self::Host { through, .. } => through.clone(),
        }
    }

    /// Document and parameters of its session.
    fn request(&self, local_port: u16) -> (&'static str, BTreeMap<String, Vec<String>>) {
        let parameter = |name: &str, value: String| (name.to_owned(), vec![value]);
        let local = parameter("localPortNumber", local_port.to_string());
        match self {
            Self::Host { host, port, .. } => {
                let host = parameter("host", host.clone());
                let port = parameter("portNumber", port.to_string());
                ("AWS-StartPortForwardingSessionToRemoteHost", [host, port, local].into())
            }
            Self::Task { port, .. } => {
                ("AWS-StartPortForwardingSession", [parameter("portNumber", port.to_string()), local].into())
            }
        }
    }
}

impl Tunnel {
    /// Forwards a port of this machine: the given one, or one that is free.
    ///
    /// # Errors
    /// A port that is taken; a session that AWS refuses; a tunnel that does not open in time.
    pub(crate) async fn open(
        manager: &SessionManager<'_>,
        to: &Destination,
        local_port: Option<u16>,
    ) -> anyhow::Result<Self> {
        let local_port = free_port(local_port)?;
        let (document, parameters) = to.request(local_port);
        let mut refused = None;
        for (through, target) in to.targets() {
            let call = manager.ssm.start_session().target(&target).document_name(document);
            let call = call.set_parameters(Some(parameters.clone().into_iter().collect()));
            let answer = match call.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::info!(through, "no session");
                    refused = Some(failed(&format!("start a session through `{through}`"), error));
                    continue;
                }
            };
            let session = Session {
                id: answer.session_id.unwrap_or_default(),
                stream_url: answer.stream_url.unwrap_or_default(),
                token: answer.token_value.unwrap_or_default(),
            };
            let request = json!({ "Target": target, "DocumentName": document, "Parameters": parameters });
            let mut command = manager.plugin.command(manager.region, &session, &request);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let child = manager.spawn(command, &session).await?;
            let (ssm, session) = (manager.ssm.clone(), Some(session.id));
            return Self { ssm, session, child, local_port, through }.opened().await;
        }
        Err(refused.unwrap_or_else(|| Hinted::new("the handover names no NATS node", "`terraform apply`").into()))
    }

    /// Waits until it takes connections.
    async fn opened(mut self) -> anyhow::Result<Self> {
        match timeout(OPENS, self.wait_until_open()).await {
            Ok(Ok(())) => Ok(self),
            outcome => {
                let hint = "the node or task must run the SSM agent and reach Systems Manager; `-v` shows more";
                let reason = match outcome {
                    Ok(Err(error)) => error.to_string(),
                    _ => "not in time".to_owned(),
                };
                let message = format!("the tunnel through `{}` did not open: {reason}", self.through);
                self.close().await;
                Err(Hinted::new(message, hint).into())
            }
        }
    }

    async fn wait_until_open(&mut self) -> anyhow::Result<()> {
        let out = self.child.stdout.take().context("its output is not read")?;
        let mut lines = BufReader::new(out).lines();
        let mut last = String::new();
        while let Some(line) = lines.next_line().await? {
            if line.contains("Waiting for connections") {
                // It writes a line for each connection, and would block on a full pipe.
                tokio::spawn(async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} });
                return Ok(());
            }
            last = if line.trim().is_empty() { last } else { line };
        }
        anyhow::bail!("`{PLUGIN}` has ended: {last}")
    }

    /// Waits until the plugin has ended, which closes the tunnel.
    pub(crate) async fn closed(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await.with_context(|| format!("`{PLUGIN}` was lost"))?;
        let hint = "the session has a time-out; open it again";
        Err(Hinted::new(format!("the tunnel has closed: `{PLUGIN}` has ended ({status})"), hint).into())
    }

    /// Closes the port, and ends the session.
    pub(crate) async fn close(mut self) {
        let _ = self.child.kill().await;
        if let Some(session) = self.session.take() {
            end(&self.ssm, &session).await;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let ssm = self.ssm.clone();
        if let Some(session) = self.session.take() {
            cleanup::leave(async move { end(&ssm, &session).await });
        }
    }
}

fn free_port(wanted: Option<u16>) -> anyhow::Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0)));
    let listener = bound.map_err(|error| {
        let message = format!("port {} of this machine cannot be used", wanted.unwrap_or(0));
        Hinted::new(message, "name another one, or none").because(error)
    })?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_no_argument() {
        let parameters = json!({ "Target": "i-1" });
        let arguments = arguments("us-east-1", &parameters).map(|argument| argument.into_string().unwrap());
        assert_eq!(arguments[..3], [RESPONSE, "us-east-1", "StartSession"]);
        assert_eq!(arguments[4], r#"{"Target":"i-1"}"#);
    }

    #[test]
    fn a_tunnel_to_a_host_names_it_and_one_to_a_task_does_not() {
        let (document, parameters) =
            Destination::Host { host: "nats.internal".to_owned(), port: 4222, through: Vec::new() }.request(5000);
        assert_eq!(document, "AWS-StartPortForwardingSessionToRemoteHost");
        assert_eq!(
            json!(parameters),
            json!({ "host": ["nats.internal"], "portNumber": ["4222"], "localPortNumber": ["5000"] })
        );
        let (document, parameters) = Destination::Task { target: "ecs:c_t_r".to_owned(), port: 8080 }.request(5000);
        assert_eq!(document, "AWS-StartPortForwardingSession");
        assert_eq!(json!(parameters), json!({ "portNumber": ["8080"], "localPortNumber": ["5000"] }));
    }
}
