//! Handles requests: validates them, finds the model, runs it.

use futures::StreamExt as _;
use proto::ai::llm::v1::{InferRequest, InferResponse, InferStreamRequest, InferStreamResponse};
use proto::ai::model::v1::{GetRequest, Model, ModelManagement as _, ModelManagementClient, ModelState, SelectRequest};
use sdk::{Error, Key, Stream};

use crate::backend::{Backend, Backends, Piece, usage};
use crate::job::Job;

pub(crate) struct Engine {
    models: ModelManagementClient,
    backends: Backends,
}

impl Engine {
    pub(crate) fn new(models: ModelManagementClient, backends: Backends) -> Self {
        Self { models, backends }
    }

    /// Validates a request and finds its model.
    pub(crate) async fn prepare(&self, request: InferRequest) -> Result<Prepared, Error> {
        let job = Job::new(request.prompt, request.sampling).map_err(Error::invalid)?;
        let model = self.model(request.model_id, request.capability, &job).await?;
        let backend = self.backends.for_model(&model)?;
        Ok(Prepared { job, model, backend })
    }

    /// Streams the pieces of the text, and then the finish reason and usage.
    pub(crate) async fn infer_stream(&self, request: InferStreamRequest) -> Result<Stream<InferStreamResponse>, Error> {
        let job = Job::new(request.prompt, request.sampling).map_err(Error::invalid)?;
        let model = self.model(request.model_id, request.capability, &job).await?;
        let generation = self.backends.for_model(&model)?.stream(&model.id, &job).await?;
        let mut so_far = String::new();
        let messages = generation.map(move |piece| {
            let message = InferStreamResponse { model_id: model.id.clone(), ..InferStreamResponse::default() };
            Ok(match piece? {
                Piece::Text(text) => {
                    so_far.push_str(&text);
                    InferStreamResponse { text, ..message }
                }
                Piece::End(ending) => InferStreamResponse {
                    finish_reason: ending.finish.into(),
                    usage: Some(usage(&job, &so_far, ending.usage)),
                    ..message
                },
            })
        });
        Ok(messages.boxed())
    }

    /// The model that the request names, or the one that model-management selects.
    async fn model(&self, id: String, capability: String, job: &Job) -> Result<Model, Error> {
        if id.is_empty() {
            let request =
                SelectRequest { capability, min_context_length: job.context_length(), ..SelectRequest::default() };
            let selected = self.models.select(request).await?;
            return selected
                .model
                .ok_or_else(|| Error::internal("model-management returned neither a model nor an error"));
        }
        let request = GetRequest { meta: None, id };
        let model = self.models.get(request).await?.model;
        let model = model.ok_or_else(|| Error::internal("model-management returned neither a model nor an error"))?;
        let id = &model.id;
        if model.state() != ModelState::Active {
            return Err(Error::failed_precondition(format_args!("model `{id}` is retired")));
        }
        if !capability.is_empty() && !model.capabilities.contains(&capability) {
            return Err(Error::failed_precondition(format_args!(
                "model `{id}` does not have the capability `{capability}`"
            )));
        }
        let (needed, available) = (job.context_length(), model.context_length);
        if needed > available {
            return Err(Error::invalid(format_args!(
                "prompt and completion need {needed} tokens, the context of model `{id}` has {available}"
            )));
        }
        Ok(model)
    }
}

/// A valid request and the model that answers it.
#[derive(Debug)]
pub(crate) struct Prepared {
    job: Job,
    model: Model,
    backend: Backend,
}

impl Prepared {
    /// The key of the text in the cache; `None` if it differs each time. Another revision of the model is another key.
    pub(crate) fn cache_key(&self) -> Option<Key> {
        let sampling = self.job.repeatable_sampling()?;
        let key = Key::new().part(&self.model.id).part(self.model.revision.to_le_bytes());
        Some(key.part(&self.job.prompt).message(&sampling))
    }

    pub(crate) async fn infer(&self) -> Result<InferResponse, Error> {
        let completion = self.backend.complete(&self.model.id, &self.job).await?;
        Ok(InferResponse {
            error: None,
            finish_reason: completion.ending.finish.into(),
            usage: Some(usage(&self.job, &completion.text, completion.ending.usage)),
            text: completion.text,
            model_id: self.model.id.clone(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
