//! The shared tier: Redis in cluster mode, over TLS. Each worker has its own connections, on its own runtime.
//!
//! Nothing here may cost a caller more than [`COMMAND_TIMEOUT`]. Commands are sent only while there is a connection and
//! the circuit of their slots is closed; connections are made in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::FutureExt as _;
use prometheus_client::metrics::gauge::Gauge;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, ProtocolVersion, RedisError, ServerErrorKind, TlsCertificates};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::breaker::Breaker;
use super::metrics;
use super::settings::RedisSettings;

/// The longest that a caller waits for a command.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);
/// The timeout of connecting to all nodes, and of commands that nobody waits for.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits before another connection is made: doubled as long as that does not help.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);
const RECONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A connection that lasted this long has helped.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Commands in the background at the same time. What exceeds them is not written: a cache may forget.
const BACKGROUND_COMMANDS: usize = 64;
/// The circuit of one group of slots opens after this many consecutive failures, so that a shard that fails over does not
/// keep callers from the others.
const PART_OPENS_AFTER: u32 = 2;
/// The circuit of the whole cluster opens after this many.
const WHOLE_OPENS_AFTER: u32 = 4;
const SLOTS: u16 = 16_384;
/// Groups of consecutive slots.
const PARTS: u16 = 64;

/// Why a command had no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was not sent: there is no connection, or the circuit is open.
    Unavailable,
    /// It was not sent: too much is being written.
    Busy,
    Timeout,
    /// The connection failed, or the cluster does not serve the slot.
    Connection,
    /// User, password or rights.
    Denied,
    OutOfMemory,
    /// Another kind of value is there, or one that is no entry of this cache.
    Foreign,
    /// Any other answer.
    Other,
}

impl Failure {
    /// The label `reason` of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Denied => "denied",
            Self::OutOfMemory => "out_of_memory",
            Self::Foreign => "foreign",
            Self::Other => "other",
        }
    }

    /// Whether the node that was asked works.
    fn is_answer(self) -> bool {
        matches!(self, Self::OutOfMemory | Self::Foreign | Self::Other)
    }
}

impl From<&RedisError> for Failure {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (_, Some("OOM")) => Self::OutOfMemory,
            (_, Some("WRONGTYPE")) | (ErrorKind::UnexpectedReturnType, _) => Self::Foreign,
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Denied,
            _ if error.is_timeout() => Self::Timeout,
            _ if error.is_io_error() || error.is_cluster_error() || error.is_unrecoverable_error() => Self::Connection,
            (ErrorKind::ClusterConnectionNotFound | ErrorKind::Server(_), _) => Self::Connection,
            _ => Self::Other,
        }
    }
}

/// One worker's connections to the cluster.
#[derive(Debug)]
pub(crate) struct Redis {
    link: Arc<Link>,
    background: Arc<Semaphore>,
    connector: JoinHandle<()>,
}

#[derive(Debug)]
struct Link {
    connection: ArcSwapOption<Connected>,
    whole: Breaker,
    parts: Vec<Breaker>,
    /// Notified when a circuit opens or a trial fails: another connection may help.
    troubled: Notify,
}

/// A connection, counted as long as it is used.
struct Connected {
    connection: ClusterConnection,
    count: Gauge,
}

impl Connected {
    fn new(connection: ClusterConnection) -> Self {
        let count = metrics::connected_workers();
        count.inc();
        Self { connection, count }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.count.dec();
    }
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connected")
    }
}

impl Redis {
    /// Connects in the background, on the current runtime, until it is dropped.
    pub(crate) fn start(settings: RedisSettings) -> Self {
        let link = Arc::new(Link {
            connection: ArcSwapOption::empty(),
            whole: Breaker::new(WHOLE_OPENS_AFTER),
            parts: (0..PARTS).map(|_| Breaker::new(PART_OPENS_AFTER)).collect(),
            troubled: Notify::new(),
        });
        let connector = tokio::spawn(keep_connected(settings, Arc::clone(&link)));
        Self { link, background: Arc::new(Semaphore::new(BACKGROUND_COMMANDS)), connector }
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.link.connection.load().is_some()
    }

    /// Sends a command about `key` that a caller waits for.
    pub(crate) async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, Failure> {
        self.link.query(key, command, COMMAND_TIMEOUT).await
    }

    /// Sends a command about `key` that nobody waits for, and passes its result to `then`.
    pub(crate) fn send(&self, key: String, command: Cmd, then: impl FnOnce(Result<(), Failure>) + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else {
            return then(Err(Failure::Busy));
        };
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            then(link.query(&key, &command, BACKGROUND_TIMEOUT).await);
            drop(permit);
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.connector.abort();
    }
}

impl Link {
    async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd, within: Duration) -> Result<T, Failure> {
        let part = &self.parts[usize::from(slot(key) / (SLOTS / PARTS))];
        let now = Instant::now();
        let connected = self.connection.load_full().filter(|_| self.whole.allows(now) && part.allows(now));
        let mut connection = connected.ok_or(Failure::Unavailable)?.connection.clone();
        // The library's own timeouts do not cover everything that it waits for.
        let result = match timeout(within, command.query_async(&mut connection)).await {
            Ok(result) => result.map_err(|error| (Failure::from(&error), Some(error))),
            Err(_) => Err((Failure::Timeout, None)),
        };
        match &result {
            Err((failure, error)) if !failure.is_answer() => {
                let now = Instant::now();
                if part.failed(now) | self.whole.failed(now) {
                    tracing::debug!(reason = failure.name(), ?error, "Redis is left alone for a moment");
                    self.troubled.notify_one();
                }
            }
            _ => {
                part.succeeded();
                self.whole.succeeded();
            }
        }
        result.map_err(|(failure, _)| failure)
    }

    /// Uses another connection. Groups of slots keep their circuits: that of a shard that is down does not close.
    fn replace(&self, connection: ClusterConnection) {
        self.connection.store(Some(Arc::new(Connected::new(connection))));
        self.whole.succeeded();
        // What was noticed of the old connection says nothing about this one.
        let _ = self.troubled.notified().now_or_never();
    }
}

/// Connects, and again whenever commands fail: the library reconnects by itself, but only with the credentials that it
/// was given at first, and not from every state. The old connection is used until there is a new one.
async fn keep_connected(settings: RedisSettings, link: Arc<Link>) {
    let mut wait = RECONNECT_AFTER;
    let mut reported: Option<String> = None;
    loop {
        match timeout(BACKGROUND_TIMEOUT, connect(&settings)).await {
            Ok(Ok(connection)) => {
                if reported.take().is_some() || link.connection.load().is_none() {
                    tracing::info!("connected to Redis");
                }
                link.replace(connection);
                let since = Instant::now();
                link.troubled.notified().await;
                if since.elapsed() >= STABLE_AFTER {
                    wait = RECONNECT_AFTER;
                }
            }
            failed => {
                let reason = match failed {
                    Ok(Err(reason)) => reason,
                    _ => format!("no connection within {} s", BACKGROUND_TIMEOUT.as_secs()),
                };
                // Once for each reason: an outage is one event, and metrics count the rest.
                if reported.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "Redis cannot be used; the cache in the process serves alone");
                    reported = Some(reason);
                }
            }
        }
        tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        wait = (wait * 2).min(RECONNECT_WITHIN);
    }
}

/// One connection, with the credentials of this moment. The error is a sentence.
async fn connect(settings: &RedisSettings) -> Result<ClusterConnection, String> {
    // The process has one TLS provider; another crate may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut client = ClusterClient::builder(settings.urls.iter().map(String::as_str))
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(BACKGROUND_TIMEOUT)
        .response_timeout(BACKGROUND_TIMEOUT)
        // Redirections count as retries.
        .retries(3)
        .min_retry_wait(1)
        .max_retry_wait(10);
    if let Some(username) = &settings.username {
        client = client.username(username.read()?.trim());
    }
    if let Some(password) = &settings.password {
        client = client.password(password.read()?.trim());
    }
    if let Some(ca) = &settings.ca {
        let root_cert = Some(ca.read()?.as_bytes().to_vec());
        client = client.certs(TlsCertificates { client_tls: None, root_cert });
    }
    let client = client.build().map_err(|error| error.to_string())?;
    client.get_async_connection().await.map_err(|error| error.to_string())
}

/// The slot of a key without braces.
fn slot(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(key.as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        for (key, expected) in [("", 0), ("foo", 12182), ("somekey", 11058), ("123456789", 12739)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn without_a_connection_commands_cost_no_time() {
        let settings =
            RedisSettings { urls: vec!["rediss://127.0.0.1:1".to_owned()], ca: None, username: None, password: None };
        let redis = Redis::start(settings);
        let started = Instant::now();
        for _ in 0..1000 {
            let result: Result<Option<String>, Failure> = redis.query("a", redis::cmd("GET").arg("a")).await;
            assert_eq!(result, Err(Failure::Unavailable));
        }
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        assert!(!redis.is_connected());
    }
}
