//! Events of a durable consumer, which all tasks of a service share: each event is handled by one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Waker};
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::consumer;
use async_nats::jetstream::response::Response;
use bytes::Bytes;
use proto::rpc::Error;
use serde_json::json;
use tokio::sync::Notify;

use super::delivery::Delivery;
use super::metrics::ConsumerMetrics;
use super::puller::{PullError, Puller};
use crate::fleet::Fleet;
use crate::settings::ConsumerSettings;
use crate::task::Shutdown;

/// The delay before the consumer is looked for again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A durable consumer, as one worker uses it.
pub(super) struct SharedConsumer {
    fleet: Fleet,
    settings: Arc<ConsumerSettings>,
    durable: String,
    metrics: Arc<ConsumerMetrics>,
    /// How many events this worker handles at the same time.
    room: usize,
    busy: Arc<Busy>,
}

/// The events that are being handled.
#[derive(Default)]
struct Busy {
    count: AtomicUsize,
    freed: Notify,
}

impl SharedConsumer {
    pub(super) fn new(fleet: &Fleet, settings: &ConsumerSettings, durable: &str) -> Self {
        Self {
            fleet: fleet.clone(),
            settings: Arc::new(settings.clone()),
            durable: durable.to_owned(),
            metrics: Arc::new(ConsumerMetrics::new(&settings.event)),
            room: if settings.ordered { 1 } else { fleet.settings().concurrency },
            busy: Arc::default(),
        }
    }

    /// Waits until the consumer is there and delivers the event.
    pub(super) async fn find(&self) {
        let mut said = String::new();
        loop {
            let Err(problem) = self.look().await else {
                self.metrics.set_interrupted(false);
                return;
            };
            self.metrics.set_interrupted(true);
            if problem != said {
                tracing::error!(
                    event = self.settings.event,
                    stream = self.settings.stream,
                    durable = self.durable,
                    problem,
                    "events cannot be consumed, trying again"
                );
                said = problem;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn look(&self) -> Result<(), String> {
        let (stream, durable) = (&self.settings.stream, &self.durable);
        let subject = format!("CONSUMER.INFO.{stream}.{durable}");
        let connection = self.fleet.connection();
        let answer: Result<Response<consumer::Info>, _> = connection.jetstream.request(subject, &json!({})).await;
        match answer {
            Ok(Response::Ok(info)) => check(&info.config, &self.settings.event),
            Ok(Response::Err { error }) => {
                let service = &self.fleet.settings().service;
                Err(format!("{error}; `natsctl deploy {service}` makes streams and consumers"))
            }
            Err(error) => Err(format!("JetStream does not answer: {error}")),
        }
    }

    /// Handles events until `shutdown` is requested; then hands back what was not begun and finishes the rest.
    pub(super) async fn run<H, F>(self, handle: H, shutdown: &Shutdown)
    where
        H: Fn(Bytes) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let mut connection_changes = self.fleet.connection_changes();
        while !shutdown.is_requested() {
            let ended = match Puller::new(self.fleet.connection(), &self.settings.stream, &self.durable).await {
                Ok(mut puller) => {
                    let ended = tokio::select! {
                        () = shutdown.requested() => None,
                        _ = connection_changes.changed() => None,
                        error = self.pull(&mut puller, &handle) => Some(error),
                    };
                    puller.hand_back().await;
                    ended
                }
                Err(error) => Some(error),
            };
            if let Some(error) = ended {
                tracing::warn!(event = self.settings.event, durable = self.durable, %error, "consuming events was interrupted");
                tokio::select! {
                    () = self.find() => {}
                    () = shutdown.requested() => {}
                }
            }
        }
        self.busy.wait_until_at_most(0).await;
        if let Err(error) = self.fleet.connection().client.flush().await {
            tracing::warn!(%error, "the last acknowledgements may not have been sent");
        }
    }

    async fn pull<H, F>(&self, puller: &mut Puller, handle: &H) -> PullError
    where
        H: Fn(Bytes) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        loop {
            self.busy.wait_until_at_most(self.room - 1).await;
            if let Err(error) = puller.request(self.room - self.busy.count()).await {
                return error;
            }
            tokio::select! {
                biased;
                next = puller.next() => match next {
                    Ok(Some(message)) => self.start(puller, message, handle.clone()),
                    Ok(None) => {}
                    Err(error) => return error,
                },
                // There is room for another request.
                () = self.busy.freed.notified() => {}
            }
        }
    }

    /// Polls the handler once before spawning it: most handlers never wait, so they finish here and need no tokio task.
    fn start<H, F>(&self, puller: &Puller, message: Message, handle: H)
    where
        H: Fn(Bytes) -> F + Send + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let Some(delivery) = Delivery::new(puller.connection(), message) else {
            return;
        };
        let (settings, metrics) = (Arc::clone(&self.settings), Arc::clone(&self.metrics));
        let (fleet, guard) = (self.fleet.clone(), Busy::enter(&self.busy));
        let mut work = Box::pin(async move {
            let _guard = guard;
            delivery.process(&settings, &fleet.settings().service, &metrics, handle).await;
        });
        if work.as_mut().poll(&mut Poller::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(work);
        }
    }
}

/// That a durable delivers `event`, and waits for acknowledgements.
fn check(config: &consumer::Config, event: &str) -> Result<(), String> {
    let is_ours = config.filter_subject == event || config.filter_subjects.iter().any(|subject| subject == event);
    let durable = config.durable_name.as_deref().unwrap_or_default();
    if !is_ours {
        let subjects = [config.filter_subjects.clone(), vec![config.filter_subject.clone()]].concat().join(" ");
        return Err(format!(
            "consumer `{durable}` delivers `{}`, not `{event}`: it is another service's",
            subjects.trim()
        ));
    }
    if config.ack_policy != consumer::AckPolicy::Explicit || config.deliver_subject.is_some() {
        return Err(format!("consumer `{durable}` is not a pull consumer with explicit acknowledgements"));
    }
    Ok(())
}

impl Busy {
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn enter(this: &Arc<Self>) -> BusyGuard {
        this.count.fetch_add(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(this))
    }

    async fn wait_until_at_most(&self, limit: usize) {
        loop {
            let freed = self.freed.notified();
            if self.count() <= limit {
                return;
            }
            freed.await;
        }
    }
}

struct BusyGuard(Arc<Busy>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}
