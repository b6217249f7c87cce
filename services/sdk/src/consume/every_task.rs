//! Events that every worker gets: each reads the publisher's stream by itself, from the end of the stream when it starts.
//!
//! A consumer for each task would have to be made by the tasks, which may not make consumers: one that delivers to a subject
//! writes there with the rights of the account of all streams.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use proto::rpc::Error;
use tokio::time::Instant;

use super::delivery::Outcome;
use super::handling;
use super::metrics::ConsumerMetrics;
use crate::fleet::Fleet;
use crate::settings::ConsumerSettings;
use crate::task::Shutdown;

/// How often the stream is read, apart from jitter.
const INTERVAL: Duration = Duration::from_secs(1);

/// One worker's position in the stream of an event.
pub(super) struct Follower {
    fleet: Fleet,
    settings: ConsumerSettings,
    metrics: ConsumerMetrics,
    /// The sequence of the first message that was not looked at.
    next: u64,
    /// What the latest failed read said.
    problem: Option<String>,
}

impl Follower {
    pub(super) fn new(fleet: &Fleet, settings: &ConsumerSettings) -> Self {
        let metrics = ConsumerMetrics::new(&settings.event);
        Self { fleet: fleet.clone(), settings: settings.clone(), metrics, next: 1, problem: None }
    }

    /// Waits until the stream is there, and begins at its end.
    pub(super) async fn open(&mut self) {
        loop {
            match self.end().await {
                Ok(end) => {
                    self.next = end;
                    return self.note(None);
                }
                Err(problem) => self.note(Some(problem)),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    pub(super) async fn run<H, F>(mut self, handle: H, shutdown: &Shutdown)
    where
        H: Fn(Bytes) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                // With jitter, so that the workers of a fleet do not all read at once.
                () = tokio::time::sleep(INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
            }
            let read = tokio::select! {
                () = shutdown.requested() => return,
                read = self.read(&handle) => read,
            };
            self.note(read.err());
        }
    }

    /// Handles what was stored since the last time.
    async fn read<H, F>(&mut self, handle: &H) -> Result<(), String>
    where
        H: Fn(Bytes) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        let end = self.end().await?;
        if end < self.next {
            // The stream was made anew, and counts from 1 again.
            self.next = 1;
        }
        let stream = self.stream().await?;
        while self.next < end {
            match stream.get_first_raw_message_by_subject(&self.settings.event, self.next).await {
                Ok(message) => {
                    let sequence = message.sequence;
                    self.process(message, handle).await;
                    self.next = sequence + 1;
                }
                // What is there until the end are other events.
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => self.next = end,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Handles one event, several times if it fails. Later events wait, so that a worker never sees them out of order.
    async fn process<H, F>(&self, message: StreamMessage, handle: &H)
    where
        H: Fn(Bytes) -> F,
        F: Future<Output = Result<(), Error>>,
    {
        let ConsumerSettings { event, max_deliveries, .. } = &self.settings;
        let headers = Some(&message.headers);
        let id = handling::event_id(headers, &self.settings.stream, message.sequence);
        for attempt in 1.. {
            let started = Instant::now();
            let context = handling::context(&self.settings, headers, &message.payload, id.clone());
            let handled = handling::run(&self.settings, &context, attempt, || handle(message.payload.clone()));
            let Err(error) = context.clone().scope(handled).await else {
                return self.metrics.record(Outcome::Handled, started.elapsed());
            };
            if attempt >= *max_deliveries {
                tracing::error!(event, sequence = message.sequence, attempt, %error, "gave up an event that every task gets");
                return self.metrics.record(Outcome::DeadLetter, started.elapsed());
            }
            self.metrics.record(Outcome::Retried, started.elapsed());
            tokio::time::sleep(self.settings.delay_after(attempt)).await;
        }
    }

    async fn stream(&self) -> Result<Stream<()>, String> {
        let connection = self.fleet.connection();
        connection.jetstream.get_stream_no_info(&self.settings.stream).await.map_err(|error| error.to_string())
    }

    /// The sequence that the next message of the stream will have.
    async fn end(&self) -> Result<u64, String> {
        let connection = self.fleet.connection();
        let stream = connection.jetstream.get_stream(&self.settings.stream).await.map_err(|error| error.to_string())?;
        Ok(stream.cached_info().state.last_sequence + 1)
    }

    fn note(&mut self, problem: Option<String>) {
        self.metrics.set_interrupted(problem.is_some());
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            let ConsumerSettings { event, stream, .. } = &self.settings;
            tracing::error!(event, stream, problem, "events cannot be read, trying again");
        }
        self.problem = problem;
    }
}
