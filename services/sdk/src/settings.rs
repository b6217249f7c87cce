//! The settings of a task, read from environment variables. natsctl sets them, locally and on ECS.

use std::env::{self, VarError};
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::cache::{Caches, RedisSettings, parse_caches};
use crate::identity::TaskIdentity;
use crate::material::{FilesDigest, Material, files_digest};

/// The wait before an event is handled again where no backoff is set.
const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);

/// How to connect to NATS. Certificates, keys and credentials are in a variable, or in the file that the variable with
/// the suffix `_FILE` names.
#[derive(Clone, Debug, Default)]
pub struct ConnectionSettings {
    /// `NATS_URLS`, separated by commas, for example `tls://127.0.0.1:4222`.
    pub urls: Vec<String>,
    /// `NATS_CA` or `NATS_CA_FILE`: the CA certificate of the servers.
    pub ca: Option<Material>,
    /// `NATS_CERT` and `NATS_KEY`, or `NATS_CERT_FILE` and `NATS_KEY_FILE`: this service's certificate.
    pub client_certificate: Option<(Material, Material)>,
    /// `NATS_CREDS` or `NATS_CREDS_FILE`: the credentials of this service's user.
    pub credentials: Option<Material>,
    /// User and password instead of credentials, in tests.
    pub user: Option<(String, String)>,
}

impl ConnectionSettings {
    /// The digest of all files that a connection is made with; `None` if there are none.
    pub(crate) fn files_digest(&self) -> Option<FilesDigest> {
        let certificate = self.client_certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        files_digest(self.ca.iter().chain(certificate).chain(&self.credentials))
    }
}

/// The settings of a task.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SERVICE_NAME`, for example `quest-system`.
    pub service: String,
    /// `SERVICE_VERSION`, as reported on the bus; a semantic version.
    pub version: String,
    /// `SERVICE_REVISION`, as reported on the bus; on ECS the revision of the task definition.
    pub revision: String,
    /// `TASK_ID`, as reported on the bus; on ECS the last part of the task's ARN.
    pub task: String,
    /// `WORKERS`: threads, each with its own connection; 1 if absent.
    pub workers: usize,
    /// `CONCURRENCY`: requests that one worker handles at the same time; 100 if absent.
    pub concurrency: usize,
    /// `REQUEST_QUEUE`: requests that may be queued in one worker; 1000 if absent.
    pub queue: usize,
    /// `CALL_TIMEOUT_MS`: the timeout of calls outside of a request; 5 s if absent.
    pub call_timeout: Duration,
    /// `STOP_TIMEOUT_MS`: how long running requests may take after SIGTERM; 25 s if absent.
    pub stop_timeout: Duration,
    /// `SERVICE_CACHES`, and `REDIS_URLS` and others: the caches that the manifest declares, in the process alone without Redis.
    pub caches: Caches,
    /// How to connect to NATS.
    pub connection: ConnectionSettings,
    /// `NATS_CONSUMERS`: what the manifest consumes; nothing if absent.
    pub consumers: Vec<ConsumerSettings>,
    /// `SERVICE_CALLS`: the packages of the services that the manifest calls, with commas between them; none if absent.
    pub calls: Vec<String>,
}

/// An event that the manifest consumes, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsumerSettings {
    /// Subject of the event, for example `evt.ai.model.selected.v1`.
    pub event: String,
    /// The stream that stores it.
    pub stream: String,
    /// The consumer that the tasks of the service share; `None` if every task gets each event.
    #[serde(default)]
    pub durable: Option<String>,
    /// How often an event is handled at most.
    pub max_deliveries: u32,
    /// How long to wait before it is handled again: after the first time, the second and so on; the last one from then on.
    #[serde(rename = "backoff_ms", deserialize_with = "many_milliseconds")]
    pub backoff: Vec<Duration>,
    /// How long handling it may take.
    #[serde(rename = "timeout_ms", deserialize_with = "milliseconds")]
    pub timeout: Duration,
    /// The server gives an event to another task after hearing nothing of it for this long.
    #[serde(rename = "ack_wait_ms", deserialize_with = "milliseconds")]
    pub ack_wait: Duration,
    /// Whether an event is handled only after all earlier ones.
    #[serde(default)]
    pub ordered: bool,
}

/// Who gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One task of the service.
    Shared,
    /// Every task of the service.
    EveryTask,
}

impl ConsumerSettings {
    /// Who gets the event.
    pub fn delivery(&self) -> Delivery {
        if self.durable.is_some() { Delivery::Shared } else { Delivery::EveryTask }
    }

    /// How long to wait before an event is handled again that was handled `attempts` times: with jitter, so that events that
    /// failed together do not come again together.
    pub(crate) fn delay_after(&self, attempts: u32) -> Duration {
        let index = (attempts.max(1) as usize - 1).min(self.backoff.len().saturating_sub(1));
        let delay = self.backoff.get(index).copied().unwrap_or(DEFAULT_BACKOFF);
        delay.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

impl Delivery {
    /// The method of [`crate::Service`] that asks for it.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Shared => "on",
            Self::EveryTask => "on_every_task",
        }
    }
}

impl Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::EveryTask => "every_task",
        })
    }
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

fn many_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    Vec::deserialize(deserializer).map(|all: Vec<u64>| all.into_iter().map(Duration::from_millis).collect())
}

impl Settings {
    /// Reads the environment variables; on ECS, also the task metadata endpoint.
    ///
    /// # Errors
    /// A sentence that names the variable.
    pub fn from_env() -> Result<Self, String> {
        Self::read(&Variables(&|name| env::var(name)))
    }

    fn read(variables: &Variables<'_>) -> Result<Self, String> {
        let connection = variables.connection()?;
        let identity =
            TaskIdentity { task: variables.optional("TASK_ID")?, revision: variables.optional("SERVICE_REVISION")? };
        let endpoint: Option<String> = variables.optional("ECS_CONTAINER_METADATA_URI_V4")?;
        let identity = identity.complete(endpoint.as_deref());
        let milliseconds = |name: &str, default: u64| {
            variables.optional(name).map(|value| Duration::from_millis(value.unwrap_or(default)))
        };
        Ok(Self {
            service: variables.required("SERVICE_NAME")?,
            version: variables.optional("SERVICE_VERSION")?.unwrap_or_else(|| "0.0.0".to_owned()),
            revision: identity.revision.unwrap_or_else(|| "0".to_owned()),
            task: identity.task.unwrap_or_else(|| std::process::id().to_string()),
            workers: variables.positive("WORKERS", 1)?,
            concurrency: variables.positive("CONCURRENCY", 100)?,
            queue: variables.optional("REQUEST_QUEUE")?.unwrap_or(1000),
            call_timeout: milliseconds("CALL_TIMEOUT_MS", 5_000)?,
            stop_timeout: milliseconds("STOP_TIMEOUT_MS", 25_000)?,
            caches: variables.caches()?,
            connection,
            consumers: variables.consumers()?,
            calls: variables.calls()?,
        })
    }

    /// Settings for tests and benchmarks: service `name` on one server, everything else as by default.
    pub fn for_service(name: &str, connection: ConnectionSettings) -> Self {
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
            caches: Caches::default(),
            connection,
            consumers: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The prefix of this service's inbox subjects. No other service may subscribe to them.
    pub(crate) fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.service)
    }

    /// Where callers of its streams grant credit. Not its inbox, so that no caller can forge an answer to it.
    pub(crate) fn control_prefix(&self) -> String {
        format!("_STREAM_{}", self.service)
    }
}

/// The source of the variables.
struct Variables<'a>(&'a dyn Fn(&str) -> Result<String, VarError>);

impl Variables<'_> {
    fn connection(&self) -> Result<ConnectionSettings, String> {
        let urls = self.required("NATS_URLS")?;
        let client_certificate = match (self.material("NATS_CERT")?, self.material("NATS_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                return Err(format!("{one} is set alone: a certificate needs its key (`NATS_CERT`, `NATS_KEY`)"));
            }
        };
        Ok(ConnectionSettings {
            urls: urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect(),
            ca: self.material("NATS_CA")?,
            client_certificate,
            credentials: self.material("NATS_CREDS")?,
            user: None,
        })
    }

    fn caches(&self) -> Result<Caches, String> {
        let declared = self.optional::<String>("SERVICE_CACHES")?.map(|text| parse_caches(&text)).transpose()?;
        let urls = self.optional::<String>("REDIS_URLS")?.map(|text| RedisSettings::parse_urls(&text)).transpose()?;
        let redis = match urls {
            None => None,
            Some(urls) => Some(RedisSettings {
                urls,
                ca: self.material("REDIS_CA")?,
                username: self.material("REDIS_USERNAME")?,
                password: self.material("REDIS_PASSWORD")?,
            }),
        };
        Ok(Caches::new(declared.unwrap_or_default(), redis))
    }

    fn consumers(&self) -> Result<Vec<ConsumerSettings>, String> {
        let Some(text) = self.optional::<String>("NATS_CONSUMERS")? else {
            return Ok(Vec::new());
        };
        serde_json::from_str(&text)
            .map_err(|error| format!("environment variable `NATS_CONSUMERS` is not valid: {error}"))
    }

    fn calls(&self) -> Result<Vec<String>, String> {
        let packages = self.optional::<String>("SERVICE_CALLS")?.unwrap_or_default();
        let packages: Vec<String> =
            packages.split(',').filter(|package| !package.is_empty()).map(str::to_owned).collect();
        let is_known = |package: &&String| proto::SERVICES.iter().any(|service| service.package == **package);
        match packages.iter().find(|package| !is_known(package)) {
            Some(unknown) => Err(format!(
                "environment variable `SERVICE_CALLS` names `{unknown}`, which is not a package of any contract"
            )),
            None => Ok(packages),
        }
    }

    /// The text of this variable, or the file that the variable with the suffix `_FILE` names.
    fn material(&self, variable: &'static str) -> Result<Option<Material>, String> {
        let file = format!("{variable}_FILE");
        let path: Option<PathBuf> = self.optional(&file)?;
        match (self.optional::<String>(variable)?, path) {
            (Some(_), Some(_)) => {
                Err(format!("environment variables `{variable}` and `{file}` are both set: set only one of them"))
            }
            (Some(text), None) => Ok(Some(Material::Text { variable, text: text.into() })),
            (None, path) => Ok(path.map(Material::File)),
        }
    }

    fn required(&self, name: &str) -> Result<String, String> {
        self.optional(name)?.ok_or_else(|| format!("environment variable `{name}` is not set"))
    }

    fn positive(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.optional(name)? {
            Some(0) => Err(format!("environment variable `{name}` must be above 0")),
            Some(value) => Ok(value),
            None => Ok(default),
        }
    }

    fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        match (self.0)(name) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => {
                let parsed = value.parse();
                parsed.map(Some).map_err(|error| format!("environment variable `{name}` is `{value}`: {error}"))
            }
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(format!("environment variable `{name}` is not UTF-8")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, String> {
        let always = [("NATS_URLS", "tls://one:4222, tls://two:4222"), ("SERVICE_NAME", "quest-system")];
        Settings::read(&Variables(&|name| {
            let found = set.iter().chain(&always).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        }))
    }

    #[test]
    fn material_is_read_from_variables_or_files() {
        let connection = read(&[("NATS_CA", "pem"), ("NATS_CREDS_FILE", "/a/creds")]).unwrap().connection;
        assert_eq!(connection.urls, ["tls://one:4222", "tls://two:4222"]);
        assert!(matches!(connection.ca, Some(Material::Text { variable: "NATS_CA", text }) if &*text == "pem"));
        assert_eq!(connection.credentials.unwrap().file().unwrap(), &PathBuf::from("/a/creds"));
        assert!(connection.client_certificate.is_none());
    }

    #[test]
    fn contradictory_variables_are_refused_without_showing_their_text() {
        let refused = |set: &[(&str, &str)]| read(set).unwrap_err();
        assert_eq!(
            refused(&[("NATS_CA", "secret"), ("NATS_CA_FILE", "/ca")]),
            "environment variables `NATS_CA` and `NATS_CA_FILE` are both set: set only one of them"
        );
        assert_eq!(
            refused(&[("NATS_KEY", "secret")]),
            "environment variable `NATS_KEY` is set alone: a certificate needs its key (`NATS_CERT`, `NATS_KEY`)"
        );
    }

    #[test]
    fn packages_that_are_called_are_those_of_contracts() {
        let calls = |text| read(&[("SERVICE_CALLS", text)]).map(|settings| settings.calls);
        assert_eq!(calls("quest.v1,payment.v1").unwrap(), ["quest.v1", "payment.v1"]);
        assert!(calls("").unwrap().is_empty());
        assert_eq!(
            calls("quests").unwrap_err(),
            "environment variable `SERVICE_CALLS` names `quests`, which is not a package of any contract"
        );
    }

    #[test]
    fn settings_do_not_show_secrets() {
        let nats = [("NATS_CREDS", "secret"), ("NATS_CERT", "secret"), ("NATS_KEY", "secret"), ("NATS_CA", "secret")];
        let redis = [("REDIS_URLS", "rediss://cache:6379"), ("REDIS_USERNAME", "me"), ("REDIS_PASSWORD", "secret")];
        let settings = format!("{:?}", read(&[&nats[..], &redis].concat()).unwrap());
        assert!(settings.contains("rediss://cache:6379") && !settings.contains("secret"), "{settings}");
    }
}
