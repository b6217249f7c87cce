//! Generates text with language models: the embedded one, or those behind an HTTP endpoint. Unless the caller names a
//! model, model-management selects it.

mod backend;
mod engine;
mod http;
mod job;
mod ngram;
mod selections;
mod stop_sequences;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::Backends;
use engine::Engine;
use futures::{FutureExt as _, StreamExt as _};
use proto::ai::llm::v1::{
    FinishReason, Generated, InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer,
};
use proto::ai::model::v1::Selected;
use sdk::{Cache, Error, Event as _, Fleet, Handler, Stream};
use selections::Selections;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(LlmServer).on_every_task::<Selected>().run()
}

struct Service {
    engine: Engine,
    /// Texts that are the same each time that they are generated.
    texts: Cache<InferResponse>,
    selections: Mutex<Selections>,
    events: Arc<EventPublisher>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let backends = Backends::from_settings(|name| fleet.setting(name)).map_err(Error::failed_precondition)?;
        Ok(Self {
            engine: Engine::new(fleet.client(), backends),
            texts: fleet.cache("texts")?,
            selections: Mutex::default(),
            events: Arc::new(EventPublisher(fleet)),
        })
    }
}

impl Llm for Service {
    async fn infer(&self, mut request: InferRequest) -> Result<InferResponse, Error> {
        let started = Instant::now();
        request.meta = None;
        let digest = sdk::digest(&request);
        let prepared = self.engine.prepare(request).await?;
        // The event comes first: what is cached has been reported, however the request ends.
        let generate = async || {
            let response = prepared.infer().await?;
            let generated = Generated {
                meta: None,
                model_id: response.model_id.clone(),
                finish_reason: response.finish_reason,
                usage: response.usage,
                duration_ms: elapsed_ms(started),
            };
            self.events.publish(&digest, generated).await;
            Ok(response)
        };
        match prepared.cache_key() {
            Some(key) => self.texts.get_or(&key, generate).await,
            None => generate().await,
        }
    }

    async fn infer_stream(&self, mut request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        let started = Instant::now();
        request.meta = None;
        let digest = sdk::digest(&request);
        let events = Arc::clone(&self.events);
        let stream = self.engine.infer_stream(request).await?;
        let published = stream.then(move |item| {
            let generated = item.as_ref().ok().and_then(|last| generated_event(last, started));
            let (events, digest) = (Arc::clone(&events), digest.clone());
            async move {
                if let Some(generated) = generated {
                    events.publish(&digest, generated).await;
                }
                item
            }
        });
        Ok(published.boxed())
    }
}

/// A text is cached under its model and the model's revision, so no selection makes one wrong. Another model means that the
/// registry has changed, and that what was generated before may not be asked for again.
impl Handler<Selected> for Service {
    async fn handle(&self, event: Selected) -> Result<(), Error> {
        let is_news = self.selections.lock().unwrap_or_else(PoisonError::into_inner).is_news(event);
        if is_news {
            self.texts.invalidate_all().await;
        }
        Ok(())
    }
}

/// The event for the last message of a stream; `None` for other messages.
fn generated_event(last: &InferStreamResponse, started: Instant) -> Option<Generated> {
    (last.finish_reason() != FinishReason::Unspecified).then(|| Generated {
        meta: None,
        model_id: last.model_id.clone(),
        finish_reason: last.finish_reason,
        usage: last.usage,
        duration_ms: elapsed_ms(started),
    })
}

fn elapsed_ms(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX)
}

struct EventPublisher(Fleet);

impl EventPublisher {
    /// Publishes one event for each request of an operation. The id contains the digest of the request, because the
    /// event itself does not identify it: usage may be equal for two requests, and the duration differs when one is
    /// retried. A generated text may have cost money, so it is delivered even if its event cannot be stored.
    async fn publish(&self, digest: &str, generated: Generated) {
        let id = format!("{}/{}/{digest}", sdk::context().operation_id(), Generated::SUBJECT);
        if let Err(error) = self.0.publish_as(&id, generated).boxed().await {
            tracing::warn!(%error, "failed to publish the event of a generated text");
        }
    }
}

#[cfg(test)]
mod tests;
