//! The registry of language models, and the selection of a model for a request.

mod catalog;
mod registry;
mod selection;

use prost::Message as _;
use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, Model, ModelManagement, ModelManagementServer, RegisterRequest,
    RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::{Bucket, Change, Code, Entry, Error, Fleet, WriteError};

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
                // On a conflict the model exists already, and may have been changed or retired.
                Ok(_) | Err(WriteError::Conflict) => {}
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Ok(ModelManagementServer(Self { fleet, models }))
    }

    async fn all(&self) -> Result<Vec<Model>, Error> {
        self.models.decoded(">", decode).await
    }

    async fn current(&self, id: &str) -> Result<Option<Model>, Error> {
        self.models.get(id).await?.as_ref().map(decode).transpose()
    }

    /// Applies `next` to the current model by compare-and-set.
    async fn change(
        &self,
        id: &str,
        next: impl Fn(Option<&Model>) -> Result<Model, Error> + Send,
    ) -> Result<Model, Error> {
        let changed = self.models.change(id, |entry| {
            let current = entry.map(decode).transpose()?;
            // The bucket assigns the revision, so it is not stored in the value.
            let next = with_revision(next(current.as_ref())?, 0);
            if current.is_some_and(|current| with_revision(current, 0) == next) {
                return Ok(Change::Keep(next));
            }
            Ok(Change::Write(next.encode_to_vec().into(), next))
        });
        match changed.await {
            Ok((model, revision)) => Ok(with_revision(model, revision)),
            Err(WriteError::Conflict) => {
                Err(Error::new(Code::Aborted, format!("model `{id}` is being changed by other writers")))
            }
            Err(WriteError::Failed(error)) => Err(error),
        }
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

    async fn select(&self, request: SelectRequest) -> Result<SelectResponse, Error> {
        let models = self.all().await?;
        let choice = selection::select(&models, &request).map_err(|none| {
            let error = Error::failed_precondition(&none).with_detail("models", models.len());
            none.excluded
                .iter()
                .fold(error, |error, (filter, count)| error.with_detail(&format!("excluded_by_{filter}"), count))
        })?;
        let selected = Selected {
            meta: None,
            model_id: choice.model.id.clone(),
            capability: selection::capability(&request).to_owned(),
            reason: choice.reason.clone(),
        };
        self.fleet.publish(selected).await?;
        Ok(SelectResponse { error: None, model: Some(choice.model.clone()), reason: choice.reason })
    }

    async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        let model = request.model.ok_or_else(|| Error::invalid("`model` is missing"))?;
        let model = registry::normalized(model).map_err(Error::invalid)?;
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

fn missing(id: &str) -> Error {
    Error::not_found(format_args!("model `{id}`"))
}

fn with_revision(model: Model, revision: u64) -> Model {
    Model { revision, ..model }
}

fn decode(entry: &Entry) -> Result<Model, Error> {
    let model = Model::decode(entry.value.as_ref())
        .map_err(|error| Error::new(Code::DataLoss, format!("model `{}` cannot be read: {error}", entry.key)))?;
    Ok(with_revision(model, entry.revision))
}

#[cfg(test)]
mod tests;
