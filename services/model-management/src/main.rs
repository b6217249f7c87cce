//! The registry of language models, and the selection of a model for a request.

mod catalog;
mod registry;
mod selection;

use proto::ai::model::v1::{
    GetRequest, GetResponse, ListRequest, ListResponse, Model, ModelManagement, ModelManagementServer, RegisterRequest,
    RegisterResponse, RetireRequest, RetireResponse, SelectRequest, SelectResponse, Selected,
};
use sdk::{Error, Fleet, Next, Operation, Records, required};

use crate::registry::ModelId;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(ModelManagementServer).run()
}

struct Service {
    fleet: Fleet,
    models: Records<Model>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let models = fleet.records("models").await?;
        for model in catalog::embedded() {
            // One that exists may have been changed or retired.
            models.create(&ModelId::new(&model.id)?, &model).await?;
        }
        Ok(Self { fleet, models })
    }

    async fn all(&self) -> Result<Vec<Model>, Error> {
        Ok(self.models.list(">").await?.into_iter().map(|stored| stored.value).collect())
    }
}

impl ModelManagement for Service {
    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let mut models = self.all().await?;
        models.retain(|model| {
            (request.include_retired || registry::is_active(model))
                && (request.capability.is_empty() || model.capabilities.contains(&request.capability))
        });
        Ok(models.into())
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let id = ModelId::new(&request.id)?;
        Ok(self.models.get(&id).await?.value.into())
    }

    async fn select(&self, request: SelectRequest) -> Result<SelectResponse, Error> {
        let models = self.all().await?;
        let choice = selection::select(&models, &request)
            .map_err(|none| Error::from(none).with_detail("models", models.len()))?;
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
        let operation = Operation::of(&request);
        let model = registry::normalized(required("model", request.model)?)?;
        let id = ModelId::new(&model.id)?;
        let stored = self.models.change(&id, &operation, |_| Ok(Next::write(model.clone()))).await?;
        Ok(stored.value.into())
    }

    async fn retire(&self, request: RetireRequest) -> Result<RetireResponse, Error> {
        let operation = Operation::of(&request);
        let id = ModelId::new(&request.id)?;
        let retire = |current: Option<&sdk::Stored<Model>>| {
            let current = current.ok_or_else(|| Error::not_found(&id))?;
            Ok(Next::write(registry::retired(current.value.clone())))
        };
        Ok(self.models.change(&id, &operation, retire).await?.value.into())
    }
}

#[cfg(test)]
mod tests;
