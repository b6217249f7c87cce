//! What the supervisor is asked and what it answers: one line of JSON each, over a unix socket in the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::desired::{Definition, Node};

/// Number of this protocol. A client and a supervisor with different numbers do not talk to each other.
pub const PROTOCOL: u32 = 2;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who is there? Answered by [`Response::Pong`].
    Ping,
    /// Everything that is there. Answered by [`Response::Description`].
    Describe,
    /// Starts a node; restarts it if its specification differs. Answered by [`Response::Done`] before it runs.
    PutNode {
        /// Name of the node.
        name: String,
        /// What should run.
        spec: NodeSpec,
    },
    /// Stops a node and forgets it. Answered by [`Response::Done`] when its process is gone.
    DeleteNode {
        /// Name of the node.
        name: String,
    },
    /// Deploys or scales a service. Answered by [`Response::Accepted`] before anything has started.
    PutService(Box<PutService>),
    /// Stops a service and forgets it. Answered by [`Response::Done`] when its processes are gone.
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
    /// Stops every service, then every node, forgets them and ends. Answered by [`Response::Done`] when all processes are gone.
    Shutdown,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Ping`].
    Pong(SupervisorStatus),
    /// To [`Request::Describe`].
    Description(Box<Description>),
    /// To [`Request::PutService`].
    Accepted(Accepted),
    /// It is done.
    Done,
    /// It cannot be done.
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

/// A deployment that is under way, or that was there already if nothing had to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Number of the deployment, unique for the service.
    pub deployment_id: u64,
    /// Number of the revision.
    pub revision: u64,
}

/// How to run a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Version and digest of the configuration: with another one the node is restarted.
    pub node: Node,
    /// The server binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where its configuration is, to be shown.
    pub config_path: PathBuf,
}

/// How to run a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutService {
    /// Name of the service.
    pub name: String,
    /// What a task is.
    pub spec: TaskSpec,
    /// The number of tasks that the manifest asks for.
    pub declared_tasks: u32,
    /// The number of tasks that should run.
    pub tasks: u32,
    /// Where clients come in, if this service takes HTTP from them. Port 0: any free one, the same at the next start.
    pub http_listen: Option<SocketAddr>,
    /// Whether an equal definition is deployed again.
    pub force: Force,
}

/// Whether an equal definition is deployed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// Equal definition: only the number of tasks is set.
    IfChanged,
    /// All tasks are replaced in any case.
    NewDeployment,
}

/// What a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// What the revision is made of.
    pub definition: Definition,
    /// The binary, an interned artifact.
    pub program: PathBuf,
    /// All environment variables, but for `PATH`, `HOME`, `TMPDIR`, `TASK_ID`, `SERVICE_REVISION` and the inherited sockets'.
    pub env: BTreeMap<String, String>,
}

/// The supervisor itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process.
    pub pid: u32,
    /// Version of the `natsctl` that it is.
    pub version: String,
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
}

/// Everything that runs or should run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// `None`: it does not run, and neither does anything else. What is described is what it would start.
    pub supervisor: Option<SupervisorStatus>,
    /// NATS servers by name.
    pub nodes: BTreeMap<String, NodeStatus>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceStatus>,
}

impl Description {
    /// Digests of all artifacts that a task or a rollback may need.
    pub fn artifacts(&self) -> BTreeSet<String> {
        let services = self.services.values();
        services.flat_map(|service| &service.kept).map(|kept| kept.definition.artifact.clone()).collect()
    }
}

/// One NATS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What should run.
    pub spec: NodeSpec,
    /// Whether its process runs.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
    /// How it ended the last time.
    pub last_exit: Option<Exit>,
    /// The last lines of its log, if it is down.
    pub log_tail: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// What the current revision is made of.
    pub definition: Definition,
    /// Number of the current revision, from 1.
    pub revision: u64,
    /// Revisions that ran in full before the current one, the latest first: where a rollback may go.
    pub previous: Vec<Revision>,
    /// Every revision whose number is still known, failed ones too, by number.
    pub kept: Vec<Revision>,
    /// The number of tasks that the manifest asked for.
    pub declared_tasks: u32,
    /// The number of tasks that should run.
    pub desired: u32,
    /// Where clients come in.
    pub http: Option<SocketAddr>,
    /// Its processes and those that wait to be started again, oldest first.
    pub tasks: Vec<TaskStatus>,
    /// Whether the last deployment failed. The next one that completes ends it.
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

    /// The latest deployment.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.deployments.first()
    }
}

/// A revision that is no longer current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// What it is made of.
    pub definition: Definition,
}

/// One process of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Unique in the environment; the name of its log file.
    pub id: String,
    /// Which revision it runs.
    pub revision: u64,
    /// Its process, unless it is stopped.
    pub pid: Option<u32>,
    /// How far it is.
    pub state: TaskState,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// How many tasks before it, each started in the place of the last, ended by themselves.
    pub restarts: u32,
    /// Where its health endpoints are, on 127.0.0.1.
    pub health_port: Option<u16>,
    /// How it, or else the one in whose place it was started, ended.
    pub last_exit: Option<Exit>,
    /// Why it is not ready.
    pub reason: Option<String>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It has not been ready yet.
    Starting,
    /// It takes requests.
    Ready,
    /// It was ready, and is not now.
    Unready,
    /// It was told to stop.
    Draining,
    /// It ended by itself, and is started again soon.
    Stopped,
}

/// A change of what a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Unique for the service, ascending.
    pub id: u64,
    /// What it brings.
    pub revision: u64,
    /// How far it is.
    pub state: DeploymentState,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// Milliseconds since 1970.
    pub ended_at_ms: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Which task made it fail.
    pub task: Option<String>,
    /// The last lines of that task's log.
    pub log_tail: Vec<String>,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Tasks are being started and stopped.
    InProgress,
    /// All desired tasks are ready, and no others are left.
    Completed,
    /// It was given up; the revision that ran before keeps running.
    Failed,
    /// Another one took its place before it had ended.
    Superseded,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It never began.
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
