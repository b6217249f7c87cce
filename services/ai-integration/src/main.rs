//! Generates text with language models: the embedded one, or those behind an HTTP endpoint. Which model it is, model-management
//! decides, unless the caller does.

mod backend;
mod engine;
mod http;
mod job;
mod ngram;
mod stop;
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use backend::Backends;
use engine::Engine;
use futures::{FutureExt as _, StreamExt as _};
use proto::ai::llm::v1::{
    FinishReason, Generated, InferRequest, InferResponse, InferStreamRequest, InferStreamResponse, Llm, LlmServer,
};
use sdk::{Error, Event as _, Fleet, Stream};

fn main() -> std::process::ExitCode {
    sdk::run(Service::new)
}

struct Service {
    engine: Engine,
    events: Arc<Events>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<LlmServer<Self>, Error> {
        let backends = Backends::configured(|name| fleet.setting(name)).map_err(Error::failed_precondition)?;
        Ok(LlmServer(Self { engine: Engine::new(fleet.client(), backends), events: Arc::new(Events(fleet)) }))
    }
}

impl Llm for Service {
    async fn infer(&self, mut request: InferRequest) -> Result<InferResponse, Error> {
        let started = Instant::now();
        request.meta = None;
        let digest = sdk::digest(&request);
        let response = self.engine.infer(request).await?;
        let generated = Generated {
            meta: None,
            model_id: response.model_id.clone(),
            finish_reason: response.finish_reason,
            usage: response.usage,
            duration_ms: since(started),
        };
        self.events.announce(&digest, generated).await;
        Ok(response)
    }

    async fn infer_stream(&self, mut request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        let started = Instant::now();
        request.meta = None;
        let digest = sdk::digest(&request);
        let events = Arc::clone(&self.events);
        let stream = self.engine.infer_stream(request).await?;
        let announced = stream.then(move |item| {
            let generated = item.as_ref().ok().and_then(|last| ended(last, started));
            let (events, digest) = (Arc::clone(&events), digest.clone());
            async move {
                if let Some(generated) = generated {
                    events.announce(&digest, generated).await;
                }
                item
            }
        });
        Ok(announced.boxed())
    }
}

/// What happened, if this is the last message of a stream.
fn ended(last: &InferStreamResponse, started: Instant) -> Option<Generated> {
    (last.finish_reason() != FinishReason::Unspecified).then(|| Generated {
        meta: None,
        model_id: last.model_id.clone(),
        finish_reason: last.finish_reason,
        usage: last.usage,
        duration_ms: since(started),
    })
}

fn since(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX)
}

struct Events(Fleet);

impl Events {
    /// One event for each request of an operation. What was asked tells them apart: two texts may be as long as each other, and the
    /// same text takes another time when it is generated again. A text that was generated, and perhaps paid for, is delivered even
    /// if the event about it cannot be stored.
    async fn announce(&self, digest: &str, generated: Generated) {
        let id = format!("{}/{}/{digest}", sdk::context().operation_id(), Generated::SUBJECT);
        if let Err(error) = self.0.publish_as(&id, generated).boxed().await {
            tracing::warn!(%error, "a text was generated, but its event is lost");
        }
    }
}

#[cfg(test)]
mod tests;
