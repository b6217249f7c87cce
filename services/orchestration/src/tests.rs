//! The service against a real nats-server, with services that the tests make up.

use std::sync::{Arc, Mutex};

use proto::orchestration::v1::payload::Form;
use proto::orchestration::v1::{Payload, Progress, Step, StepState, WorkflowState};
use proto::orchestration::workflow::v1::{Compensated, CompensationFailed, CompensationStarted, Completed};
use proto::payment::v1::{ChargeRequest, ChargeResponse, Entry, RefundRequest, RefundResponse};
use proto::quest::v1::{AcceptRequest, AcceptResponse, QuestInfo};
use sdk::Event as _;
use sdk::testing::{Fake, NatsServer, Time, as_request};

use super::*;
use crate::testing::{accept, charge};

/// The time within which a workflow ends.
const SOON: Duration = Duration::from_secs(20);

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("workflows", 1).await;
    let subjects = [
        Started::SUBJECT,
        Completed::SUBJECT,
        CompensationStarted::SUBJECT,
        Compensated::SUBJECT,
        CompensationFailed::SUBJECT,
    ];
    server.stream("EVENTS", &subjects).await;
    server.outboxes(&["workflows"], "EVENTS").await;
    server
}

async fn service(server: &NatsServer, time: &Time, others: &Fake) -> Service {
    let mut service = Service::new(server.fleet_at("orchestration", time).await).await.unwrap();
    service.0.channel = others.client();
    service
}

/// What services were asked: what, and with which idempotency key.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, String)>>>);

impl Asked {
    fn note(&self, what: String) {
        let key = sdk::context().idempotency_key().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push((what, key));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, key)| key.clone()).collect()
    }

    /// A payment that gives each charge an id, and a quest-system that knows no quest `none`.
    fn others(&self) -> Fake {
        let (charged, refunded, accepted) = (self.clone(), self.clone(), self.clone());
        let charge = move |request: ChargeRequest| {
            charged.note(format!("charge {}", request.account_id));
            let entry = Entry { id: format!("entry of {}", request.account_id), ..Entry::default() };
            Ok(ChargeResponse::from(entry))
        };
        let refund = move |request: RefundRequest| {
            refunded.note(format!("refund {}", request.charge_id));
            Ok(RefundResponse::default())
        };
        let accept = move |request: AcceptRequest| {
            accepted.note(format!("accept {}", request.quest_id));
            match &*request.quest_id {
                "none" => Err(Error::not_found("quest `none`")),
                id => Ok(AcceptResponse::from(QuestInfo { id: id.to_owned(), ..QuestInfo::default() })),
            }
        };
        Fake::default().on(charge).on(refund).on(accept)
    }
}

impl Service {
    async fn started(&self, key: Option<&str>, id: &str, steps: Vec<Step>) -> Result<Workflow, Error> {
        let request = StartRequest { meta: None, workflow_id: id.to_owned(), steps };
        Ok(as_request(key, self.start(request)).await?.workflow.unwrap())
    }

    async fn status_of(&self, id: &str) -> Result<Workflow, Error> {
        Ok(self.status(StatusRequest { meta: None, workflow_id: id.to_owned() }).await?.workflow.unwrap())
    }

    async fn is_cancelled(&self, id: &str) -> Result<Workflow, Error> {
        let request = CancelRequest { meta: None, workflow_id: id.to_owned() };
        Ok(as_request(None, self.cancel(request)).await?.workflow.unwrap())
    }

    async fn retry(&self, id: &str, undone: &[&str]) -> Result<Workflow, Error> {
        let undone_step_ids = undone.iter().map(|id| (*id).to_owned()).collect();
        let request = RetryCompensationsRequest { meta: None, workflow_id: id.to_owned(), undone_step_ids };
        Ok(as_request(None, self.retry_compensations(request)).await?.workflow.unwrap())
    }

    /// The workflow when it has ended.
    async fn ended(&self, id: &str) -> Workflow {
        let ended = async {
            loop {
                let workflow = self.status_of(id).await.unwrap();
                if saga::has_ended(workflow.state()) {
                    return workflow;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, ended).await.expect("the workflow ends")
    }
}

fn states(workflow: &Workflow) -> Vec<StepState> {
    workflow.steps.iter().map(Progress::state).collect()
}

async fn events(server: &NatsServer) -> Vec<String> {
    let stored = server.stored_from(&["workflows"], "EVENTS").await;
    let name = |subject: &str| subject.split('.').nth(3).unwrap_or_default().to_owned();
    stored.iter().map(|stored| name(&stored.subject)).collect()
}

#[tokio::test]
async fn a_workflow_calls_its_steps_and_tells_what_they_answered() {
    let (server, asked) = (server().await, Asked::default());
    let service = service(&server, &Time::default(), &asked.others()).await;
    let started = service.started(Some("k"), "w", vec![charge("alice"), accept("q")]).await.unwrap();
    assert_eq!(started.state(), WorkflowState::Running);
    let ended = service.ended("w").await;
    assert_eq!((ended.state(), states(&ended)), (WorkflowState::Completed, vec![StepState::Completed; 2]));
    assert_eq!(asked.all(), ["charge alice", "accept q"]);
    let prefix = format!("w/{}", started.run_id);
    assert_eq!(asked.keys(), [format!("{prefix}/alice/call"), format!("{prefix}/q/call")]);
    let Some(Payload { form: Some(Form::Json(response)) }) = &ended.steps[1].response else { panic!("{ended:?}") };
    assert!(response.fields.contains_key("quest"), "{response:?}");
    assert_eq!(events(&server).await, ["started", "completed"]);

    // The same request again starts nothing.
    service.started(Some("k"), "w", vec![charge("alice"), accept("q")]).await.unwrap();
    assert_eq!(asked.all().len(), 2);
    let error = service.started(None, "w", vec![accept("q")]).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::AlreadyExists, "workflow `w` exists already"));
}

#[tokio::test]
async fn a_step_that_fails_has_what_was_done_before_undone() {
    let (server, asked) = (server().await, Asked::default());
    let service = service(&server, &Time::default(), &asked.others()).await;
    service.started(None, "w", vec![charge("alice"), charge("bob"), accept("none")]).await.unwrap();
    let ended = service.ended("w").await;
    assert_eq!((ended.state(), &*ended.failed_step_id), (WorkflowState::Compensated, "none"));
    assert_eq!(ended.failure.unwrap().message, "quest `none` does not exist");
    assert_eq!(
        asked.all(),
        ["charge alice", "charge bob", "accept none", "refund entry of bob", "refund entry of alice"]
    );
    assert_eq!(events(&server).await, ["started", "compensation_started", "compensated"]);
}

#[tokio::test]
async fn a_compensation_that_fails_is_reported_and_tried_again() {
    let (server, asked) = (server().await, Asked::default());
    let refused = |_: RefundRequest| Err::<RefundResponse, _>(Error::failed_precondition("the account is closed"));
    let service_of = async |others: &Fake| service(&server, &Time::default(), others).await;
    let service = service_of(&asked.others().on(refused)).await;
    service.started(None, "w", vec![charge("alice"), charge("bob"), accept("none")]).await.unwrap();
    let failed = service.ended("w").await;
    let both = vec![StepState::CompensationFailed, StepState::CompensationFailed, StepState::Failed];
    assert_eq!((failed.state(), states(&failed)), (WorkflowState::CompensationFailed, both));
    assert_eq!(failed.steps[0].compensation_error.as_ref().unwrap().message, "the account is closed");
    assert_eq!(events(&server).await, ["started", "compensation_started", "compensation_failed"]);

    let error = service.retry("w", &["carol"]).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "undone_step_ids has `carol`, steps whose compensations failed are: alice, bob")
    );
    let mended = service_of(&asked.others()).await;
    mended.retry("w", &["bob"]).await.unwrap();
    assert_eq!(mended.ended("w").await.state(), WorkflowState::Compensated);
    assert_eq!(asked.all()[3..], ["refund entry of alice"]);
    assert_eq!(mended.retry("w", &[]).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn another_worker_goes_on_where_one_stopped_and_the_first_one_changes_nothing_more() {
    let (server, time, asked) = (server().await, Time::default(), Asked::default());
    // A worker whose second call takes too long.
    let slow = service(&server, &time, &asked.others().silent::<AcceptRequest>()).await;
    let other = service(&server, &time, &asked.others()).await;
    let steps = vec![charge("alice"), Step { retries: Some(0), ..accept("q") }];
    let started = slow.started(None, "w", steps).await.unwrap();
    let second = async {
        loop {
            let workflow = other.status_of("w").await.unwrap();
            let is_known = other.0.pending.revision() >= workflow.revision;
            if workflow.steps[1].state() == StepState::Running && is_known {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, second).await.expect("the second step is called");
    time.pass(Duration::from_millis(7_999));
    other.turn().await.unwrap();
    assert_eq!(asked.all(), ["charge alice"]);
    time.pass(Duration::from_millis(1));
    other.turn().await.unwrap();
    let ended = other.ended("w").await;
    assert_eq!((ended.state(), ended.steps[1].attempts), (WorkflowState::Completed, 2));
    assert!(ended.takeovers == 1 && ended.owner != started.owner);
    // The first step is not called again, and the second one has the same key.
    assert_eq!(asked.all(), ["charge alice", "accept q"]);
    assert!(asked.keys()[1].ends_with("/q/call"));

    // Alone, the slow worker would have compensated the workflow.
    let gives_up = async {
        while std::iter::from_fn(|| slow.0.try_begin()).collect::<Vec<_>>().len() < runner::CONCURRENT {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, gives_up).await.expect("the slow worker gives up");
    assert_eq!(other.status_of("w").await.unwrap(), ended);
    assert_eq!(events(&server).await, ["started", "completed"]);
}

#[tokio::test]
async fn a_workflow_waits_while_all_have_enough_to_do() {
    let (server, time, asked) = (server().await, Time::default(), Asked::default());
    let service = service(&server, &time, &asked.others()).await;
    let busy: Vec<_> = std::iter::from_fn(|| service.0.try_begin()).collect();
    let waiting = service.started(None, "w", vec![charge("alice")]).await.unwrap();
    assert_eq!(states(&waiting), [StepState::Pending]);
    service.turn().await.unwrap();
    assert_eq!(service.status_of("w").await.unwrap().steps[0].state(), StepState::Pending);
    drop(busy);
    service.turn().await.unwrap();
    assert_eq!(service.ended("w").await.state(), WorkflowState::Completed);
    // A day after its end it is forgotten.
    time.pass(pending::KEPT_AFTER_END + Duration::from_secs(1));
    service.turn().await.unwrap();
    assert_eq!(service.status_of("w").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_cancelled_workflow_is_undone_and_a_completed_one_is_not_cancelled() {
    let (server, time, asked) = (server().await, Time::default(), Asked::default());
    let slow = asked.others().silent::<AcceptRequest>();
    let service = service(&server, &time, &slow).await;
    let never = Step { timeout_ms: 300, retries: Some(10), ..accept("q") };
    service.started(None, "w", vec![charge("alice"), never]).await.unwrap();
    let cancelled = service.is_cancelled("w").await.unwrap();
    assert!(cancelled.cancel_requested);
    let ended = service.ended("w").await;
    assert_eq!((ended.state(), ended.failure), (WorkflowState::Compensated, None));
    assert_eq!(asked.all(), ["charge alice", "refund entry of alice"]);
    let ended = service.is_cancelled("w").await.unwrap();
    assert_eq!(ended.state(), WorkflowState::Compensated);

    service.started(None, "done", vec![charge("alice")]).await.unwrap();
    service.ended("done").await;
    let error = service.is_cancelled("done").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "workflow `done` is completed"));
    assert_eq!(service.is_cancelled("none").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_cannot_be_called_is_refused_and_nothing_is_stored() {
    let (server, asked) = (server().await, Asked::default());
    let service = service(&server, &Time::default(), &asked.others()).await;
    let mut robbery = charge("alice");
    robbery.call.as_mut().unwrap().method = "auth.v1.Auth/Login".to_owned();
    let error = service.started(None, "w", vec![robbery]).await.unwrap_err();
    let methods = "method of call of step `alice` is `auth.v1.Auth/Login`, it must be a method of payment.v1.Payment, ";
    assert!(error.code() == Code::InvalidArgument && error.message().starts_with(methods), "{error}");
    let error = service.started(None, "a.b", vec![charge("alice")]).await.unwrap_err();
    assert_eq!(error.message(), "workflow id must be 1 to 64 letters, digits, `_` and `-`");
    let methods = service.list_methods(ListMethodsRequest::default()).await.unwrap().methods;
    assert!(methods.iter().any(|method| method.subject == "svc.quest.v1.accept"), "{methods:?}");
    let request = ListRequest { limit: 201, ..ListRequest::default() };
    assert_eq!(service.list(request).await.unwrap_err().message(), "limit is 201, it must be 1 to 200");
    assert_eq!(service.list(ListRequest::default()).await.unwrap().workflows, []);
    assert_eq!(asked.all(), [""; 0]);
}

#[tokio::test]
async fn ten_thousand_workflows_are_the_most() {
    let (server, asked) = (server().await, Asked::default());
    let service = service(&server, &Time::default(), &asked.others()).await;
    for number in 0..MAX_WORKFLOWS {
        let id = format!("w{number}");
        service.0.pending.wrote(sdk::testing::written(&id, 1, Workflow { id: id.clone(), ..Workflow::default() }));
    }
    let error = service.started(None, "one-more", vec![charge("alice")]).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    let first = service.list(ListRequest { limit: 1, ..ListRequest::default() }).await.unwrap().workflows;
    assert_eq!(first[0].id, "w0");
    let ids = service.list(ListRequest { after_id: "w9998".to_owned(), ..ListRequest::default() }).await.unwrap();
    assert_eq!(ids.workflows.len(), 1);
}
