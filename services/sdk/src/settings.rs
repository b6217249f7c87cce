//! What a task is told by its environment variables. natsctl sets them, locally as on ECS.

use std::env::{self, VarError};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How to reach NATS.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// `NATS_URLS`, separated by commas, for example `tls://127.0.0.1:4222`.
    pub urls: Vec<String>,
    /// `NATS_CA_FILE`: who signs the servers' certificates.
    pub ca_file: Option<PathBuf>,
    /// `NATS_CERT_FILE` and `NATS_KEY_FILE`: this service's certificate.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `NATS_CREDS_FILE`: this service's user.
    pub credentials_file: Option<PathBuf>,
    /// User and password in the place of credentials, in tests.
    pub user: Option<(String, String)>,
}

/// Everything a task is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SERVICE_NAME`, for example `quest-system`.
    pub service: String,
    /// `SERVICE_VERSION`, as reported on the bus; a semantic version.
    pub version: String,
    /// `SERVICE_REVISION`, as reported on the bus.
    pub revision: String,
    /// `TASK_ID`, as reported on the bus.
    pub task: String,
    /// `WORKERS`: threads, each with its own connection; 1 if absent.
    pub workers: usize,
    /// `CONCURRENCY`: requests that one worker handles at the same time; 100 if absent.
    pub concurrency: usize,
    /// `REQUEST_QUEUE`: requests that may wait in one worker; 1000 if absent.
    pub queue: usize,
    /// `CALL_TIMEOUT_MS`: for calls that no request set a deadline for; 5 s if absent.
    pub call_timeout: Duration,
    /// `STOP_TIMEOUT_MS`: for finishing what was begun; 25 s if absent.
    pub stop_timeout: Duration,
    /// How to reach NATS.
    pub link: Link,
}

impl Settings {
    /// Reads the environment variables.
    ///
    /// # Errors
    /// One sentence that names the variable.
    pub fn from_env() -> Result<Self, String> {
        let link = Link {
            urls: required("NATS_URLS")?
                .split(',')
                .map(|url| url.trim().to_owned())
                .filter(|url| !url.is_empty())
                .collect(),
            ca_file: optional("NATS_CA_FILE")?,
            client_certificate: optional("NATS_CERT_FILE")?.zip(optional("NATS_KEY_FILE")?),
            credentials_file: optional("NATS_CREDS_FILE")?,
            user: None,
        };
        Ok(Self {
            service: required("SERVICE_NAME")?,
            version: optional("SERVICE_VERSION")?.unwrap_or_else(|| "0.0.0".to_owned()),
            revision: optional("SERVICE_REVISION")?.unwrap_or_else(|| "0".to_owned()),
            task: optional("TASK_ID")?.unwrap_or_else(|| std::process::id().to_string()),
            workers: positive("WORKERS", 1)?,
            concurrency: positive("CONCURRENCY", 100)?,
            queue: optional("REQUEST_QUEUE")?.unwrap_or(1000),
            call_timeout: Duration::from_millis(optional("CALL_TIMEOUT_MS")?.unwrap_or(5_000)),
            stop_timeout: Duration::from_millis(optional("STOP_TIMEOUT_MS")?.unwrap_or(25_000)),
            link,
        })
    }

    /// Settings for tests and benchmarks: service `name` on one server, everything else as by default.
    pub fn for_service(name: &str, link: Link) -> Self {
        Self {
            service: name.to_owned(),
            version: "0.0.0".to_owned(),
            revision: "0".to_owned(),
            task: "1".to_owned(),
            workers: 1,
            concurrency: 100,
            queue: 1000,
            call_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_secs(25),
            link,
        }
    }

    /// What the inbox subjects of this service start with. Only it may subscribe to them.
    pub(crate) fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.service)
    }
}

fn required(name: &str) -> Result<String, String> {
    optional(name)?.ok_or_else(|| format!("environment variable `{name}` is not set"))
}

fn positive(name: &str, default: usize) -> Result<usize, String> {
    match optional(name)? {
        Some(0) => Err(format!("environment variable `{name}` must be above 0")),
        Some(value) => Ok(value),
        None => Ok(default),
    }
}

fn optional<T: FromStr<Err: Display>>(name: &str) -> Result<Option<T>, String> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => {
            let parsed = value.parse();
            parsed.map(Some).map_err(|error| format!("environment variable `{name}` is `{value}`: {error}"))
        }
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("environment variable `{name}` is not UTF-8")),
    }
}
