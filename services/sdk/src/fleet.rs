//! A worker's handle to the fleet. It stays valid when the NATS connection behind it is replaced.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use prost::Message;
use proto::rpc::{Channel, Error};
use tokio::sync::{mpsc, watch};

use crate::background::Background;
use crate::bucket::Bucket;
use crate::cache::{Cache, Redis};
use crate::clock::Clock;
use crate::connection::{ConnectError, Connection};
use crate::destination::Destinations;
use crate::discovery;
use crate::health::{self, WorkerHealth};
use crate::renewal::Renewal;
use crate::settings::Settings;

/// The delay between two attempts to connect to a server.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// One worker's connection to the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

/// A [`Fleet`] for what must not keep it alive.
#[derive(Clone, Debug)]
pub(crate) struct WeakFleet(Weak<Inner>);

impl WeakFleet {
    /// `None` if the worker has ended.
    pub(crate) fn upgrade(&self) -> Option<Fleet> {
        self.0.upgrade().map(Fleet)
    }
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    clock: Clock,
    connection: ArcSwap<Connection>,
    /// Counts the replaced connections; a serving worker resubscribes when it changes.
    connection_changes: watch::Sender<u64>,
    destinations: Destinations,
    /// This worker's connections to the shared tier of its caches, once it has opened one.
    redis: OnceLock<Option<Arc<Redis>>>,
    /// Absent in tests, where the worker does not belong to a task.
    health: OnceLock<Arc<WorkerHealth>>,
    background: Background,
}

impl Fleet {
    /// Connects, and retries as long as NATS cannot be reached.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if NATS rejects this service's credentials.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        Self::connect_with(settings, Clock::default()).await
    }

    /// The same, with the time of a clock that a test may hold.
    pub(crate) async fn connect_with(settings: Settings, clock: Clock) -> Result<Self, Error> {
        loop {
            let (sender, events) = mpsc::unbounded_channel();
            // Before they are read: a change in between is seen as one.
            let used = settings.connection.files_digest();
            match Connection::connect(&settings, sender).await {
                Ok(connection) => {
                    let inner = Inner {
                        destinations: Destinations::new(&settings.service),
                        settings,
                        clock,
                        connection: ArcSwap::new(connection),
                        connection_changes: watch::Sender::new(0),
                        redis: OnceLock::new(),
                        health: OnceLock::new(),
                        background: Background::default(),
                    };
                    let fleet = Self(Arc::new(inner));
                    tokio::spawn(Renewal::new(fleet.downgrade(), events, used).run());
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

    /// Where this worker takes the time from.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
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

    fn downgrade(&self) -> WeakFleet {
        WeakFleet(Arc::downgrade(&self.0))
    }

    /// From now on, calls use this connection. A serving worker moves to it, and leaves the old one when it has finished what
    /// it accepted there.
    pub(crate) fn replace_connection(&self, connection: Arc<Connection>) {
        self.0.connection.store(connection);
        self.0.connection_changes.send_modify(|count| *count += 1);
    }

    /// Changes when the connection has been replaced.
    pub(crate) fn connection_changes(&self) -> watch::Receiver<u64> {
        self.0.connection_changes.subscribe()
    }

    pub(crate) fn background(&self) -> &Background {
        &self.0.background
    }

    pub(crate) fn destinations(&self) -> &Destinations {
        &self.0.destinations
    }
}
