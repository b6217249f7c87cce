//! Workflows as they are started and shown.

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message as _;
use proto::orchestration::v1::{Call, Progress, Step, StepState, Workflow, WorkflowState};
use sdk::{Error, check_id, check_range, check_range_or, required};

use crate::methods::Methods;

pub(crate) const MAX_ID: usize = 64;
const MAX_STEPS: usize = 20;
/// Bytes of all steps together.
const MAX_SIZE: usize = 64 << 10;
const MAX_TIMEOUT_MS: u32 = 20_000;
const DEFAULT_TIMEOUT_MS: u32 = 5_000;
const MAX_RETRIES: u32 = 10;
/// They bridge about ten seconds, in which NATS elects a leader and a circuit closes.
const DEFAULT_RETRIES: u32 = 6;

/// The steps of a workflow that is to be started. They are checked one after another, so that the caller can yield in between.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    methods: &'a Methods,
    steps: Vec<Step>,
}

impl<'a> Draft<'a> {
    /// A draft that will have so many steps.
    pub(crate) fn new(methods: &'a Methods, count: usize) -> Result<Self, Error> {
        check_range("number of steps", count, 1..=MAX_STEPS)?;
        Ok(Self { methods, steps: Vec::with_capacity(count) })
    }

    /// Adds the next step.
    pub(crate) fn add(&mut self, step: Step) -> Result<(), Error> {
        let step = checked_step(self.methods, step, &self.steps)?;
        self.steps.push(step);
        match self.steps.iter().map(Step::encoded_len).sum::<usize>() {
            size if size > MAX_SIZE => {
                Err(Error::invalid(format_args!("the steps have {size} bytes, at most {MAX_SIZE} are allowed")))
            }
            _ => Ok(()),
        }
    }

    /// The workflow, with no step begun.
    pub(crate) fn finish(self, id: &str, run_id: String, now: SystemTime) -> Workflow {
        let pending = |step| Progress { step: Some(step), state: StepState::Pending.into(), ..Progress::default() };
        Workflow {
            id: id.to_owned(),
            state: WorkflowState::Running.into(),
            steps: self.steps.into_iter().map(pending).collect(),
            started_at: Some(now.into()),
            run_id,
            ..Workflow::default()
        }
    }
}

/// A step with its defaults, whose requests are encoded; `earlier` are the steps before it.
fn checked_step(methods: &Methods, step: Step, earlier: &[Step]) -> Result<Step, Error> {
    let Step { id, call, compensation, timeout_ms, retries } = step;
    check_id("step id", &id, MAX_ID)?;
    if earlier.iter().any(|earlier| earlier.id == id) {
        return Err(Error::invalid(format_args!("there are two steps `{id}`")));
    }
    let timeout = format!("timeout_ms of step `{id}`");
    let timeout_ms = check_range_or(&timeout, timeout_ms, 100..=MAX_TIMEOUT_MS, DEFAULT_TIMEOUT_MS)?;
    let retries = check_range(&format!("retries of step `{id}`"), retries.unwrap_or(DEFAULT_RETRIES), 0..=MAX_RETRIES)?;
    let mut sources: BTreeMap<&str, &Call> =
        earlier.iter().filter_map(|step| Some((&*step.id, step.call.as_ref()?))).collect();

    let what = format!("call of step `{id}`");
    let call = methods.checked(&what, required(&what, call)?)?;
    check_inputs(methods, &what, &call, &sources)?;
    sources.insert(&id, &call);
    let what = format!("compensation of step `{id}`");
    let compensation = compensation.map(|compensation| methods.checked(&what, compensation)).transpose()?;
    if let Some(compensation) = &compensation {
        check_inputs(methods, &what, compensation, &sources)?;
    }
    Ok(Step { id, compensation, timeout_ms, retries: Some(retries), call: Some(call) })
}

fn check_inputs(methods: &Methods, what: &str, call: &Call, sources: &BTreeMap<&str, &Call>) -> Result<(), Error> {
    for input in &call.inputs {
        let source = sources.get(&*input.step_id).ok_or_else(|| {
            let ids: Vec<&str> = sources.keys().copied().collect();
            let accepted = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            let id = input.step_id.escape_debug();
            Error::invalid(format_args!("input of {what} comes from step `{id}`, earlier steps are: {accepted}"))
        })?;
        methods.check_input(what, call, input, source)?;
    }
    Ok(())
}

/// A step as people read it: requests and responses in JSON.
pub(crate) fn shown(methods: &Methods, mut progress: Progress) -> Progress {
    let Some(step) = &mut progress.step else { return progress };
    if let Some(call) = step.call.take() {
        progress.response = progress.response.take().map(|response| methods.shown_response(&call, response));
        step.call = Some(methods.shown(call));
    }
    step.compensation = step.compensation.take().map(|call| methods.shown(call));
    progress
}

#[cfg(test)]
mod tests;
