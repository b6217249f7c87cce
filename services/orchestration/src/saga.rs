//! What becomes of a workflow: which call is next, and what follows from its outcome. No I/O.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use proto::common::v1 as common;
use proto::orchestration::v1::payload::Form;
use proto::orchestration::v1::{Call, Payload, Progress, StepState, Workflow, WorkflowState};
use proto::orchestration::workflow::v1::{Compensated, CompensationFailed, CompensationStarted, Completed};
use proto::well_known::Timestamp;
use sdk::{Code, Error, Next, REMEMBERED_FOR};

use crate::methods::Methods;

/// Bytes of a response that is kept.
const MAX_RESPONSE: usize = 4 << 10;
/// Bytes of an error that is kept with its details, and of the message of one that is larger.
const MAX_ERROR: usize = 1 << 10;
const COMPENSATION_RETRIES: u32 = 10;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A call is repeated so long after it was first begun: while the service that is called surely remembers it.
const REPEATED_FOR: Duration = REMEMBERED_FOR.saturating_sub(Duration::from_secs(60));
/// How much longer than its call may take a worker is given before another one takes its workflow over.
const MARGIN: Duration = Duration::from_secs(3);

/// One attempt of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) call: Call,
    /// The same for all attempts of a call, and no other's.
    pub(crate) idempotency_key: String,
    /// How long to wait before it, at most.
    pub(crate) delay: Duration,
    pub(crate) timeout: Duration,
    begun_at: Timestamp,
    position: Position,
}

/// Where a workflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    step: usize,
    state: StepState,
    attempt: u32,
}

/// What happened to a workflow.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Completed(Completed),
    CompensationStarted(CompensationStarted),
    Compensated(Compensated),
    CompensationFailed(CompensationFailed),
}

/// A workflow, and what has happened to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) workflow: Workflow,
    pub(crate) events: Vec<Event>,
}

impl From<Workflow> for Changed {
    fn from(workflow: Workflow) -> Self {
        Self { workflow, events: Vec::new() }
    }
}

impl Changed {
    /// The same with no worker that runs it: another one begins with what is next at once.
    pub(crate) fn handed_over(mut self) -> Self {
        self.workflow.owner.clear();
        self
    }
}

impl From<Changed> for Next<Workflow> {
    fn from(Changed { workflow, events }: Changed) -> Self {
        events.into_iter().fold(Self::write(workflow), |next, event| match event {
            Event::Completed(event) => next.and_publish(event),
            Event::CompensationStarted(event) => next.and_publish(event),
            Event::Compensated(event) => next.and_publish(event),
            Event::CompensationFailed(event) => next.and_publish(event),
        })
    }
}

/// The call that is under way; `None` if no step is begun, or the workflow has ended.
pub(crate) fn attempt(workflow: &Workflow) -> Option<Attempt> {
    let position = position(workflow)?;
    let progress = workflow.steps.get(position.step)?;
    let step = progress.step.as_ref()?;
    let (call, begun_at, part) = match position.state {
        StepState::Compensating => (&step.compensation, progress.compensation_begun_at, "compensation"),
        _ => (&step.call, progress.begun_at, "call"),
    };
    Some(Attempt {
        call: call.clone()?,
        idempotency_key: format!("{}/{}/{}/{part}", workflow.id, workflow.run_id, step.id),
        delay: delay(position.attempt),
        timeout: Duration::from_millis(step.timeout_ms.into()),
        begun_at: begun_at?,
        position,
    })
}

impl Attempt {
    /// Why the call is not made; `None` if it is.
    pub(crate) fn refusal(&self, now: SystemTime) -> Option<Error> {
        is_forgotten(&self.begun_at, now).then(|| {
            let message = format!(
                "whether it was carried out is not known, and more than {REPEATED_FOR:?} later `{}` may have forgotten the request",
                self.call.method
            );
            Error::new(Code::Unknown, message)
        })
    }

    /// Whether it is this attempt that is under way.
    pub(crate) fn is_of(&self, workflow: &Workflow) -> bool {
        position(workflow) == Some(self.position)
    }
}

/// How long the worker that runs the workflow may leave it as it is; zero if no worker runs it.
pub(crate) fn patience(workflow: &Workflow) -> Duration {
    let attempt = attempt(workflow).filter(|_| !workflow.owner.is_empty());
    attempt.map_or(Duration::ZERO, |attempt| attempt.delay + attempt.timeout + MARGIN)
}

/// Whether nothing more will be called.
pub(crate) fn has_ended(state: WorkflowState) -> bool {
    !matches!(state, WorkflowState::Running | WorkflowState::Compensating)
}

/// The workflow with its first step begun by a worker.
pub(crate) fn begun(workflow: Workflow, owner: &str, now: SystemTime) -> Workflow {
    let mut saga = Saga::new(Workflow { owner: owner.to_owned(), ..workflow }, now);
    saga.begin_next_step();
    saga.workflow
}

/// The workflow when another worker goes on with it: what was under way is called again. What was handed over was not begun.
/// `None` if it has ended.
pub(crate) fn taken_over(workflow: &Workflow, owner: &str, now: SystemTime) -> Option<Changed> {
    if has_ended(workflow.state()) {
        return None;
    }
    let mut saga = Saga::new(Workflow { owner: owner.to_owned(), ..workflow.clone() }, now);
    match position(workflow) {
        Some(_) if workflow.owner.is_empty() => {}
        Some(Position { step, .. }) => {
            saga.workflow.takeovers += 1;
            *attempts(saga.progress(step)) += 1;
        }
        None if saga.workflow.cancel_requested => saga.compensate(None),
        None => saga.begin_next_step(),
    }
    Some(saga.changed())
}

/// The workflow after an attempt that is under way.
pub(crate) fn after(
    methods: &Methods,
    workflow: &Workflow,
    attempt: &Attempt,
    outcome: &Result<Bytes, Error>,
    now: SystemTime,
) -> Changed {
    let mut saga = Saga::new(workflow.clone(), now);
    let Position { step, state, .. } = attempt.position;
    match (state, outcome) {
        (StepState::Compensating, Ok(_)) => {
            saga.progress(step).set_state(StepState::Compensated);
            saga.progress(step).compensation_error = None;
            saga.undo_next();
        }
        (StepState::Compensating, Err(error)) => {
            saga.progress(step).compensation_error = Some(recorded(error));
            if !saga.repeat(attempt, COMPENSATION_RETRIES, error) {
                saga.progress(step).set_state(StepState::CompensationFailed);
                saga.undo_next();
            }
        }
        (StepState::Settling, Ok(response)) => {
            // What later steps lack does not matter any more.
            saga.complete(methods, step, response).ok();
            saga.undo_next();
        }
        (StepState::Settling, Err(error)) => {
            saga.progress(step).error = Some(recorded(error));
            if !saga.repeat(attempt, COMPENSATION_RETRIES, error) {
                match says_not_done(error) {
                    true => saga.progress(step).set_state(StepState::Failed),
                    false => saga.cannot_compensate(step, error),
                }
                saga.undo_next();
            }
        }
        (_, Ok(response)) => match saga.complete(methods, step, response) {
            Err(error) => saga.compensate(Some((step, &error))),
            Ok(()) if saga.workflow.cancel_requested => saga.compensate(None),
            Ok(()) => saga.begin_next_step(),
        },
        (_, Err(error)) => {
            saga.progress(step).error = Some(recorded(error));
            let retries = saga.progress(step).step.as_ref().and_then(|step| step.retries).unwrap_or_default();
            let is_cancelled = saga.workflow.cancel_requested && !is_final(error);
            if is_cancelled || !saga.repeat(attempt, retries, error) {
                let state = if says_not_done(error) { StepState::Failed } else { StepState::Unknown };
                saga.progress(step).set_state(state);
                saga.compensate((!is_cancelled).then_some((step, error)));
            }
        }
    }
    saga.changed()
}

/// The workflow when it is asked to be cancelled: the worker that runs it sees that when the call under way is finished.
pub(crate) fn cancelled(workflow: &Workflow) -> Result<Workflow, Error> {
    match workflow.state() {
        WorkflowState::Completed => {
            Err(Error::failed_precondition(format_args!("workflow `{}` is completed", workflow.id)))
        }
        WorkflowState::Running => Ok(Workflow { cancel_requested: true, ..workflow.clone() }),
        _ => Ok(workflow.clone()),
    }
}

/// The workflow when its failed compensations are tried again, but for those of these steps, which are undone.
pub(crate) fn retried(workflow: &Workflow, undone: &[String], owner: &str, now: SystemTime) -> Result<Changed, Error> {
    if workflow.state() != WorkflowState::CompensationFailed {
        let state = workflow.state().as_str_name();
        return Err(Error::failed_precondition(format_args!("workflow `{}` is in {state}", workflow.id)));
    }
    let failed = failed_compensations(workflow);
    if let Some(id) = undone.iter().find(|id| !failed.contains(id)) {
        return Err(Error::invalid(format_args!(
            "undone_step_ids has `{}`, steps whose compensations failed are: {}",
            id.escape_debug(),
            failed.join(", ")
        )));
    }
    let mut saga = Saga::new(Workflow { owner: owner.to_owned(), ended_at: None, ..workflow.clone() }, now);
    saga.workflow.set_state(WorkflowState::Compensating);
    for progress in &mut saga.workflow.steps {
        if progress.state() == StepState::CompensationFailed {
            let state = match progress.completed_at {
                _ if undone.contains(&id(progress)) => StepState::Compensated,
                Some(_) => StepState::Completed,
                None => StepState::Unknown,
            };
            progress.set_state(state);
        }
    }
    saga.undo_next();
    Ok(saga.changed())
}

/// A workflow on its way to what it is next.
struct Saga {
    workflow: Workflow,
    events: Vec<Event>,
    now: SystemTime,
}

impl Saga {
    fn new(workflow: Workflow, now: SystemTime) -> Self {
        Self { workflow, events: Vec::new(), now }
    }

    fn changed(self) -> Changed {
        Changed { workflow: self.workflow, events: self.events }
    }

    /// A step of the workflow: positions are made from its steps.
    fn progress(&mut self, step: usize) -> &mut Progress {
        &mut self.workflow.steps[step]
    }

    fn begin_next_step(&mut self) {
        let now = self.now.into();
        match self.workflow.steps.iter_mut().find(|progress| progress.state() == StepState::Pending) {
            Some(progress) => {
                progress.set_state(StepState::Running);
                progress.attempts = 1;
                progress.begun_at = Some(now);
            }
            None => {
                self.end(WorkflowState::Completed);
                self.events.push(Event::Completed(Completed { meta: None, workflow_id: self.workflow.id.clone() }));
            }
        }
    }

    /// Notes that a step was carried out, and fills in what others take from its response.
    fn complete(&mut self, methods: &Methods, step: usize, response: &Bytes) -> Result<(), Error> {
        let now = self.now.into();
        let progress = self.progress(step);
        progress.set_state(StepState::Completed);
        progress.error = None;
        progress.completed_at = Some(now);
        let is_kept = response.len() <= MAX_RESPONSE;
        progress.response = is_kept.then(|| Payload { form: Some(Form::Encoded(response.clone())) });
        let Some(source) = progress.step.clone() else { return Ok(()) };
        let Some(source_call) = &source.call else { return Ok(()) };
        let mut outcome = Ok(());
        let steps = self.workflow.steps.iter_mut().filter_map(|progress| progress.step.as_mut());
        for call in steps.flat_map(|step| [&mut step.call, &mut step.compensation]).flatten() {
            // What cannot be filled in stays, and its call is not made.
            for input in std::mem::take(&mut call.inputs) {
                let is_answered = input.step_id == source.id;
                match is_answered.then(|| methods.filled(call, &input, source_call, response)) {
                    Some(Ok(request)) => call.request = Some(request),
                    Some(Err(error)) => {
                        outcome = outcome.and(Err(error));
                        call.inputs.push(input);
                    }
                    None => call.inputs.push(input),
                }
            }
        }
        outcome
    }

    /// Begins to undo what was carried out: because this step failed, or else because the workflow was cancelled.
    fn compensate(&mut self, failure: Option<(usize, &Error)>) {
        self.workflow.set_state(WorkflowState::Compensating);
        if let Some((step, error)) = failure {
            self.workflow.failure = Some(recorded(error));
            self.workflow.failed_step_id = id(self.progress(step));
        }
        let Workflow { id, failed_step_id, failure, .. } = self.workflow.clone();
        let started = CompensationStarted { meta: None, workflow_id: id, failed_step_id, failure };
        self.events.push(Event::CompensationStarted(started));
        self.undo_next();
    }

    /// Begins to undo the latest step that is not undone yet.
    fn undo_next(&mut self) {
        let now = Some(self.now.into());
        for step in (0..self.workflow.steps.len()).rev() {
            let progress = self.progress(step);
            let Some(compensation) = progress.step.as_ref().and_then(|step| step.compensation.as_ref()) else {
                continue;
            };
            let missing = compensation.inputs.first().map(|input| {
                Error::failed_precondition(format_args!("`{}` of step `{}` is not known", input.from, input.step_id))
            });
            match progress.state() {
                StepState::Completed => match missing {
                    Some(error) => self.cannot_compensate(step, &error),
                    None => {
                        progress.set_state(StepState::Compensating);
                        (progress.compensation_attempts, progress.compensation_begun_at) = (1, now);
                        return;
                    }
                },
                // Only what is known to be carried out is compensated.
                StepState::Unknown => {
                    progress.set_state(StepState::Settling);
                    progress.compensation_attempts = 1;
                    return;
                }
                _ => {}
            }
        }
        let (workflow_id, step_ids) = (self.workflow.id.clone(), failed_compensations(&self.workflow));
        if step_ids.is_empty() {
            self.end(WorkflowState::Compensated);
            self.events.push(Event::Compensated(Compensated { meta: None, workflow_id }));
        } else {
            self.end(WorkflowState::CompensationFailed);
            self.events.push(Event::CompensationFailed(CompensationFailed { meta: None, workflow_id, step_ids }));
        }
    }

    fn cannot_compensate(&mut self, step: usize, error: &Error) {
        self.progress(step).set_state(StepState::CompensationFailed);
        self.progress(step).compensation_error = Some(recorded(error));
    }

    /// Begins the next attempt of the same call, if there is one.
    fn repeat(&mut self, attempt: &Attempt, retries: u32, error: &Error) -> bool {
        let is_repeated =
            attempt.position.attempt <= retries && !is_final(error) && !is_forgotten(&attempt.begun_at, self.now);
        if is_repeated {
            *attempts(self.progress(attempt.position.step)) += 1;
        }
        is_repeated
    }

    fn end(&mut self, state: WorkflowState) {
        self.workflow.set_state(state);
        self.workflow.ended_at = Some(self.now.into());
    }
}

/// The step that is being called or compensated.
fn position(workflow: &Workflow) -> Option<Position> {
    let is_under_way = |progress: &Progress| {
        matches!(progress.state(), StepState::Running | StepState::Settling | StepState::Compensating)
    };
    let step = workflow.steps.iter().position(is_under_way)?;
    let progress = &workflow.steps[step];
    let attempt = match progress.state() {
        StepState::Running => progress.attempts,
        _ => progress.compensation_attempts,
    };
    Some(Position { step, state: progress.state(), attempt })
}

/// The attempts of what is under way.
fn attempts(progress: &mut Progress) -> &mut u32 {
    match progress.state() {
        StepState::Running => &mut progress.attempts,
        _ => &mut progress.compensation_attempts,
    }
}

fn failed_compensations(workflow: &Workflow) -> Vec<String> {
    workflow.steps.iter().filter(|progress| progress.state() == StepState::CompensationFailed).map(id).collect()
}

fn id(progress: &Progress) -> String {
    progress.step.as_ref().map(|step| step.id.clone()).unwrap_or_default()
}

/// The pause before an attempt.
fn delay(attempt: u32) -> Duration {
    match attempt.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(MAX_DELAY),
    }
}

fn is_forgotten(begun_at: &Timestamp, now: SystemTime) -> bool {
    let begun_at = SystemTime::try_from(*begun_at).unwrap_or(SystemTime::UNIX_EPOCH);
    now.duration_since(begun_at).is_ok_and(|age| age > REPEATED_FOR)
}

/// Whether the same call would fail in the same way again. It has changed nothing.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

/// Whether the call is known to have changed nothing. RESOURCE_EXHAUSTED does not say so: it may come from a repeat of which the
/// first attempt had no answer.
fn says_not_done(error: &Error) -> bool {
    is_final(error) || error.code() == Code::Aborted
}

/// An error as it is kept.
fn recorded(error: &Error) -> common::Error {
    let mut recorded = common::Error::from(error.clone());
    if recorded.encoded_len() > MAX_ERROR {
        recorded.details.clear();
        recorded.message.truncate(recorded.message.floor_char_boundary(MAX_ERROR));
    }
    recorded
}

#[cfg(test)]
mod tests;
