use proto::orchestration::v1::payload::Form;
use sdk::Code;

use super::*;
use crate::testing::{METHODS, accept, call, charge, input, made, of};

#[track_caller]
fn refused(steps: Vec<Step>, message: &str) {
    let error = made(steps).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
}

#[test]
fn a_workflow_begins_with_the_defaults_of_its_steps() {
    let workflow = of(vec![accept("a"), accept("b")]);
    assert_eq!(workflow.state(), WorkflowState::Running);
    for progress in &workflow.steps {
        assert_eq!(progress.state(), StepState::Pending);
        let step = progress.step.as_ref().unwrap();
        assert_eq!((step.timeout_ms, step.retries), (5_000, Some(6)));
    }
    let never = Step { retries: Some(0), ..accept("a") };
    assert_eq!(of(vec![never]).steps[0].step.as_ref().unwrap().retries, Some(0));
}

#[test]
fn a_step_out_of_bounds_is_refused() {
    refused(vec![], "number of steps is 0, it must be 1 to 20");
    refused(vec![accept("a"); 21], "number of steps is 21, it must be 1 to 20");
    refused(vec![accept("a b")], "step id must be 1 to 64 letters, digits, `_` and `-`");
    refused(vec![accept("a"), accept("a")], "there are two steps `a`");
    refused(vec![Step { timeout_ms: 99, ..accept("a") }], "timeout_ms of step `a` is 99, it must be 100 to 20000");
    refused(vec![Step { retries: Some(11), ..accept("a") }], "retries of step `a` is 11, it must be 0 to 10");
    refused(vec![Step { call: None, ..accept("a") }], "call of step `a` is missing");
    let unknown = Step { compensation: Some(call("x", &[])), ..accept("a") };
    let error = made(vec![unknown]).unwrap_err();
    assert!(error.message().starts_with("method of compensation of step `a` is `x`, it must be"), "{error}");
    let large = || Some(call("quest.v1.Quest/Accept", &[("player_id", &"x".repeat(14_000))]));
    let steps = (0..20).map(|number| Step { call: large(), ..accept(&format!("s{number}")) }).collect();
    let error = made(steps).unwrap_err();
    assert!(error.message().ends_with("bytes, at most 65536 are allowed"), "{error}");
}

#[test]
fn inputs_come_from_earlier_steps() {
    let with_input = |id: &str, from: &str| {
        let mut step = accept(id);
        step.call.as_mut().unwrap().inputs = vec![input(from, "quest.id", "quest_id")];
        step
    };
    assert!(made(vec![accept("a"), with_input("b", "a")]).is_ok());
    let earlier = |ids: &str| format!("input of call of step `b` comes from step `b`, earlier steps are: {ids}");
    refused(vec![with_input("b", "b")], &earlier("none"));
    refused(vec![accept("a"), with_input("b", "b"), accept("c")], &earlier("a"));
    // Its own step is earlier than a compensation.
    assert!(made(vec![charge("a")]).is_ok());
    let mut other = charge("a");
    other.compensation.as_mut().unwrap().inputs[0].step_id = "z".to_owned();
    refused(vec![other], "input of compensation of step `a` comes from step `z`, earlier steps are: a");
}

#[test]
fn a_step_is_shown_in_json() {
    let workflow = of(vec![charge("a")]);
    let step = shown(&METHODS, workflow.steps[0].clone()).step.unwrap();
    for call in [step.call.unwrap(), step.compensation.unwrap()] {
        assert!(matches!(call.request.unwrap().form, Some(Form::Json(_))), "{}", call.method);
    }
}
