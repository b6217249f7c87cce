//! What handling an event is, however it was delivered: its id, its context, and the handler with its deadline.

use std::panic::AssertUnwindSafe;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use proto::rpc::Error;
use tokio::time::{Instant, timeout_at};

use crate::context::Context;
use crate::settings::ConsumerSettings;
use crate::wire::{self, ReceivedMeta, RequestEnvelope};
use crate::{panics, reason, trace};

/// What names an event however often and from wherever it comes: the id that its publisher gave it, or else its place in the
/// stream.
pub(super) fn event_id(headers: Option<&HeaderMap>, stream: &str, sequence: u64) -> String {
    let given = wire::header(headers, &wire::EVENT_ID).or_else(|| wire::header(headers, &wire::MESSAGE_ID));
    given.map_or_else(|| format!("{stream}/{sequence}"), str::to_owned)
}

/// The request that caused the event goes on, with the event as the operation.
pub(super) fn context(
    settings: &ConsumerSettings,
    headers: Option<&HeaderMap>,
    payload: &Bytes,
    event_id: String,
) -> Context {
    // A payload that cannot be decoded is reported later, by the handler that knows its type.
    let meta = RequestEnvelope::decode(payload.clone()).ok().and_then(|envelope| envelope.meta);
    let meta = ReceivedMeta {
        idempotency_key: event_id,
        timeout_ms: u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX),
        ..meta.unwrap_or_default()
    };
    Context::received(meta, wire::header(headers, &wire::TRACEPARENT), Instant::now())
}

/// Runs the handler until its deadline, in a span. A panic and a missed deadline are errors.
pub(super) async fn run<F>(
    settings: &ConsumerSettings,
    context: &Context,
    attempt: u32,
    handled: impl FnOnce() -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let span = trace::consumer(context, &settings.event, settings.durable.as_deref(), attempt);
    let handled = AssertUnwindSafe(async { handled().await }).catch_unwind();
    let result = match timeout_at(context.deadline(), handled).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Error::internal(format_args!("the handler panicked: {}", panics::message(&*panic)))),
        Err(_) => {
            let error = Error::unavailable(format_args!("it was not handled within {:?}", settings.timeout));
            let error = error.with_detail(reason::KEY, reason::TIMEOUT);
            Err(match context.last_failure() {
                Some(failure) => error.with_detail(reason::CAUSE, failure),
                None => error,
            })
        }
    };
    trace::end_with(span, result)
}
