//! Tasks that are killed at any moment while they run workflows. `KILLS=200` for the long run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use proto::orchestration::v1::payload::Form;
use proto::orchestration::v1::{
    Call, Orchestration as _, OrchestrationClient, Payload, StartRequest, StatusRequest, Step, Workflow, WorkflowState,
};
use proto::orchestration::workflow::v1::{Compensated, CompensationFailed, CompensationStarted, Completed, Started};
use proto::payment::v1::{ChargeRequest, PAYMENT};
use proto::rpc::{Reply, Server, Service};
use sdk::testing::{NatsServer, Program, as_request, kills};
use sdk::{Error, Event as _, Shutdown};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often tasks are killed, unless `KILLS` says another number.
const KILLS: usize = 8;
const WORKFLOWS_PER_KILL: usize = 10;
/// The time within which a request is answered, and within which every workflow has ended after the last kill.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// The events of workflows that have ended.
const ENDS: [&str; 2] = [Completed::SUBJECT, Compensated::SUBJECT];
/// What the last step of some workflows is for: it is refused.
const REFUSED: &str = "refused";

/// A task of the service.
fn task(server: &NatsServer) -> Program {
    Program::start(env!("CARGO_BIN_EXE_orchestration"), "orchestration", server)
}

/// What the called service has carried out. It carries each idempotency key out once, as every service does.
#[derive(Debug, Default)]
struct Done {
    /// Calls, by workflow, in the order in which they were first carried out.
    calls: BTreeMap<String, Vec<String>>,
    keys: BTreeSet<String>,
    /// How many calls came once more, before their outcome was stored.
    repeated: usize,
    /// Calls that came once more although a later call shows that their outcome was stored.
    repeated_although_stored: Vec<String>,
}

impl Done {
    fn note(&mut self, key: &str) {
        let mut parts = key.split('/');
        let workflow = parts.next().unwrap_or_default().to_owned();
        let call = parts.skip(1).collect::<Vec<_>>().join("/");
        let calls = self.calls.entry(workflow).or_default();
        if self.keys.insert(key.to_owned()) {
            calls.push(call);
        } else if calls.last() == Some(&call) {
            self.repeated += 1;
        } else {
            self.repeated_although_stored.push(key.to_owned());
        }
    }
}

/// A payment of which the test sees what it does, and which waits until the test lets it answer.
struct Callee {
    done: Arc<Mutex<Done>>,
    answers: watch::Receiver<bool>,
}

impl Server for Callee {
    const SERVICE: &'static Service = &PAYMENT;

    async fn call(&self, _: usize, request: Bytes) -> Result<Reply, Error> {
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        let key = sdk::context().idempotency_key().expect("a key").to_owned();
        // Both requests have the account in field 2.
        let request = ChargeRequest::decode(request).expect("a charge");
        if request.account_id == REFUSED {
            return Err(Error::failed_precondition("no"));
        }
        self.done.lock().unwrap().note(&key);
        self.answers.clone().wait_for(|answers| *answers).await.expect("the test goes on");
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        Ok(Reply::Message(Bytes::new()))
    }
}

/// Serves the payment until it is dropped.
struct Payment {
    done: Arc<Mutex<Done>>,
    answers: watch::Sender<bool>,
    serving: JoinHandle<Result<(), Error>>,
}

impl Payment {
    async fn start(server: &NatsServer) -> Self {
        let done = Arc::new(Mutex::new(Done::default()));
        let answers = watch::Sender::new(true);
        let callee = Callee { done: Arc::clone(&done), answers: answers.subscribe() };
        let fleet = server.fleet("payment").await;
        let serving = tokio::spawn(async move {
            let (_never, shutdown) = Shutdown::new();
            sdk::serve(&fleet, callee, shutdown).await
        });
        Self { done, answers, serving }
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn call(account: &str) -> Option<Call> {
    let request = ChargeRequest { account_id: account.to_owned(), ..ChargeRequest::default() };
    let request = Some(Payload { form: Some(Form::Encoded(request.encode_to_vec().into())) });
    Some(Call { method: "payment.v1.Payment/Charge".to_owned(), request, inputs: Vec::new() })
}

/// A workflow of three to six steps, of which every other one is refused at its end.
fn workflow(id: String, number: usize) -> StartRequest {
    let is_refused = number % 2 == 1;
    let steps = (0..3 + number % 3).map(|step| Step {
        id: format!("s{step}"),
        call: call("account"),
        compensation: call("account"),
        timeout_ms: 1_000,
        ..Step::default()
    });
    let refusal = is_refused.then(|| Step { id: REFUSED.to_owned(), call: call(REFUSED), ..Step::default() });
    StartRequest { meta: None, workflow_id: id, steps: steps.chain(refusal).collect() }
}

/// What is carried out of a workflow in the end.
fn expected(request: &StartRequest) -> (WorkflowState, Vec<String>) {
    let steps: Vec<&str> = request.steps.iter().map(|step| &*step.id).filter(|id| *id != REFUSED).collect();
    let calls = steps.iter().map(|id| format!("{id}/call"));
    if steps.len() == request.steps.len() {
        return (WorkflowState::Completed, calls.collect());
    }
    let compensations = steps.iter().rev().map(|id| format!("{id}/compensation"));
    (WorkflowState::Compensated, calls.chain(compensations).collect())
}

/// Repeats a request with its key until it is answered.
async fn started(client: &OrchestrationClient, request: StartRequest) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    while let Err(error) = as_request(Some(&request.workflow_id), client.start(request.clone())).await {
        assert!(Instant::now() < deadline, "workflow {} was not started: {error}", request.workflow_id);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A workflow as it is now; `None` while no task answers.
async fn status(client: &OrchestrationClient, id: &str) -> Option<Workflow> {
    let request = StatusRequest { meta: None, workflow_id: id.to_owned() };
    as_request(None, client.status(request)).await.ok()?.workflow
}

/// The state of a workflow when it has ended.
async fn ended(client: &OrchestrationClient, id: &str) -> WorkflowState {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let workflow = status(client, id).await;
        match workflow.as_ref().map(Workflow::state) {
            None | Some(WorkflowState::Running | WorkflowState::Compensating) => {}
            Some(state) => return state,
        }
        assert!(Instant::now() < deadline, "workflow {id} has not ended: {workflow:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("workflows", 1).await;
    let others = [Started::SUBJECT, CompensationStarted::SUBJECT, CompensationFailed::SUBJECT];
    server.stream("EVENTS", &[&ENDS[..], &others].concat()).await;
    server.outboxes(&["workflows"], "EVENTS").await;
    server
}

#[expect(clippy::print_stdout, reason = "how many calls came twice shows that workflows were interrupted")]
#[tokio::test]
async fn no_step_is_lost_or_repeated_however_often_tasks_are_killed() {
    let kills = kills(KILLS);
    let server = server().await;
    let client: OrchestrationClient = server.fleet("caller").await.client();
    let payment = Payment::start(&server).await;

    let mut tasks = [task(&server), task(&server)];
    let mut requests = Vec::new();
    for kill in 0..kills {
        let batch: Vec<_> =
            (0..WORKFLOWS_PER_KILL).map(|number| workflow(format!("w{kill}-{number}"), number)).collect();
        let start = join_all(batch.iter().map(|request| started(&client, request.clone())));
        let kill = async {
            // From before it has connected until it has been running workflows for a while.
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..600_000))).await;
            tasks[fastrand::usize(..2)] = task(&server);
        };
        futures::join!(start, kill);
        requests.extend(batch);
    }

    for request in &requests {
        let (state, calls) = expected(request);
        assert_eq!(ended(&client, &request.workflow_id).await, state, "{}", request.workflow_id);
        let carried_out = payment.done.lock().unwrap().calls.get(&request.workflow_id).cloned().unwrap_or_default();
        assert_eq!(carried_out, calls, "{}", request.workflow_id);
    }
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for stored in server.stored_from(&["workflows"], "EVENTS").await {
        if ENDS.contains(&&*stored.subject) {
            // Both events have the same fields.
            *told.entry(Completed::decode(stored.payload).unwrap().workflow_id).or_default() += 1;
        }
    }
    assert!(told.len() == requests.len() && told.values().all(|count| *count == 1), "one end of each: {told:?}");
    let done = payment.done.lock().unwrap();
    assert_eq!(done.repeated_although_stored, [""; 0], "completed steps that were called again");
    println!("{} workflows, {} calls, of which {} came twice", requests.len(), done.keys.len(), done.repeated);
    drop(tasks);
}

/// The others wait for workers that died, and not for those that stop.
#[tokio::test]
async fn a_task_that_stops_hands_its_workflows_over() {
    let server = server().await;
    let client: OrchestrationClient = server.fleet("caller").await.client();
    let payment = Payment::start(&server).await;
    let first = task(&server);
    let requests: Vec<_> = (0..10).map(|number| patient(workflow(format!("w{number}"), number))).collect();
    payment.answers.send_replace(false);
    join_all(requests.iter().map(|request| started(&client, request.clone()))).await;
    let owners = join_all(requests.iter().map(|request| status(&client, &request.workflow_id))).await;
    let stopped = first.stop();
    while server.ping("orchestration").await {}
    let next = task(&server);
    // Only now the calls of the task that stops are answered.
    payment.answers.send_replace(true);
    for (request, before) in requests.iter().zip(owners) {
        let (state, calls) = expected(request);
        assert_eq!(ended(&client, &request.workflow_id).await, state);
        assert_eq!(payment.done.lock().unwrap().calls[&request.workflow_id], calls);
        let workflow = status(&client, &request.workflow_id).await.expect("a workflow");
        assert_eq!(workflow.takeovers, 0, "{workflow:?}");
        assert_ne!(workflow.owner, before.expect("a workflow").owner);
    }
    let status = tokio::task::spawn_blocking(stopped).await.unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(payment.done.lock().unwrap().repeated_although_stored, [""; 0]);
    drop(next);
}

/// The same workflow, whose calls may take as long as any.
fn patient(mut request: StartRequest) -> StartRequest {
    for step in &mut request.steps {
        step.timeout_ms = 20_000;
    }
    request
}
