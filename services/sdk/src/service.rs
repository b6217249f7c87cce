//! A service, composed of the contract that it serves and the events that it handles.

use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::rpc::{Error, Event, Handler, Server};

use crate::consume::{Consumers, EventHandler};
use crate::fleet::Fleet;
use crate::periodic::{self, Periodic};
use crate::serve::{Contract, contract, serve_all};
use crate::settings::Delivery;
use crate::task::{self, Shutdown};

type Build<T> = Box<dyn Fn(Fleet) -> BoxFuture<'static, Result<T, Error>> + Send + Sync>;
type Serve<T> = Box<dyn Fn(&Fleet, Arc<T>) -> Contract + Send + Sync>;
type Repeat<T> = Box<dyn Fn(Fleet, Arc<T>, Shutdown) -> BoxFuture<'static, ()> + Send + Sync>;

/// A service whose workers share nothing: each builds its own `T`. Made by [`service`].
pub struct Service<T> {
    build: Build<T>,
    contracts: Vec<Serve<T>>,
    handlers: Vec<EventHandler<T>>,
    repeated: Option<Repeat<T>>,
}

/// A service of which each worker has one `T`. What it does is added to it, and [`Service::run`] is the whole `main`:
///
/// `sdk::service(Quests::new).serve(QuestServer).on::<Selected>().run()`
pub fn service<T, F>(build: impl Fn(Fleet) -> F + Send + Sync + 'static) -> Service<T>
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    Service {
        build: Box::new(move |fleet| build(fleet).boxed()),
        contracts: Vec::new(),
        handlers: Vec::new(),
        repeated: None,
    }
}

impl<T: Send + Sync + 'static> Service<T> {
    /// Serves a contract, for example `.serve(QuestServer)`. A service may serve several; the limits of how many requests run
    /// and wait are those of each.
    #[must_use]
    pub fn serve<S: Server>(mut self, server: impl Fn(Arc<T>) -> S + Send + Sync + 'static) -> Self {
        self.contracts.push(Box::new(move |fleet, service| contract(fleet, server(service))));
        self
    }

    /// Handles an event that the manifest consumes. One task of the service gets each event.
    #[must_use]
    pub fn on<E: Event>(mut self) -> Self
    where
        T: Handler<E>,
    {
        self.handlers.push(EventHandler::new::<E>(Delivery::Shared));
        self
    }

    /// Handles an event that the manifest consumes with `delivery: every_task`. Every worker of every task gets each event
    /// that is published while it runs.
    #[must_use]
    pub fn on_every_task<E: Event>(mut self) -> Self
    where
        T: Handler<E>,
    {
        self.handlers.push(EventHandler::new::<E>(Delivery::EveryTask));
        self
    }

    /// Does what is [`Periodic`] about it, from when the worker is ready until it stops.
    #[must_use]
    pub fn periodically(mut self) -> Self
    where
        T: Periodic,
    {
        self.repeated = Some(Box::new(|fleet, service, shutdown| periodic::run(fleet, service, shutdown).boxed()));
        self
    }

    /// The whole `main` of a service: serves and handles events until SIGTERM. Then it accepts nothing new, finishes what it
    /// has accepted, and exits with 0.
    ///
    /// With the argument `healthcheck` it checks the liveness of the task in the same container instead.
    pub fn run(self) -> ExitCode {
        let service = Arc::new(self);
        task::run_workers(move |fleet, shutdown| {
            let service = Arc::clone(&service);
            async move { service.work(fleet, shutdown).await }
        })
    }

    /// One worker of the service.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if the events that it handles are not those that the manifest consumes, or the caches that it uses
    /// not those that the manifest declares; what building and serving return.
    pub async fn work(&self, fleet: Fleet, shutdown: Shutdown) -> Result<(), Error> {
        fleet.background().end_with(shutdown.clone());
        let consumers = Consumers::new(&fleet, &self.handlers)?;
        let service = Arc::new((self.build)(fleet.clone()).await?);
        fleet.settings().caches.refuse_unused(&fleet.settings().service)?;
        let Some(consumers) = consumers.open(&shutdown).await else {
            return Ok(());
        };
        let consuming = consumers.run(&service, &shutdown);
        let repeating = async {
            if let Some(repeat) = &self.repeated {
                repeat(fleet.clone(), Arc::clone(&service), shutdown.clone()).await;
            }
        };
        let contracts: Vec<Contract> =
            self.contracts.iter().map(|contract| contract(&fleet, Arc::clone(&service))).collect();
        let serving = async {
            if contracts.is_empty() {
                fleet.be_discovered();
                fleet.set_ready();
                shutdown.requested().await;
                return Ok(());
            }
            serve_all(&fleet, contracts, shutdown.clone()).await
        };
        let ((), (), served) = futures::join!(consuming, repeating, serving);
        fleet.background().finished().await;
        served
    }
}
