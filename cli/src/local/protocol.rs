//! The supervisor's protocol: requests and responses, one line of JSON each, over a unix socket in the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::desired::{Definition, Node, Role};
use crate::model::rollout::Advance;
use crate::model::trace::{Span, TracePrefix};

/// The version of this protocol. A client refuses to talk to a supervisor with another one.
pub const PROTOCOL: u32 = 5;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Which supervisor is this? Answered by [`Response::Pong`].
    Ping,
    /// What should run and what does. Answered by [`Response::Description`].
    Describe,
    /// Starts a node; restarts it if its specification differs. Answered by [`Response::Done`] at once; the description
    /// says when it runs.
    PutNode {
        /// Name of the node.
        name: String,
        /// What should run.
        spec: NodeSpec,
    },
    /// Restarts a node, also if its specification is the same. Answered by [`Response::Done`] at once; the description says when it runs.
    RestartNode {
        /// Name of the node.
        name: String,
        /// What should run.
        spec: NodeSpec,
    },
    /// Restarts a node like [`Request::RestartNode`], but by lame duck: its clients and leaders move to others before it stops. Answered by
    /// [`Response::Done`] at once; the description says when it runs.
    RollNode {
        /// Name of the node.
        name: String,
        /// What should run.
        spec: NodeSpec,
    },
    /// Stops and removes a node. Answered by [`Response::Done`] when its process has exited.
    DeleteNode {
        /// Name of the node.
        name: String,
    },
    /// Deploys or scales a service. Answered by [`Response::Accepted`] when the deployment has
    /// started; its progress is in the description.
    PutService(Box<PutService>),
    /// Stops and removes a service. Answered by [`Response::Done`] when its processes have exited.
    DeleteService {
        /// Name of the service.
        name: String,
    },
    /// Stops one task of a service; the supervisor starts another in its place at once, as ECS does after `StopTask`. Answered by
    /// [`Response::Done`] when its process has been sent SIGTERM.
    StopTask {
        /// Name of the service.
        service: String,
        /// See [`TaskStatus::id`].
        task: String,
    },
    /// Finds traces among the spans that tasks have exported lately. Answered by [`Response::Traces`].
    FindTraces {
        /// What their ids begin with.
        prefix: TracePrefix,
    },
    /// Stops and removes every service, then every node, and ends the supervisor. Answered by [`Response::Done`] when all processes have
    /// exited.
    Shutdown,
}

impl Request {
    /// Whether it is answered only when processes have exited, which may take as long as their stop timeouts.
    pub(super) fn waits_for_processes(&self) -> bool {
        matches!(self, Self::DeleteNode { .. } | Self::DeleteService { .. } | Self::Shutdown)
    }
}

/// What the supervisor sends back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Ping`].
    Pong(SupervisorStatus),
    /// To [`Request::Describe`].
    Description(Box<Description>),
    /// To [`Request::PutService`].
    Accepted(Accepted),
    /// To [`Request::FindTraces`].
    Traces(Box<FoundTraces>),
    /// The request was carried out.
    Done,
    /// The request was not carried out.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// The deployment that a request has started or, if nothing had to change, the latest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Number of the deployment, unique for the service.
    pub deployment_id: u64,
    /// Number of the revision.
    pub revision: u64,
}

/// The traces that a prefix matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundTraces {
    /// How many there are.
    pub matching: usize,
    /// Their ids, at most ten.
    pub ids: Vec<String>,
    /// The spans of the only one, in no order.
    pub spans: Vec<Span>,
    /// How many spans of all traces are stored.
    pub stored: usize,
    /// When the first of them started, in nanoseconds since 1970; `None` if there are none.
    pub since_ns: Option<u64>,
}

/// How to run a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Version and digest of the configuration. The node is restarted when they change.
    pub node: Node,
    /// The server binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Path of its configuration, for display.
    pub config_path: PathBuf,
    /// Where it says how it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Monitor>,
}

/// Where a node serves its health and metrics, on 127.0.0.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// Its port.
    pub port: u16,
    /// What its paths begin with; empty if with nothing.
    pub path: String,
}

impl NodeSpec {
    /// Whether the server can become the other without a restart.
    pub(crate) fn differs_in_accounts_only(&self, other: &Self) -> bool {
        let mut same = self.clone();
        same.node.accounts.clone_from(&other.node.accounts);
        self != other && same == *other
    }
}

/// How to run a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutService {
    /// Name of the service.
    pub name: String,
    /// How to run a task.
    pub spec: TaskSpec,
    /// The number of tasks that the manifest asks for.
    pub declared_tasks: u32,
    /// The number of tasks that should run.
    pub tasks: u32,
    /// Where this service listens for HTTP clients, if it does. Port 0: any free port, the same at every start.
    pub http_listen: Option<SocketAddr>,
    /// Whether an equal definition is deployed again.
    pub force: Force,
}

/// Whether an equal definition is deployed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// It is not: only the number of tasks is set.
    IfChanged,
    /// It is: all tasks are replaced.
    NewDeployment,
}

/// How to run a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The definition of the revision.
    pub definition: Definition,
    /// The binary, a stored artifact.
    pub program: PathBuf,
    /// Its environment variables. The supervisor adds `PATH`, `HOME`, `TMPDIR`, `TASK_ID`, `SERVICE_REVISION` and those of the inherited
    /// sockets.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are in these files when the task starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, PathBuf>,
}

/// The supervisor itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id.
    pub pid: u32,
    /// The version of its `natsctl`.
    pub version: String,
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
}

/// What should run, and what does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// `None`: no supervisor and so no other process runs. The rest is what the next supervisor would start.
    pub supervisor: Option<SupervisorStatus>,
    /// NATS servers by name.
    pub nodes: BTreeMap<String, NodeStatus>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceStatus>,
    /// Why the last change of all this could not be saved: it is lost when the supervisor ends.
    #[serde(default)]
    pub unsaved: Option<String>,
}

impl Description {
    /// Digests of the artifacts of all stored revisions, which a task or a rollback may need.
    pub fn artifacts(&self) -> BTreeSet<String> {
        let services = self.services.values();
        services.flat_map(|service| &service.revisions).map(|stored| stored.definition.artifact.clone()).collect()
    }
}

/// One NATS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What should run.
    pub spec: NodeSpec,
    /// Whether its process runs.
    pub running: bool,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// Milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// How often it was restarted after it had exited unexpectedly.
    pub restarts: u32,
    /// How its last process exited.
    pub last_exit: Option<Exit>,
    /// The last lines of its log, if it is down.
    pub log_tail: Vec<String>,
    /// Whether its health check has been ok since it was started.
    #[serde(default)]
    pub has_been_healthy: bool,
    /// What its health check says, if that is not ok.
    #[serde(default)]
    pub failing: Option<FailedCheck>,
}

/// A health check that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    /// What is wrong.
    pub reason: String,
    /// Since when it has failed without a break, in milliseconds since 1970.
    pub since_ms: u64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The definition of the current revision.
    pub definition: Definition,
    /// Number of the current revision, from 1.
    pub revision: u64,
    /// Revisions other than the current one that completed a deployment, the latest first: the targets of a rollback.
    pub previous: Vec<Revision>,
    /// All stored revisions, those of failed deployments too, by number.
    #[serde(rename = "kept")]
    pub revisions: Vec<Revision>,
    /// The number of tasks that the manifest asked for.
    pub declared_tasks: u32,
    /// The number of tasks that should run.
    pub desired: u32,
    /// Where it listens for HTTP clients.
    pub http: Option<SocketAddr>,
    /// Its tasks, those in backoff too, oldest first.
    pub tasks: Vec<TaskStatus>,
    /// Whether the last deployment that has ended failed.
    pub failed: bool,
    /// The last deployments, the latest first, never empty.
    pub deployments: Vec<Deployment>,
}

impl ServiceStatus {
    /// Tasks of the current revision that are ready.
    pub fn ready(&self) -> u32 {
        let ready = |task: &&TaskStatus| task.revision == self.revision && task.state == TaskState::Ready;
        self.tasks.iter().filter(ready).count().try_into().unwrap_or(u32::MAX)
    }

    /// How far its deployment is.
    pub(super) fn advance(&self) -> Advance {
        let of_revision = self.tasks.iter().filter(|task| task.revision == self.revision);
        let generation = of_revision.map(|task| task.generation).max();
        let is_new = |task: &&TaskStatus| task.revision == self.revision && Some(task.generation) == generation;
        let (new, old): (Vec<&TaskStatus>, Vec<_>) = self.tasks.iter().partition(is_new);
        let count = |tasks: usize| tasks.try_into().unwrap_or(u32::MAX);
        let waits =
            |task: &&TaskStatus| matches!(task.state, TaskState::Starting | TaskState::Unready | TaskState::Stopped);
        Advance {
            revision: self.revision,
            new: count(new.iter().filter(|task| task.state == TaskState::Ready).count()),
            desired: self.desired,
            old: count(old.iter().filter(|task| task.state == TaskState::Ready).count()),
            old_left: count(old.len()),
            waits_for: new.into_iter().filter(waits).find_map(|task| task.reason.clone()),
        }
    }

    /// Whether it should take HTTP requests and does not: another process had its port when the supervisor started.
    pub fn lacks_listener(&self) -> bool {
        self.definition.role == Role::Gateway && self.http.is_none()
    }

    /// The latest deployment.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.deployments.first()
    }
}

/// A numbered definition of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// What a task of it runs.
    pub definition: Definition,
}

/// One task of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Unique in the environment; the name of its log file.
    pub id: String,
    /// Which revision it runs.
    pub revision: u64,
    /// The deployment that first started tasks like it: a restart starts others of the same revision. 0 if the supervisor does not say it.
    #[serde(default)]
    pub generation: u64,
    /// Its process id, unless it is stopped.
    pub pid: Option<u32>,
    /// Where it is in its life cycle.
    pub state: TaskState,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// How many tasks in a row, each the replacement of the one before, have exited unexpectedly before it.
    pub restarts: u32,
    /// The port of its health endpoints, on 127.0.0.1.
    pub health_port: Option<u16>,
    /// How it, or else the task that it replaces, exited.
    pub last_exit: Option<Exit>,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// When it, and those that it replaces, exited unexpectedly after they had been ready: the last ten, in milliseconds since 1970.
    #[serde(default)]
    pub exits_ms: Vec<u64>,
}

/// Where a task is in its life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It has not been ready yet.
    Starting,
    /// It accepts requests.
    Ready,
    /// It was ready and is not any more.
    Unready,
    /// It was asked to stop, and finishes its requests.
    Draining,
    /// It exited unexpectedly, and is restarted after a backoff.
    Stopped,
}

/// A change of what a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Unique for the service, ascending.
    pub id: u64,
    /// The revision that it deploys.
    pub revision: u64,
    /// How far it has come.
    pub state: DeploymentState,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// Milliseconds since 1970.
    pub ended_at_ms: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The task that made it fail.
    pub task: Option<String>,
    /// The last lines of that task's log.
    pub log_tail: Vec<String>,
}

/// How far a deployment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Tasks are being started and stopped.
    InProgress,
    /// All desired tasks are ready, and no others are left.
    Completed,
    /// It was rolled back; the revision that ran before keeps running.
    Failed,
    /// Another deployment has replaced it before it ended.
    Superseded,
}

/// How a process exited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It was never started.
    NotStarted(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(9) => write!(f, "was ended by signal 9 (SIGKILL)"),
            Self::Signal(15) => write!(f, "was ended by signal 15 (SIGTERM)"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::NotStarted(reason) => write!(f, "could not be started: {reason}"),
        }
    }
}
