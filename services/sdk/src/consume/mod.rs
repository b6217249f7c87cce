//! The consuming side: events from durable consumers, which natsctl makes and all tasks of a service share, and events
//! that every task gets.

mod dead_letter;
mod delivery;
mod every_task;
mod handling;
mod metrics;
mod puller;
mod shared;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use proto::rpc::{Error, Event, Handler, decode};

use self::every_task::Follower;
use self::shared::SharedConsumer;
use crate::fleet::Fleet;
use crate::settings::{ConsumerSettings, Delivery};
use crate::task::Shutdown;

/// How a service of the type `T` handles one kind of event.
pub(crate) struct EventHandler<T> {
    subject: &'static str,
    delivery: Delivery,
    handle: fn(Arc<T>, Bytes) -> BoxFuture<'static, Result<(), Error>>,
}

impl<T> EventHandler<T> {
    pub(crate) fn new<E: Event>(delivery: Delivery) -> Self
    where
        T: Handler<E>,
    {
        let handle = |service: Arc<T>, payload| async move { service.handle(decode::<E>(payload)?).await }.boxed();
        Self { subject: E::SUBJECT, delivery, handle }
    }
}

/// What one worker consumes.
pub(crate) struct Consumers<'a, T>(Vec<(Source, &'a EventHandler<T>)>);

enum Source {
    Shared(SharedConsumer),
    EveryTask(Follower),
}

impl<'a, T: Send + Sync + 'static> Consumers<'a, T> {
    /// The consumers of the manifest with the handlers of the program.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if they are not the same events.
    pub(crate) fn new(fleet: &Fleet, handlers: &'a [EventHandler<T>]) -> Result<Self, Error> {
        let settings = &fleet.settings().consumers;
        check(settings, handlers).map_err(Error::failed_precondition)?;
        let sources = handlers.iter().filter_map(|handler| {
            let settings = settings.iter().find(|consumer| consumer.event == handler.subject)?;
            let source = match &settings.durable {
                Some(durable) => Source::Shared(SharedConsumer::new(fleet, settings, durable)),
                None => Source::EveryTask(Follower::new(fleet, settings)),
            };
            Some((source, handler))
        });
        Ok(Self(sources.collect()))
    }

    /// Waits until everything is there that is to be consumed. `None` if the shutdown was requested before.
    pub(crate) async fn open(mut self, shutdown: &Shutdown) -> Option<Self> {
        let opening = join_all(self.0.iter_mut().map(|(source, _)| async move {
            match source {
                Source::Shared(consumer) => consumer.find().await,
                Source::EveryTask(follower) => follower.open().await,
            }
        }));
        tokio::select! {
            _ = opening => {}
            () = shutdown.requested() => return None,
        }
        Some(self)
    }

    /// Consumes until `shutdown` is requested, and finishes what was begun.
    pub(crate) async fn run(self, service: &Arc<T>, shutdown: &Shutdown) {
        let running = self.0.into_iter().map(|(source, handler)| async move {
            let handle = {
                let (service, handle) = (Arc::clone(service), handler.handle);
                move |payload| handle(Arc::clone(&service), payload)
            };
            match source {
                Source::Shared(consumer) => consumer.run(handle, shutdown).await,
                Source::EveryTask(follower) => follower.run(handle, shutdown).await,
            }
        });
        join_all(running).await;
    }
}

/// That the manifest consumes what the program handles, in the same form.
fn check<T>(settings: &[ConsumerSettings], handlers: &[EventHandler<T>]) -> Result<(), String> {
    for (index, handler) in handlers.iter().enumerate() {
        let event = handler.subject;
        if handlers[..index].iter().any(|other| other.subject == event) {
            return Err(format!("the program handles `{event}` twice"));
        }
        let Some(consumer) = settings.iter().find(|consumer| consumer.event == event) else {
            return Err(format!(
                "the program handles `{event}`, but the manifest does not consume it: add it to `consumes`, or remove its handler"
            ));
        };
        let declared = consumer.delivery();
        if declared != handler.delivery {
            return Err(format!(
                "the manifest consumes `{event}` with `delivery: {declared}`, but the program handles it with `{}`: make them agree",
                handler.delivery.method()
            ));
        }
    }
    match settings.iter().find(|consumer| !handlers.iter().any(|handler| handler.subject == consumer.event)) {
        Some(ConsumerSettings { event, .. }) => Err(format!(
            "the manifest consumes `{event}`, but the program does not handle it: add a handler to `main`, or remove it from `consumes`"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
