//! A worker's handle to the fleet. It stays valid when the NATS connection behind it is replaced.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use prost::Message;
use proto::rpc::{Channel, Error};
use tokio::sync::{mpsc, watch};

use crate::bucket::Bucket;
use crate::cache::{Cache, Redis};
use crate::connection::{ConnectError, Connection, ConnectionEvent};
use crate::destination::Destinations;
use crate::discovery;
use crate::health::{self, WorkerHealth};
use crate::settings::Settings;

/// Clients move off a server within this time after its lame-duck notice; the server's grace period is longer.
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// The delay between two attempts to connect to a server.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// One worker's connection to the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    connection: ArcSwap<Connection>,
    /// Counts the replaced connections; a serving worker resubscribes when it changes.
    connection_changes: watch::Sender<u64>,
    destinations: Destinations,
    /// This worker's connections to the shared tier of its caches, once it has opened one.
    redis: OnceLock<Option<Arc<Redis>>>,
    /// Absent in tests, where the worker does not belong to a task.
    health: OnceLock<Arc<WorkerHealth>>,
}

impl Fleet {
    /// Connects, and retries as long as NATS cannot be reached.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if NATS rejects this service's credentials.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        loop {
            let (events, lame_ducks) = mpsc::unbounded_channel();
            match Connection::connect(&settings, events).await {
                Ok(connection) => {
                    let inner = Inner {
                        destinations: Destinations::new(&settings.service),
                        settings,
                        connection: ArcSwap::new(connection),
                        connection_changes: watch::Sender::new(0),
                        redis: OnceLock::new(),
                        health: OnceLock::new(),
                    };
                    let fleet = Self(Arc::new(inner));
                    tokio::spawn(follow_lame_duck_notices(Arc::downgrade(&fleet.0), lame_ducks));
                    return Ok(fleet);
                }
                Err(error @ ConnectError::Refused(_)) => return Err(Error::failed_precondition(error)),
                Err(error @ ConnectError::Unreachable(_)) => {
                    tracing::warn!(%error, "retrying");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// A client of another service, for example `fleet.client::<ModelManagementClient>()`.
    pub fn client<C: From<Channel>>(&self) -> C {
        C::from(Channel::new(self.clone()))
    }

    /// A key-value bucket. natsctl creates it from this service's manifest.
    ///
    /// # Errors
    /// UNAVAILABLE if there is no such bucket.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let bucket = Bucket::new(self.clone(), name);
        self.connection().store(name).await?;
        Ok(bucket)
    }

    /// A cache that this service's manifest declares. All workers of a task share what it holds in the process.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if the manifest declares no such cache.
    pub fn cache<V: Message + Default>(&self, name: &str) -> Result<Cache<V>, Error> {
        let settings = &self.0.settings;
        let redis = self.0.redis.get_or_init(|| settings.caches.connect()).clone();
        Cache::open(&settings.caches, redis, &settings.service, name)
    }

    /// The value of an environment variable that the manifest sets.
    pub fn setting(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// Reports that this worker accepts requests. The task is ready when all of its workers are.
    pub fn set_ready(&self) {
        if let Some(health) = self.0.health.get() {
            health.set_ready();
        }
    }

    /// Answers discovery requests for a worker that only calls, until its runtime ends: so operators see it, and which
    /// circuits of its are open. A worker that serves a contract is discovered in any case.
    pub fn be_discovered(&self) {
        tokio::spawn(discovery::answer_as_caller(self.clone()));
    }

    /// Includes this worker in the task's health.
    pub(crate) fn register_health(&self) {
        let fleet = self.clone();
        self.0.health.get_or_init(|| health::register(fleet));
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.0.connection.load().is_connected()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The current connection. Do not hold it for longer than one operation.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        self.0.connection.load_full()
    }

    /// Changes when the connection has been replaced.
    pub(crate) fn connection_changes(&self) -> watch::Receiver<u64> {
        self.0.connection_changes.subscribe()
    }

    pub(crate) fn destinations(&self) -> &Destinations {
        &self.0.destinations
    }
}

/// Connects to another server before the current one closes the connection. The new connection is established before
/// the old one is dropped, so no message in flight is lost.
async fn follow_lame_duck_notices(fleet: Weak<Inner>, mut lame_ducks: mpsc::UnboundedReceiver<ConnectionEvent>) {
    while let Some(ConnectionEvent::LameDuck) = lame_ducks.recv().await {
        tokio::time::sleep(MOVE_WITHIN.mul_f64(fastrand::f64())).await;
        loop {
            let Some(inner) = fleet.upgrade() else { return };
            let (events, next) = mpsc::unbounded_channel();
            match Connection::connect(&inner.settings, events).await {
                Ok(connection) => {
                    tracing::info!("moved off a NATS server in lame-duck mode");
                    inner.connection.store(connection);
                    inner.connection_changes.send_modify(|count| *count += 1);
                    lame_ducks = next;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "no other NATS server is available yet");
                    drop(inner);
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
