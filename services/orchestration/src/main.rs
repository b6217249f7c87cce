//! Sagas: workflows of calls to other services. When a step fails, what was carried out is compensated in reverse order.
//!
//! A workflow is a record that is written after each call, by the worker that runs it. When that worker dies, the others see that
//! the record stays as it is for longer than its call may take, and one of them goes on.

mod methods;
mod pending;
mod runner;
mod saga;
#[cfg(test)]
mod testing;
mod workflow;

use std::time::Duration;

use proto::orchestration::v1::{
    CancelRequest, CancelResponse, ListMethodsRequest, ListMethodsResponse, ListRequest, ListResponse, Method,
    Orchestration, OrchestrationServer, RetryCompensationsRequest, RetryCompensationsResponse, StartRequest,
    StartResponse, StatusRequest, StatusResponse, Summary, Workflow,
};
use proto::orchestration::workflow::v1::Started;
use sdk::{Code, Error, Fleet, Next, Operation, Periodic, Records, Stored, check_range_or, choice_or_unset};

use crate::methods::Methods;
use crate::pending::Pending;
use crate::runner::{Run, Runner, key};
use crate::workflow::Draft;

const MAX_WORKFLOWS: usize = 10_000;
const MAX_PAGE: u32 = 200;
const DEFAULT_PAGE: u32 = 100;
const FORGOTTEN_PER_TURN: usize = 500;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(OrchestrationServer).periodically().run()
}

struct Service(Runner);

impl Orchestration for Service {
    async fn start(&self, request: StartRequest) -> Result<StartResponse, Error> {
        let operation = Operation::of(&request);
        let (key, now) = (key(&request.workflow_id)?, self.0.now());
        let mut draft = Draft::new(&self.0.methods, request.steps.len())?;
        for step in request.steps {
            draft.add(step)?;
            tokio::task::yield_now().await;
        }
        let workflow = draft.finish(&request.workflow_id, operation.digits(), now);
        let step_ids: Vec<_> =
            workflow.steps.iter().filter_map(|progress| Some(progress.step.as_ref()?.id.clone())).collect();
        let started = Started { meta: None, workflow_id: workflow.id.clone(), step_ids };
        let run = self.0.try_begin();
        let workflow = match &run {
            Some(run) => saga::begun(workflow, &run.owner, now),
            None => workflow,
        };
        let is_full = self.0.pending.read().count() >= MAX_WORKFLOWS;
        let start = |current: Option<&Stored<Workflow>>| match current {
            Some(_) => Err(Error::new(Code::AlreadyExists, format!("{key} exists already"))),
            None if is_full => {
                let message = format!("there are {MAX_WORKFLOWS} workflows, which are kept for a day after their ends");
                Err(Error::new(Code::ResourceExhausted, message))
            }
            None => Ok(Next::write(workflow.clone()).and_publish(started.clone())),
        };
        let stored = self.0.workflows.change(&key, &operation, start).await?;
        Ok(self.going_on(stored, run).await.into())
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Error> {
        let stored = self.0.workflows.get(&key(&request.workflow_id)?).await?;
        Ok(self.shown(stored.value).await.into())
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let state = choice_or_unset("state", request.state)?;
        let limit = check_range_or("limit", request.limit, 1..=MAX_PAGE, DEFAULT_PAGE)?;
        let page: Vec<Summary> = self.0.pending.read().after(&request.after_id, state, limit as usize).collect();
        Ok(page.into())
    }

    async fn cancel(&self, request: CancelRequest) -> Result<CancelResponse, Error> {
        let key = key(&request.workflow_id)?;
        let cancel = |current: Option<&Stored<Workflow>>| {
            let current = current.ok_or_else(|| Error::not_found(&key))?;
            Ok(Next::write(saga::cancelled(&current.value)?))
        };
        let stored = self.0.workflows.change(&key, &Operation::of(&request), cancel).await?;
        Ok(self.shown(stored.value).await.into())
    }

    async fn retry_compensations(
        &self,
        request: RetryCompensationsRequest,
    ) -> Result<RetryCompensationsResponse, Error> {
        let (key, run) = (key(&request.workflow_id)?, self.0.try_begin());
        let owner = run.as_ref().map_or("", |run| &run.owner);
        let retry = |current: Option<&Stored<Workflow>>| {
            let current = current.ok_or_else(|| Error::not_found(&key))?;
            Ok(saga::retried(&current.value, &request.undone_step_ids, owner, self.0.now())?.into())
        };
        let stored = self.0.workflows.change(&key, &Operation::of(&request), retry).await?;
        Ok(self.going_on(stored, run).await.into())
    }

    async fn list_methods(&self, _: ListMethodsRequest) -> Result<ListMethodsResponse, Error> {
        let method = |it: &proto::rpc::Method| Method { name: it.full_name.to_owned(), subject: it.subject.to_owned() };
        Ok(methods::accepted().map(method).collect::<Vec<_>>().into())
    }
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let workflows: Records<Workflow> = fleet.records("workflows").await?;
        let pending = workflows.follow(Pending::new(fleet.clock().clone())).await?;
        Ok(Self(Runner::new(fleet, Methods::new()?, workflows, pending)))
    }

    /// Runs a workflow if it was stored for this run, and shows it.
    async fn going_on(&self, stored: Stored<Workflow>, run: Option<Run>) -> Workflow {
        self.0.pending.wrote(stored.clone().into());
        if let Some(run) = run.filter(|run| run.owner == stored.value.owner) {
            self.0.spawn(stored.value.clone(), run);
        }
        self.shown(stored.value).await
    }

    /// A workflow as people read it.
    async fn shown(&self, mut workflow: Workflow) -> Workflow {
        for progress in &mut workflow.steps {
            *progress = workflow::shown(&self.0.methods, std::mem::take(progress));
            tokio::task::yield_now().await;
        }
        workflow
    }
}

impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_millis(250);

    async fn turn(&self) -> Result<(), Error> {
        let (mut abandoned, over) = {
            let pending = self.0.pending.read();
            (pending.abandoned(), pending.over(FORGOTTEN_PER_TURN))
        };
        // Workers that begin at different workflows do not all try to take over the same one.
        fastrand::shuffle(&mut abandoned);
        let taken = sdk::each(abandoned, |(id, revision)| async move { self.0.take_over(&id, revision).await }).await;
        let forgotten = sdk::each(over, |id| async move { self.0.forget(&id).await }).await;
        taken.and(forgotten)
    }
}

#[cfg(test)]
mod tests;
