//! `natsctl env`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::local::cluster_files::OPERATOR;
use crate::local::environment::Local;
use crate::local::protocol::TaskStatus;
use crate::nats::connect::Access;
use crate::screen::{Format, Report};

/// Show how a client connects to the environment
///
/// The credentials are those of an operator, who may ping services, read streams and call every service. The paths of the
/// servers' monitoring cannot be guessed by other users of this machine. On AWS there are no files for operators: `natsctl tunnel nats`
/// forwards a port.
#[derive(Debug, Args)]
pub(crate) struct Env {
    /// In which form; by default as `--output` says
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Form>,
}

/// A form of what a client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Variables, for `eval "$(natsctl env --format shell)"`; the program `nats` and natsctl's examples read them
    Shell,
    /// The same as `--output json`
    Json,
    /// A context of the program `nats`, for `~/.config/nats/context/NAME.json`
    NatsContext,
}

/// How a client connects to an environment.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "natsctl env")]
pub(crate) struct Connection {
    #[serde(skip)]
    environment: String,
    nats: Nats,
    /// Where the servers show health and metrics, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    monitoring: BTreeMap<String, String>,
    /// Where the tasks show their metrics, by service and task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    metrics: BTreeMap<String, BTreeMap<String, String>>,
    gateway: Gateway,
}

/// The NATS servers, and what an operator proves itself by.
#[derive(Debug, Serialize, JsonSchema)]
struct Nats {
    /// Servers, any of which will do.
    urls: Vec<String>,
    /// Paths of files; on AWS there are none.
    #[serde(flatten)]
    files: Option<Files>,
}

/// What an operator proves itself by.
#[derive(Debug, Serialize, JsonSchema)]
struct Files {
    /// Certificate of the authority that signed the servers' certificates.
    ca_file: String,
    /// JWT and seed.
    credentials_file: String,
    /// Certificate of the client.
    client_cert_file: String,
    /// Its private key.
    client_key_file: String,
}

/// Where HTTP clients come in.
#[derive(Debug, Serialize, JsonSchema)]
struct Gateway {
    /// Absent if none runs.
    url: Option<String>,
}

/// A context as the program `nats` reads it.
#[derive(Debug, Serialize, JsonSchema)]
struct NatsContext<'a> {
    description: String,
    url: String,
    creds: &'a str,
    cert: &'a str,
    key: &'a str,
    ca: &'a str,
}

impl Env {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let connection = match invocation.platform().await? {
            Platform::Local(local) => Connection::of_local(&local).await?,
            #[cfg(feature = "aws")]
            Platform::Aws(aws) => Connection::of_aws(&aws),
        };
        let json = || format!("{:#}", serde_json::json!(connection));
        let text = match self.format {
            None if invocation.global.output == Format::Json => String::new(),
            None => connection.text(),
            Some(Form::Json) => json(),
            Some(Form::Shell) => connection.shell(),
            Some(Form::NatsContext) => format!("{:#}", serde_json::json!(connection.context())),
        };
        let report = match self.format {
            Some(Form::NatsContext) => Report::new(&connection.context(), text),
            _ => Report::new(&connection, text),
        };
        Ok(report)
    }
}

impl Connection {
    async fn of_local(local: &Local) -> anyhow::Result<Self> {
        let endpoints = local.endpoints()?;
        let Access { urls, ca_file, credentials_file, client_cert_file, client_key_file } =
            endpoints.of(OPERATOR)?.clone();
        let file = |path: std::path::PathBuf| path.display().to_string();
        let files = Files {
            ca_file: file(ca_file),
            credentials_file: file(credentials_file),
            client_cert_file: file(client_cert_file),
            client_key_file: file(client_key_file),
        };
        Ok(Self {
            environment: local.manifests.name.clone(),
            nats: Nats { urls, files: Some(files) },
            monitoring: endpoints.monitoring,
            metrics: metrics(local).await?,
            gateway: Gateway { url: local.gateway_url().await? },
        })
    }

    #[cfg(feature = "aws")]
    fn of_aws(aws: &crate::aws::Aws) -> Self {
        let nats = &aws.handover.nats;
        Self {
            environment: aws.manifests.name.clone(),
            nats: Nats { urls: vec![format!("tls://{}:{}", nats.host, nats.port)], files: None },
            monitoring: BTreeMap::new(),
            metrics: BTreeMap::new(),
            gateway: Gateway { url: aws.handover.gateway.as_ref().map(|gateway| gateway.url.clone()) },
        }
    }

    fn text(&self) -> String {
        let mut text = format!("NATS     {}\n", self.nats.urls.join(","));
        match &self.nats.files {
            Some(files) => {
                let options = [
                    ("--tlsca  ", &files.ca_file),
                    ("--tlscert", &files.client_cert_file),
                    ("--tlskey ", &files.client_key_file),
                    ("--creds  ", &files.credentials_file),
                ];
                text.extend(options.map(|(option, file)| format!("  {option} {file}\n")));
            }
            None => {
                let environment = &self.environment;
                text.push_str("  inside the network of the environment alone\n");
                // Writing to a string does not fail.
                let _ =
                    writeln!(text, "  `natsctl tunnel nats --env {environment}` forwards a port of this machine to it");
            }
        }
        for (name, url) in &self.monitoring {
            let _ = writeln!(text, "{name}   {url}/varz");
        }
        if let Some(url) = &self.gateway.url {
            let request = r#"--header 'content-type: application/json' --data '{"playerId": "ada", "level": 7}'"#;
            let _ = write!(text, "gateway  {url}\n\ncurl {url}/api/quest/v1/generate {request}");
        }
        text
    }

    /// Assignments for `sh`, `bash` and `zsh`: the variables that the program `nats` reads, and where the gateway is.
    fn shell(&self) -> String {
        let mut variables = vec![("NATS_URL", self.nats.urls.join(","))];
        if let Some(files) = &self.nats.files {
            variables.extend([
                ("NATS_CA", files.ca_file.clone()),
                ("NATS_CERT", files.client_cert_file.clone()),
                ("NATS_KEY", files.client_key_file.clone()),
                ("NATS_CREDS", files.credentials_file.clone()),
            ]);
        }
        variables.extend(self.gateway.url.iter().map(|url| ("GATEWAY_URL", url.clone())));
        // Commands that are typed next are about the same environment.
        variables.push(("NATSCTL_ENV", self.environment.clone()));
        variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect()
    }

    fn context(&self) -> NatsContext<'_> {
        let files = self.nats.files.as_ref();
        NatsContext {
            description: format!("natsctl, environment {}", self.environment),
            url: self.nats.urls.join(","),
            creds: files.map_or("", |files| &files.credentials_file),
            cert: files.map_or("", |files| &files.client_cert_file),
            key: files.map_or("", |files| &files.client_key_file),
            ca: files.map_or("", |files| &files.ca_file),
        }
    }
}

/// Where the tasks of a local environment show their metrics.
async fn metrics(local: &Local) -> anyhow::Result<BTreeMap<String, BTreeMap<String, String>>> {
    let services = local.describe().await?.map(|description| description.services).unwrap_or_default();
    let url = |task: TaskStatus| Some((task.id, format!("http://127.0.0.1:{}/metrics", task.health_port?)));
    Ok(services
        .into_iter()
        .map(|(name, service)| (name, service.tasks.into_iter().filter_map(url).collect()))
        .collect())
}

/// A word of a shell that is this text, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn connection() -> Connection {
        let file = |name: &str| format!("/home/o'neil/a b/$(x)/{name}");
        let files = Files {
            ca_file: file("ca.pem"),
            credentials_file: file("operator.creds"),
            client_cert_file: file("cert.pem"),
            client_key_file: file("key.pem"),
        };
        Connection {
            environment: "local".to_owned(),
            nats: Nats {
                urls: vec!["tls://127.0.0.1:4222".to_owned(), "tls://127.0.0.1:4223".to_owned()],
                files: Some(files),
            },
            monitoring: BTreeMap::new(),
            metrics: BTreeMap::new(),
            gateway: Gateway { url: Some("http://127.0.0.1:8000".to_owned()) },
        }
    }

    #[test]
    fn a_shell_gets_the_values_as_they_are() {
        let script = "eval \"$(cat)\"; printf '%s\\n' \"$NATS_URL\" \"$NATS_CREDS\" \"$GATEWAY_URL\" \"$NATSCTL_ENV\"";
        for shell in ["sh", "bash", "zsh"] {
            let mut command = Command::new(shell);
            let Ok(mut child) = command
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
            else {
                continue;
            };
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), connection().shell().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let lines = "tls://127.0.0.1:4222,tls://127.0.0.1:4223\n/home/o'neil/a b/$(x)/operator.creds\n\
                         http://127.0.0.1:8000\nlocal\n";
            assert_eq!(String::from_utf8(output.stdout).unwrap(), lines, "{shell}");
        }
    }

    #[test]
    fn a_context_has_the_fields_that_nats_reads() {
        let context = serde_json::json!(connection().context());
        let expected = serde_json::json!({
            "description": "natsctl, environment local",
            "url": "tls://127.0.0.1:4222,tls://127.0.0.1:4223",
            "creds": "/home/o'neil/a b/$(x)/operator.creds",
            "cert": "/home/o'neil/a b/$(x)/cert.pem",
            "key": "/home/o'neil/a b/$(x)/key.pem",
            "ca": "/home/o'neil/a b/$(x)/ca.pem",
        });
        assert_eq!(context, expected);
    }
}
