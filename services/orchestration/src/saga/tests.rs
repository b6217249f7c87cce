use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::orchestration::v1::Step;
use proto::payment::v1::{ChargeResponse, Entry, RefundRequest};

use Answer::{Cancelled, Conflict, Died, Done, Lost, Refused};
use WorkflowState::{Compensated as Undone, CompensationFailed as NotUndone, Completed as AllDone};

use super::*;
use crate::methods;
use crate::testing::{METHODS, accept, charge, of, workflow};

const START: SystemTime = SystemTime::UNIX_EPOCH;

/// What an attempt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Refused,
    Lost,
    Conflict,
    /// The worker dies, and another one takes over.
    Died,
    /// The workflow is cancelled while the call is under way, which is then carried out.
    Cancelled,
}

fn outcome(answer: Answer) -> Result<Bytes, Error> {
    let entry = Some(Entry { id: "e1".to_owned(), ..Entry::default() });
    match answer {
        Answer::Done | Answer::Cancelled => Ok(ChargeResponse { error: None, entry }.encode_to_vec().into()),
        Answer::Refused => Err(Error::failed_precondition("no")),
        Answer::Lost | Answer::Died => Err(Error::unavailable("lost")),
        Answer::Conflict => Err(Error::new(Code::Aborted, "too many writers")),
    }
}

fn is_compensation(attempt: &Attempt) -> bool {
    attempt.idempotency_key.ends_with("/compensation")
}

/// What is called, as `step` or `-step` for a compensation, until the answers are used up or the workflow has ended; and the
/// kinds of its events.
fn play(workflow: Workflow, answers: &[Answer]) -> (Workflow, Vec<String>, Vec<&'static str>) {
    let mut workflow = begun(workflow, "w1", START);
    let (mut calls, mut events) = (Vec::new(), Vec::new());
    for answer in answers {
        let Some(attempt) = attempt(&workflow) else { break };
        let step = attempt.idempotency_key.split('/').nth(2).unwrap();
        calls.push(if is_compensation(&attempt) { format!("-{step}") } else { step.to_owned() });
        if *answer == Answer::Cancelled {
            workflow = cancelled(&workflow).unwrap();
        }
        let changed = match answer {
            Answer::Died => taken_over(&workflow, "w2", START).unwrap(),
            _ => after(&METHODS, &workflow, &attempt, &outcome(*answer), START),
        };
        events.extend(changed.events.iter().map(|event| match event {
            Event::Completed(_) => "completed",
            Event::CompensationStarted(_) => "started",
            Event::Compensated(_) => "compensated",
            Event::CompensationFailed(_) => "failed",
        }));
        workflow = changed.workflow;
    }
    (workflow, calls, events)
}

#[track_caller]
fn check(answers: &[Answer], calls: &[&str], end: WorkflowState, events: &[&str]) -> Workflow {
    let (workflow, called, happened) = play(workflow(&["a", "b", "c"]), answers);
    let called: Vec<&str> = called.iter().map(String::as_str).collect();
    assert_eq!((&called[..], workflow.state(), &happened[..]), (calls, end, events));
    workflow
}

#[test]
fn steps_are_called_one_after_another() {
    let workflow = check(&[Done; 9], &["a", "b", "c"], AllDone, &["completed"]);
    assert!(workflow.ended_at.is_some() && workflow.failure.is_none());
    assert!(workflow.steps.iter().all(|progress| progress.response.is_some() && progress.attempts == 1));
}

#[test]
fn what_was_carried_out_before_a_refusal_is_undone_in_reverse_order() {
    let undone = &["started", "compensated"];
    let workflow = check(&[Done, Done, Refused, Done, Done, Done], &["a", "b", "c", "-b", "-a"], Undone, undone);
    assert_eq!((&*workflow.failed_step_id, workflow.failure.unwrap().message), ("c", "no".to_owned()));
    check(&[Refused], &["a"], Undone, undone);
    // Without compensation there is nothing to undo.
    let (workflow, calls, _) = play(of(vec![charge("a"), accept("b"), charge("c")]), &[Done, Done, Refused, Done]);
    assert_eq!((workflow.state(), calls.last().unwrap().as_str()), (Undone, "-a"));
    assert_eq!(workflow.steps[1].state(), StepState::Completed);
}

#[test]
fn a_call_without_an_answer_is_repeated_as_often_as_the_step_says() {
    check(&[Lost, Conflict, Lost, Done, Done, Done], &["a", "a", "a", "a", "b", "c"], AllDone, &["completed"]);
    // What only lost against other writers has changed nothing.
    check(&[Conflict; 9], &["a", "a", "a", "a"], Undone, &["started", "compensated"]);
    let once = Step { retries: Some(0), ..charge("a") };
    let (_, calls, _) = play(of(vec![once]), &[Lost, Done, Done]);
    assert_eq!(calls, ["a", "a", "-a"]);
}

#[test]
fn a_step_whose_outcome_is_not_known_is_settled_before_it_is_undone() {
    let all_lost = [Lost; 4];
    let undone = &["started", "compensated"];
    // It had been carried out, or is now: then it is undone.
    let answers = [&all_lost[..], &[Lost, Done, Done]].concat();
    let workflow = check(&answers, &["a", "a", "a", "a", "a", "a", "-a"], Undone, undone);
    assert_eq!(workflow.steps[0].state(), StepState::Compensated);
    // It had not been: then there is nothing to undo.
    let workflow = check(&[&all_lost[..], &[Refused]].concat(), &["a"; 5], Undone, undone);
    assert_eq!(workflow.steps[0].state(), StepState::Failed);
    // It is not to be learnt.
    let workflow = check(&[Lost; 99], &["a"; 15], NotUndone, &["started", "failed"]);
    assert_eq!(workflow.steps[0].state(), StepState::CompensationFailed);
    assert!(workflow.steps[0].completed_at.is_none());
}

#[test]
fn a_compensation_that_fails_is_repeated_and_then_reported_and_the_others_go_on() {
    let begin = [Done, Done, Refused];
    let lost = [&begin[..], &[Lost; 10], &[Done, Done]].concat();
    let workflow =
        check(&lost, &[&["a", "b", "c"][..], &["-b"; 11], &["-a"]].concat(), Undone, &["started", "compensated"]);
    assert_eq!(workflow.steps[1].compensation_attempts, 11);
    let refused = [&begin[..], &[Refused, Done]].concat();
    let workflow = check(&refused, &["a", "b", "c", "-b", "-a"], NotUndone, &["started", "failed"]);
    assert_eq!(workflow.steps[1].compensation_error.as_ref().unwrap().message, "no");

    // It is tried again, or undone by hand.
    let again = retried(&workflow, &[], "w3", START).unwrap();
    assert_eq!(attempt(&again.workflow).unwrap().idempotency_key, "w/run/b/compensation");
    let by_hand = retried(&workflow, &["b".to_owned()], "w3", START).unwrap();
    assert_eq!(by_hand.workflow.state(), Undone);
    assert!(matches!(by_hand.events[..], [Event::Compensated(_)]));
    let error = retried(&workflow, &["a".to_owned()], "w3", START).unwrap_err();
    assert_eq!(error.message(), "undone_step_ids has `a`, steps whose compensations failed are: b");
    let error = retried(&by_hand.workflow, &[], "w3", START).unwrap_err();
    assert_eq!(error.message(), "workflow `w` is in WORKFLOW_STATE_COMPENSATED");
}

#[test]
fn a_cancelled_workflow_is_undone() {
    let undone = &["started", "compensated"];
    let workflow = check(&[Done, Cancelled, Done, Done], &["a", "b", "-b", "-a"], Undone, undone);
    assert!(workflow.failure.is_none() && workflow.failed_step_id.is_empty());
    // The last step does not save it.
    check(&[Done, Done, Cancelled, Done, Done, Done], &["a", "b", "c", "-c", "-b", "-a"], Undone, undone);
    let (ended, ..) = play(crate::testing::workflow(&["a"]), &[Done]);
    assert_eq!(cancelled(&ended).unwrap_err().message(), "workflow `w` is completed");
    assert_eq!(cancelled(&workflow).unwrap(), workflow);
    // What is not begun is not called.
    let waiting = cancelled(&crate::testing::workflow(&["a"])).unwrap();
    assert_eq!(taken_over(&waiting, "w2", START).unwrap().workflow.state(), Undone);
}

#[test]
fn a_workflow_that_is_taken_over_goes_on_where_it_was() {
    let answers = [Died, Done, Died, Died, Done, Done];
    let workflow = check(&answers, &["a", "a", "b", "b", "b", "c"], AllDone, &["completed"]);
    assert_eq!((workflow.takeovers, &*workflow.owner), (3, "w2"));
    assert!(taken_over(&workflow, "w3", START).is_none());
    // What a worker has handed over when it stopped is not begun.
    let begun = begun(crate::testing::workflow(&["a", "b"]), "w1", START);
    let changed = after(&METHODS, &begun, &attempt(&begun).unwrap(), &outcome(Done), START).handed_over();
    assert_eq!(patience(&changed.workflow), Duration::ZERO);
    let taken = taken_over(&changed.workflow, "w2", START).unwrap().workflow;
    assert_eq!((taken.takeovers, taken.steps[1].attempts, &*taken.owner), (0, 1, "w2"));
}

#[test]
fn a_worker_that_was_too_slow_is_not_at_what_is_under_way() {
    let slow = begun(crate::testing::workflow(&["a", "b"]), "w1", START);
    let late = attempt(&slow).unwrap();
    let taken = taken_over(&slow, "w2", START).unwrap().workflow;
    assert!(late.is_of(&slow) && !late.is_of(&taken) && taken.owner == "w2");
    assert_eq!(late.idempotency_key, attempt(&taken).unwrap().idempotency_key);
}

#[test]
fn a_compensation_gets_what_the_step_answered() {
    let (workflow, ..) = play(workflow(&["a", "b"]), &[Done, Refused]);
    let refund = attempt(&workflow).unwrap().call;
    let request = RefundRequest::decode(methods::encoded(refund.request.as_ref())).unwrap();
    assert_eq!((&*request.charge_id, request.amount_minor), ("e1", 5));
    assert_eq!(refund.inputs, []);
    // A response without it: the step was carried out, and what to undo is not known.
    let begun = begun(crate::testing::workflow(&["a"]), "w", START);
    let ended = after(&METHODS, &begun, &attempt(&begun).unwrap(), &Ok(Bytes::new()), START).workflow;
    assert_eq!(ended.failure.as_ref().unwrap().message, "the response of step `a` has no `entry.id`");
    assert_eq!((ended.state(), ended.steps[0].state()), (NotUndone, StepState::CompensationFailed));
    assert_eq!(ended.steps[0].compensation_error.as_ref().unwrap().message, "`entry.id` of step `a` is not known");
}

#[test]
fn a_call_is_not_repeated_when_it_may_be_forgotten() {
    let begun = begun(workflow(&["a"]), "w", START);
    let attempt = attempt(&begun).unwrap();
    assert_eq!(attempt.refusal(START + REPEATED_FOR), None);
    let late = START + REPEATED_FOR + Duration::from_secs(1);
    let error = attempt.refusal(late).unwrap();
    assert!(error.message().contains("not known"), "{error}");
    // Then it is not settled either.
    let first = after(&METHODS, &begun, &attempt, &Err(error.clone()), late).workflow;
    let settling = super::attempt(&first).unwrap();
    let end = after(&METHODS, &first, &settling, &Err(settling.refusal(late).unwrap()), late).workflow;
    assert_eq!(end.state(), NotUndone);
}

#[test]
fn pauses_grow_and_a_worker_is_given_time_for_them() {
    let delays = [1, 2, 3, 4, 9, 10, u32::MAX].map(|attempt| delay(attempt).as_millis());
    assert_eq!(delays, [0, 200, 400, 800, 25_600, 30_000, 30_000]);
    assert_eq!(patience(&workflow(&["a"])), Duration::ZERO);
    let begun = begun(workflow(&["a"]), "w", START);
    assert_eq!(patience(&begun), Duration::from_secs(8));
    let again = after(&METHODS, &begun, &attempt(&begun).unwrap(), &outcome(Lost), START).workflow;
    assert_eq!(patience(&again), Duration::from_millis(8_200));
}

#[test]
fn a_long_error_is_kept_in_short() {
    let error = Error::unavailable("ö".repeat(2_000)).with_detail("a", "b");
    let kept = recorded(&error);
    assert!(kept.encoded_len() <= MAX_ERROR + 8 && kept.details.is_empty() && kept.code() == Code::Unavailable);
    let short = Error::unavailable("no").with_detail("a", "b");
    assert_eq!(Error::from(recorded(&short)), short);
}

fn answer() -> impl Strategy<Value = Answer> {
    prop::sample::select(vec![Done, Done, Done, Refused, Lost, Conflict, Died, Cancelled])
}

proptest! {
    /// The service that is called carries out what it is asked, once for each key, whether or not its answer arrives.
    #[test]
    fn whatever_happens_no_step_is_called_again_that_is_completed_and_all_is_undone_or_done(
        answers in prop::collection::vec((answer(), any::<bool>()), 60..120),
    ) {
        let mut workflow = begun(workflow(&["a", "b", "c", "d"]), "w", START);
        let mut carried_out: BTreeSet<String> = BTreeSet::new();
        let mut order = Vec::new();
        for (answer, arrives) in answers {
            let Some(attempt) = attempt(&workflow) else { break };
            let key = attempt.idempotency_key.clone();
            let position = attempt.position;
            prop_assert_ne!(workflow.steps[position.step].state(), StepState::Completed);
            let is_carried_out = match answer {
                Done | Cancelled => true,
                Lost | Died => arrives,
                Refused | Conflict => false,
            };
            // What was carried out once is answered as it was then.
            let known = carried_out.contains(&key);
            let answer = if known && matches!(answer, Refused | Conflict) { Done } else { answer };
            if is_carried_out && carried_out.insert(key.clone()) {
                order.push(key.clone());
            }
            if answer == Cancelled && workflow.state() == WorkflowState::Running {
                workflow = cancelled(&workflow).unwrap();
            }
            workflow = match answer {
                Died => taken_over(&workflow, "w", START).unwrap().workflow,
                _ => after(&METHODS, &workflow, &attempt, &outcome(answer), START).workflow,
            };
        }
        let key = |id: &str, part: &str| format!("w/run/{id}/{part}");
        let done = |id: &str, part: &str| carried_out.contains(&key(id, part));
        for (id, progress) in ["a", "b", "c", "d"].iter().zip(&workflow.steps) {
            match workflow.state() {
                AllDone => prop_assert!(done(id, "call") && !done(id, "compensation")),
                Undone => prop_assert_eq!(done(id, "call"), done(id, "compensation"), "step {}", id),
                NotUndone if progress.state() != StepState::CompensationFailed => {
                    prop_assert_eq!(done(id, "call"), done(id, "compensation"), "step {}", id);
                }
                _ => {}
            }
        }
        let undone: Vec<&String> = order.iter().filter(|key| key.ends_with("compensation")).collect();
        prop_assert!(undone.is_sorted_by(|one, next| one > next), "{:?}", undone);
    }
}
