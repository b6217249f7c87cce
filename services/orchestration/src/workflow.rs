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
const DEFAULT_RETRIES: u32 = 3;

/// The workflow that a request asks for, with no step begun.
pub(crate) fn new(
    methods: &Methods,
    id: &str,
    steps: Vec<Step>,
    run_id: String,
    now: SystemTime,
) -> Result<Workflow, Error> {
    check_range("number of steps", steps.len(), 1..=MAX_STEPS)?;
    let mut checked: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        let step = checked_step(methods, step, &checked)?;
        checked.push(step);
    }
    let size: usize = checked.iter().map(Step::encoded_len).sum();
    if size > MAX_SIZE {
        return Err(Error::invalid(format_args!("the steps have {size} bytes, at most {MAX_SIZE} are allowed")));
    }
    let pending = |step| Progress { step: Some(step), state: StepState::Pending.into(), ..Progress::default() };
    Ok(Workflow {
        id: id.to_owned(),
        state: WorkflowState::Running.into(),
        steps: checked.into_iter().map(pending).collect(),
        started_at: Some(now.into()),
        run_id,
        ..Workflow::default()
    })
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

/// The workflow as people read it: requests and responses in JSON.
pub(crate) fn shown(methods: &Methods, mut workflow: Workflow) -> Result<Workflow, Error> {
    for progress in &mut workflow.steps {
        let Some(step) = &mut progress.step else { continue };
        if let Some(call) = step.call.take() {
            progress.response = methods.shown_response(&call, progress.response.take())?;
            step.call = Some(methods.shown(call)?);
        }
        step.compensation = step.compensation.take().map(|call| methods.shown(call)).transpose()?;
    }
    Ok(workflow)
}

#[cfg(test)]
mod tests;
