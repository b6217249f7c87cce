//! Keeps the registry of language models and chooses among them: which one suits a request, and why.

mod catalog;
mod registry;
mod selection;

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use prost::Message as _;
use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, Model, ModelManagement, ModelManagementServer, RegisterRequest,
    RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::{Bucket, Code, Error, Event as _, Fleet, WriteError};

/// How often a change is tried again because somebody else changed the same model.
const ATTEMPTS: u32 = 8;

fn main() -> std::process::ExitCode {
    sdk::run(Service::new)
}

struct Service {
    fleet: Fleet,
    models: Bucket,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<ModelManagementServer<Self>, Error> {
        let models = fleet.bucket("models").await?;
        for model in catalog::embedded() {
            match models.create(&model.id, model.encode_to_vec().into()).await {
                // Somebody has put it there before, and may have changed or retired it since.
                Ok(_) | Err(WriteError::Conflict) => {}
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Ok(ModelManagementServer(Self { fleet, models }))
    }

    async fn all(&self) -> Result<Vec<Model>, Error> {
        self.models.entries(">").await?.into_iter().map(decode).collect()
    }

    async fn current(&self, id: &str) -> Result<Option<Model>, Error> {
        self.models.get(id).await?.map(decode).transpose()
    }

    /// Writes what `next` makes of the model as it is; starts over if somebody else was faster.
    async fn change(
        &self,
        id: &str,
        next: impl Fn(Option<&Model>) -> Result<Model, Error> + Send,
    ) -> Result<Model, Error> {
        for attempt in 0..ATTEMPTS {
            let current = self.current(id).await?;
            let next = next(current.as_ref())?;
            if let Some(current) = &current
                && *current == (Model { revision: current.revision, ..next.clone() })
            {
                return Ok(next_at(next, current.revision));
            }
            // The revision is the bucket's own, so it is not kept in the value.
            let value = next_at(next.clone(), 0).encode_to_vec().into();
            let written = match &current {
                Some(current) => self.models.update(id, value, current.revision).await,
                None => self.models.create(id, value).await,
            };
            match written {
                Ok(revision) => return Ok(next_at(next, revision)),
                Err(WriteError::Conflict) => tokio::time::sleep(pause(attempt)).await,
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Err(Error::new(Code::Aborted, format!("model `{id}` is being changed by somebody else")))
    }
}

impl ModelManagement for Service {
    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let mut models = self.all().await?;
        models.retain(|model| {
            (request.include_retired || registry::is_active(model))
                && (request.capability.is_empty() || model.capabilities.contains(&request.capability))
        });
        Ok(ListResponse { error: None, models })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        registry::check_id(&request.id).map_err(Error::invalid)?;
        let model = self.current(&request.id).await?;
        let model = model.ok_or_else(|| missing(&request.id))?;
        Ok(GetResponse { error: None, model: Some(model) })
    }

    async fn select(&self, mut request: SelectRequest) -> Result<SelectResponse, Error> {
        let models = self.all().await?;
        let choice = selection::select(&models, &request).map_err(|none| {
            let error = Error::failed_precondition(&none).with_detail("models", models.len());
            none.excluded
                .iter()
                .fold(error, |error, (filter, count)| error.with_detail(&format!("excluded_by_{filter}"), count))
        })?;
        request.meta = None;
        let event_id = format!("{}/{}/{:016x}", sdk::context().operation_id(), Selected::SUBJECT, digest(&request));
        let selected = Selected {
            meta: None,
            model_id: choice.model.id.clone(),
            capability: selection::capability(&request).to_owned(),
            reason: choice.reason.clone(),
        };
        self.fleet.publish_as(&event_id, selected).await?;
        Ok(SelectResponse { error: None, model: Some(choice.model.clone()), reason: choice.reason })
    }

    async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        let model = request.model.ok_or_else(|| Error::invalid("`model` is missing"))?;
        let model = registry::registered(model).map_err(Error::invalid)?;
        let written = self.change(&model.id, |_| Ok(model.clone())).await?;
        Ok(RegisterResponse { error: None, model: Some(written) })
    }

    async fn retire(&self, request: RetireRequest) -> Result<RetireResponse, Error> {
        registry::check_id(&request.id).map_err(Error::invalid)?;
        let written = self
            .change(&request.id, |current| {
                let current = current.ok_or_else(|| missing(&request.id))?;
                Ok(registry::retired(current.clone()))
            })
            .await?;
        Ok(RetireResponse { error: None, model: Some(written) })
    }
}

/// Tells the requests of one operation apart: it may need several models.
fn digest(request: &SelectRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&request.encode_to_vec());
    hasher.finish()
}

fn missing(id: &str) -> Error {
    Error::not_found(format_args!("model `{id}`"))
}

fn next_at(model: Model, revision: u64) -> Model {
    Model { revision, ..model }
}

fn decode(entry: sdk::Entry) -> Result<Model, Error> {
    let model = Model::decode(entry.value)
        .map_err(|error| Error::new(Code::DataLoss, format!("model `{}` cannot be read: {error}", entry.key)))?;
    Ok(next_at(model, entry.revision))
}

/// Those who collide wait for different times, so that they do not collide again.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(fastrand::u64(0..(4 << attempt)))
}

#[cfg(test)]
mod tests;
