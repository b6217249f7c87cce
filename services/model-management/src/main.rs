//! The registry of language models, and the selection of a model for a request.

mod catalog;
mod record;
mod registry;
mod selection;

use prost::Message as _;
use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, Model, ModelManagement, ModelManagementServer, RegisterRequest,
    RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::{Bucket, Change, Clock, Code, Error, Fleet, Operation, WriteError};

use crate::record::{Decision, ModelRecord};

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(ModelManagementServer).run()
}

struct Service {
    clock: Clock,
    fleet: Fleet,
    models: Bucket,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let models = fleet.bucket("models").await?;
        for model in catalog::embedded() {
            match models.create(&model.id, model.encode_to_vec().into()).await {
                // On a conflict the model exists already, and may have been changed or retired.
                Ok(_) | Err(WriteError::Conflict) => {}
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Ok(Self { clock: Clock::default(), fleet, models })
    }

    async fn all(&self) -> Result<Vec<Model>, Error> {
        self.models.decoded(">", |entry| Ok(ModelRecord::decode(entry)?.model)).await
    }

    async fn current(&self, id: &str) -> Result<Option<Model>, Error> {
        let entry = self.models.get(id).await?;
        Ok(entry.as_ref().map(ModelRecord::decode).transpose()?.map(|record| record.model))
    }

    /// Applies `next` to the current model by compare-and-set, unless the operation was carried out before: then the
    /// answer is that of the first time, if that revision is still stored.
    async fn change(
        &self,
        operation: &Operation,
        id: &str,
        next: impl Fn(Option<&Model>) -> Result<Model, Error> + Send,
    ) -> Result<Model, Error> {
        let changed = self.models.change(id, |entry| {
            let current = entry.map(ModelRecord::decode).transpose()?;
            let next = next(current.as_ref().map(|current| &current.model));
            Ok(match ModelRecord::after(current.as_ref(), next, operation, self.clock.now())? {
                Decision::Keep(current) => Change::Keep(current),
                Decision::Write(next) => Change::Write(next.encode().into(), next),
            })
        });
        let record = match changed.await {
            Ok((record, revision)) => record.with_revision(revision),
            Err(WriteError::Conflict) => {
                return Err(Error::new(Code::Aborted, format!("model `{id}` is being changed by other writers")));
            }
            Err(WriteError::Failed(error)) => return Err(error),
        };
        if record.was_written_by(operation) {
            return Ok(record.model);
        }
        let mut earlier = self.models.decoded_history(id, usize::MAX, ModelRecord::decode).await?.into_iter();
        Ok(earlier.find(|earlier| earlier.was_written_by(operation)).unwrap_or(record).model)
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
        let operation = Operation::current("register", &request);
        let model = request.model.ok_or_else(|| Error::invalid("`model` is missing"))?;
        let model = registry::normalized(model).map_err(Error::invalid)?;
        let written = self.change(&operation, &model.id, |_| Ok(model.clone())).await?;
        Ok(RegisterResponse { error: None, model: Some(written) })
    }

    async fn retire(&self, request: RetireRequest) -> Result<RetireResponse, Error> {
        let operation = Operation::current("retire", &request);
        registry::check_id(&request.id).map_err(Error::invalid)?;
        let written = self
            .change(&operation, &request.id, |current| {
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

#[cfg(test)]
mod tests;
