//! One worker's way into the fleet: a handle that outlives the connection behind it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::rpc::{Channel, Error};
use tokio::sync::{mpsc, watch};

use crate::bucket::Bucket;
use crate::destination::Destinations;
use crate::health::{self, WorkerHealth};
use crate::link::{Link, LinkError, LinkEvent};
use crate::settings::Settings;

/// Clients of one server leave it within this time after its lame-duck notice; its grace period is longer.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to find another server.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// One worker's connection to the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    link: ArcSwap<Link>,
    /// Counts the links; a server moves when it changes.
    moves: watch::Sender<u64>,
    destinations: Destinations,
    /// Absent in tests, where no task is around the worker.
    health: OnceLock<Arc<WorkerHealth>>,
}

impl Fleet {
    /// Connects, trying again as long as NATS cannot be reached.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if NATS refuses this service.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        loop {
            let (events, lame_ducks) = mpsc::unbounded_channel();
            match Link::connect(&settings, events).await {
                Ok(link) => {
                    let inner = Inner {
                        settings,
                        link: ArcSwap::new(link),
                        moves: watch::Sender::new(0),
                        destinations: Destinations::default(),
                        health: OnceLock::new(),
                    };
                    let fleet = Self(Arc::new(inner));
                    tokio::spawn(follow(Arc::downgrade(&fleet.0), lame_ducks));
                    return Ok(fleet);
                }
                Err(error @ LinkError::Refused(_)) => return Err(Error::failed_precondition(error)),
                Err(error @ LinkError::Unreachable(_)) => {
                    tracing::warn!(%error, "trying again");
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    /// A client of another service, for example `fleet.client::<ModelManagementClient>()`.
    pub fn client<C: From<Channel>>(&self) -> C {
        C::from(Channel::new(self.clone()))
    }

    /// A key-value bucket. natsctl makes it, from this service's manifest.
    ///
    /// # Errors
    /// UNAVAILABLE if there is no such bucket.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let bucket = Bucket::new(self.clone(), name);
        self.link().store(name).await?;
        Ok(bucket)
    }

    /// An environment variable that the manifest sets.
    pub fn setting(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// The worker takes requests from now on; the task is ready when all of its workers do.
    pub fn takes_requests(&self) {
        if let Some(health) = self.0.health.get() {
            health.takes_requests();
        }
    }

    /// Makes this worker part of the task's health.
    pub(crate) fn watch_health(&self) {
        let link = self.clone();
        self.0.health.get_or_init(|| health::watch(link));
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.0.link.load().is_connected()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The connection of this moment. Hold it no longer than one operation.
    pub(crate) fn link(&self) -> Arc<Link> {
        self.0.link.load_full()
    }

    /// Changes when the fleet has moved to another connection.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.0.moves.subscribe()
    }

    pub(crate) fn destinations(&self) -> &Destinations {
        &self.0.destinations
    }
}

/// Moves to another server before this one closes the connection: the new link is there before the old one is let go, so that
/// nothing that is on its way gets lost.
async fn follow(fleet: Weak<Inner>, mut lame_ducks: mpsc::UnboundedReceiver<LinkEvent>) {
    while let Some(LinkEvent::LameDuck) = lame_ducks.recv().await {
        tokio::time::sleep(LEAVE_WITHIN.mul_f64(fastrand::f64())).await;
        loop {
            let Some(inner) = fleet.upgrade() else { return };
            let (events, next) = mpsc::unbounded_channel();
            match Link::connect(&inner.settings, events).await {
                Ok(link) => {
                    tracing::info!("left a NATS server that is about to stop");
                    inner.link.store(link);
                    inner.moves.send_modify(|count| *count += 1);
                    lame_ducks = next;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "no other NATS server yet");
                    drop(inner);
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    }
}
