//! Runs workflows: makes the call that is under way, stores its outcome, and so on to the end.
//!
//! The worker that runs a workflow has written a random name into it (`owner`). Every outcome is stored by compare-and-set, and only while that
//! name is there: a worker that was too slow, and whose workflow another one took over, stops.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proto::orchestration::v1::{Workflow, WorkflowState};
use sdk::{Channel, Error, Fleet, Followed, Id, Next, Records, Stored, context};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::methods::{self, Methods};
use crate::pending::{self, Pending};
use crate::saga::{self, Attempt};
use crate::workflow::MAX_ID;

/// Workflows that a worker runs at the same time; others wait until a worker has room for them.
pub(crate) const CONCURRENT: usize = 64;
/// How long storing an outcome is tried.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the workflows of one worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) methods: Methods,
    pub(crate) channel: Channel,
    pub(crate) workflows: Records<Workflow>,
    pub(crate) pending: Followed<Pending>,
    fleet: Fleet,
    room: Arc<Semaphore>,
}

/// The right to run one workflow, and the name under which it is run.
pub(crate) struct Run {
    pub(crate) owner: String,
    _room: OwnedSemaphorePermit,
}

/// The key of a workflow.
pub(crate) fn key(workflow_id: &str) -> Result<Id, Error> {
    Id::new("workflow", workflow_id, MAX_ID)
}

impl Runner {
    pub(crate) fn new(
        fleet: Fleet,
        methods: Methods,
        workflows: Records<Workflow>,
        pending: Followed<Pending>,
    ) -> Self {
        let channel = Channel::new(fleet.clone());
        Self { methods, channel, workflows, pending, fleet, room: Arc::new(Semaphore::new(CONCURRENT)) }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.fleet.clock().now()
    }

    /// The right to run another workflow; `None` if there are enough.
    pub(crate) fn try_begin(&self) -> Option<Run> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(Run { owner: format!("{:016x}", fastrand::u64(..)), _room: room })
    }

    /// Takes over a workflow that nothing has changed since this revision, and runs it.
    pub(crate) async fn take_over(&self, workflow_id: &str, revision: u64) -> Result<(), Error> {
        let Some(run) = self.try_begin() else { return Ok(()) };
        let take_over = |current: &Stored<Workflow>| {
            let is_as_seen = current.revision == revision;
            let taken = is_as_seen.then(|| saga::taken_over(&current.value, &run.owner, self.now())).flatten();
            Ok(taken.map_or_else(Next::keep, Next::from))
        };
        if let Some(stored) = self.workflows.update(&key(workflow_id)?, take_over).await? {
            self.pending.wrote(stored.clone().into());
            if stored.value.owner == run.owner {
                tracing::info!(workflow = workflow_id, takeovers = stored.value.takeovers, "goes on with a workflow");
                self.spawn(stored.value, run);
            }
        }
        Ok(())
    }

    /// Runs a workflow that this run owns, also when the current request has ended.
    pub(crate) fn spawn(&self, workflow: Workflow, run: Run) {
        let runner = self.clone();
        self.fleet.spawn(async move {
            let id = workflow.id.clone();
            if let Err(error) = runner.run(workflow, &run).await {
                tracing::warn!(workflow = id, %error, "left a workflow, which a worker will take over");
            }
        });
    }

    /// Runs a workflow to its end, or until the worker stops: then it hands the workflow over.
    async fn run(&self, mut workflow: Workflow, run: &Run) -> Result<(), Error> {
        let key = key(&workflow.id)?;
        // What is taken over has waited already.
        let mut is_first = true;
        while let Some(attempt) = saga::attempt(&workflow) {
            let pause = if std::mem::take(&mut is_first) { Duration::ZERO } else { jittered(attempt.delay) };
            let is_due = tokio::select! {
                () = tokio::time::sleep(pause) => true,
                () = self.fleet.stopping(), if !pause.is_zero() => false,
            };
            let outcome = if is_due { Some(self.call(&attempt).await) } else { None };
            let next = |current: &Stored<Workflow>| {
                let current = &current.value;
                if current.owner != run.owner || !attempt.is_of(current) {
                    return Ok(Next::keep());
                }
                let changed = match &outcome {
                    Some(outcome) => saga::after(&self.methods, current, &attempt, outcome, self.now()),
                    None => current.clone().into(),
                };
                Ok(if self.fleet.is_stopping() { changed.handed_over().into() } else { changed.into() })
            };
            let stored = context().with_timeout(WRITE_TIMEOUT).scope(self.workflows.update(&key, next)).await?;
            let Some(stored) = stored.filter(|stored| stored.value.owner == run.owner) else { return Ok(()) };
            self.pending.wrote(stored.clone().into());
            workflow = stored.value;
        }
        if workflow.state() == WorkflowState::CompensationFailed {
            tracing::error!(workflow = workflow.id, "steps of a workflow cannot be undone, see its status");
        }
        Ok(())
    }

    async fn call(&self, attempt: &Attempt) -> Result<Bytes, Error> {
        if let Some(error) = attempt.refusal(self.now()) {
            return Err(error);
        }
        let method = methods::of(&attempt.call)?;
        let context = context().with_idempotency_key(&attempt.idempotency_key).with_timeout(attempt.timeout);
        let request = methods::encoded(attempt.call.request.as_ref());
        let call = tokio::time::timeout_at(context.deadline(), self.channel.encoded(method, request));
        let timeout = |_| Error::unavailable(format_args!("`{}` did not answer in time", method.full_name));
        context.clone().scope(call).await.unwrap_or_else(|elapsed| Err(timeout(elapsed)))
    }

    /// Deletes a workflow that ended long ago, unless there is a new one in its place.
    pub(crate) async fn forget(&self, workflow_id: &str) -> Result<(), Error> {
        let over = |current: &Stored<Workflow>| {
            Ok(match pending::is_over(&current.value, self.now()) {
                true => Next::delete(),
                false => Next::keep(),
            })
        };
        self.workflows.update(&key(workflow_id)?, over).await.map(drop)
    }
}

/// So that workflows that failed together do not try again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
