//! A service, composed of the contract that it serves and the events that it handles.

use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::rpc::{Error, Event, Handler, Server};

use crate::consume::{Consumers, EventHandler};
use crate::fleet::Fleet;
use crate::serve::serve;
use crate::settings::Delivery;
use crate::task::{self, Shutdown};

type Build<T> = Box<dyn Fn(Fleet) -> BoxFuture<'static, Result<T, Error>> + Send + Sync>;
type Serve<T> = Box<dyn Fn(Fleet, Arc<T>, Shutdown) -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// A service whose workers share nothing: each builds its own `T`. Made by [`service`].
pub struct Service<T> {
    build: Build<T>,
    serve: Option<Serve<T>>,
    handlers: Vec<EventHandler<T>>,
}

/// A service of which each worker has one `T`. What it does is added to it, and [`Service::run`] is the whole `main`:
///
/// `sdk::service(Quests::new).serve(QuestServer).on::<Selected>().run()`
pub fn service<T, F>(build: impl Fn(Fleet) -> F + Send + Sync + 'static) -> Service<T>
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    Service { build: Box::new(move |fleet| build(fleet).boxed()), serve: None, handlers: Vec::new() }
}

impl<T: Send + Sync + 'static> Service<T> {
    /// Serves a contract, for example `.serve(QuestServer)`.
    pub fn serve<S: Server>(mut self, server: impl Fn(Arc<T>) -> S + Send + Sync + 'static) -> Self {
        self.serve = Some(Box::new(move |fleet, service, shutdown| {
            let server = server(service);
            async move { serve(&fleet, server, shutdown).await }.boxed()
        }));
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
        let consumers = Consumers::new(&fleet, &self.handlers)?;
        let service = Arc::new((self.build)(fleet.clone()).await?);
        fleet.settings().caches.refuse_unused(&fleet.settings().service)?;
        let Some(consumers) = consumers.open(&shutdown).await else {
            return Ok(());
        };
        let consuming = consumers.run(&service, &shutdown);
        let serving = async {
            match &self.serve {
                Some(serve) => serve(fleet.clone(), Arc::clone(&service), shutdown.clone()).await,
                None => {
                    fleet.be_discovered();
                    fleet.set_ready();
                    shutdown.requested().await;
                    Ok(())
                }
            }
        };
        let ((), served) = futures::join!(consuming, serving);
        served
    }
}
