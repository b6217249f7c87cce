//! A step of a plan: one operation with all that carrying it out takes. Who executes a step looks nothing up and decides nothing.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::desired::{Bucket, Consumer, Identity, Image, Node, Service, Stream};
use super::observed::{Revision, ServiceState};

/// One thing to do. Steps of the same wave do not depend on each other and may run at the same time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Step {
    /// Steps run in the order of their waves, from 0.
    pub wave: usize,
    /// What to do.
    pub operation: Operation,
    /// Why: the fields that differ.
    pub changes: Vec<FieldChange>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Writes the identity of a user of NATS into its secret.
    PutIdentity {
        /// Whose identity: a service, or natsctl itself.
        identity: String,
        /// What it must be.
        spec: Identity,
        /// Create, or update where its permissions are others.
        action: Action,
    },
    /// Sends the image of a service to the registry.
    PushImage {
        /// Whose image.
        service: String,
        /// Which image.
        image: Image,
        /// Create, or update where another image was pushed before.
        action: Action,
    },
    /// Starts a NATS server that is not there or does not run.
    StartNode {
        /// Name of the server.
        node: String,
        /// What it must be.
        spec: Node,
        /// Create or start.
        action: Action,
    },
    /// Restarts a NATS server with another version or configuration.
    RestartNode {
        /// Name of the server.
        node: String,
        /// What it must be.
        spec: Node,
    },
    /// Restarts a NATS server that runs and does not heal by itself.
    RepairNode {
        /// Name of the server.
        node: String,
        /// What it must be.
        spec: Node,
        /// What is wrong with it.
        reason: String,
        /// Whether the others have a quorum while it restarts.
        quorum: Quorum,
    },
    /// Has a NATS server read its accounts again, without a restart.
    ReloadNode {
        /// Name of the server.
        node: String,
        /// What it must be.
        spec: Node,
    },
    /// Stops a NATS server that no manifest asks for.
    DeleteNode {
        /// Name of the server.
        node: String,
    },
    /// Creates a stream, or changes it without losing anything.
    PutStream {
        /// Name of the stream.
        stream: String,
        /// What it must be.
        config: Stream,
        /// Create or update.
        action: Action,
    },
    /// Creates a bucket, or changes it without losing anything.
    PutBucket {
        /// Name of the bucket.
        bucket: String,
        /// What it must be.
        config: Bucket,
        /// Create or update.
        action: Action,
    },
    /// Creates a durable consumer, or changes it. It goes on where it is.
    PutConsumer {
        /// Its stream and its name, for example `EVT_QUEST_SYSTEM/npc-behavior_quest-generated-v1`.
        consumer: String,
        /// What it must be.
        config: Consumer,
        /// Create or update.
        action: Action,
    },
    /// Deletes a durable consumer that no manifest asks for.
    DeleteConsumer {
        /// Its stream and its name.
        consumer: String,
    },
    /// Changes a stream so that data or safety is lost.
    ReduceStream {
        /// Name of the stream.
        stream: String,
        /// What it must be.
        config: Stream,
        /// What is lost.
        losses: Vec<Loss>,
    },
    /// Changes a bucket so that data or safety is lost.
    ReduceBucket {
        /// Name of the bucket.
        bucket: String,
        /// What it must be.
        config: Bucket,
        /// What is lost.
        losses: Vec<Loss>,
    },
    /// Deploys a service.
    DeployService {
        /// Name of the service.
        service: String,
        /// What it is now; `None` if it is not there.
        before: Option<Box<ServiceState>>,
        /// What it must be.
        target: Box<Service>,
        /// How many tasks it must have.
        tasks: u32,
        /// Create, update, or start where nothing differs but too few tasks run.
        action: Action,
    },
    /// Replaces all tasks of a service.
    RestartService {
        /// Name of the service.
        service: String,
        /// What it is now.
        before: Box<ServiceState>,
    },
    /// Sets how many tasks of a service run.
    ScaleService {
        /// Name of the service.
        service: String,
        /// What it is now.
        before: Box<ServiceState>,
        /// How many tasks it must have.
        tasks: u32,
    },
    /// Brings a service back to another revision.
    RollBackService {
        /// Name of the service.
        service: String,
        /// What it is now.
        before: Box<ServiceState>,
        /// The revision that it must run.
        to: Box<Revision>,
    },
    /// Drains and deletes a service that no manifest names.
    DeleteService {
        /// Name of the service.
        service: String,
        /// What it is now.
        before: Box<ServiceState>,
    },
    /// Stops one task.
    StopTask {
        /// The service that it belongs to; `None` for one that runs on its own.
        service: Option<String>,
        /// Id of the task.
        task: String,
    },
    /// Stops all services, then all nodes.
    StopEnvironment {
        /// Its name.
        environment: String,
    },
    /// Deletes everything that the environment stored.
    DeleteData {
        /// Its name.
        environment: String,
    },
}

/// Whether a NATS cluster can be written to while a step is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// The other servers keep it.
    Kept,
    /// The cluster has none now, so nothing is lost by the step.
    Missing,
    /// The step interrupts it.
    Interrupted,
}

/// What a step does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It differs.
    Update,
    /// It is as it should be, but does not run.
    Start,
    /// It reads its configuration again.
    Reload,
    /// It is restarted: the server, or all tasks of the service.
    Restart,
    /// Its number of tasks is set.
    Scale,
    /// It goes back to another revision.
    RollBack,
    /// It is changed so that data or safety is lost.
    Reduce,
    /// It is stopped.
    Stop,
    /// It is deleted.
    Delete,
}

/// What a step acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An identity on NATS.
    Identity,
    /// An image in a registry.
    Image,
    /// A NATS server.
    Node,
    /// A JetStream stream.
    Stream,
    /// A JetStream key-value bucket.
    Bucket,
    /// A durable consumer of a JetStream stream.
    Consumer,
    /// A service.
    Service,
    /// One task.
    Task,
    /// Everything that runs in an environment.
    Environment,
    /// Everything that an environment stores.
    Data,
}

/// A field that differs. `None` is a field that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Path of the field, for example `definition.environment.LOG_LEVEL`.
    pub field: String,
    /// What is there.
    pub from: Option<Value>,
    /// What should be.
    pub to: Option<Value>,
}

/// What is lost for good when a step is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Older values of the keys of a bucket.
    History {
        /// Values kept of each key now.
        from: i64,
        /// Values kept of each key afterwards.
        to: i64,
    },
    /// Copies: fewer nodes may fail.
    Replicas {
        /// Copies now.
        from: usize,
        /// Copies afterwards.
        to: usize,
    },
    /// Messages or values that are older.
    Retention {
        /// Seconds for which they are kept now; 0 for ever.
        from_seconds: u64,
        /// Seconds for which they are kept afterwards.
        to_seconds: u64,
    },
    /// Messages that are published to these subjects from now on.
    Subjects {
        /// Subjects that the stream no longer takes.
        removed: Vec<String>,
    },
}

/// The kinds of [`Loss`], as they are accepted one by one with `--force`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LossKind {
    /// Older values of keys are deleted
    History,
    /// There are fewer copies
    Replicas,
    /// Older messages or values are deleted
    Retention,
    /// Messages on some subjects are stored no longer
    Subjects,
}

impl Step {
    /// What it does to its object.
    pub fn action(&self) -> Action {
        match &self.operation {
            Operation::PutIdentity { action, .. }
            | Operation::PushImage { action, .. }
            | Operation::StartNode { action, .. }
            | Operation::PutStream { action, .. }
            | Operation::PutBucket { action, .. }
            | Operation::PutConsumer { action, .. }
            | Operation::DeployService { action, .. } => *action,
            Operation::RestartNode { .. } => Action::Update,
            Operation::ReloadNode { .. } => Action::Reload,
            Operation::ReduceStream { .. } | Operation::ReduceBucket { .. } => Action::Reduce,
            Operation::RepairNode { .. } | Operation::RestartService { .. } => Action::Restart,
            Operation::ScaleService { .. } => Action::Scale,
            Operation::RollBackService { .. } => Action::RollBack,
            Operation::StopTask { .. } | Operation::StopEnvironment { .. } => Action::Stop,
            Operation::DeleteNode { .. }
            | Operation::DeleteConsumer { .. }
            | Operation::DeleteService { .. }
            | Operation::DeleteData { .. } => Action::Delete,
        }
    }

    /// The kind of its object.
    pub fn kind(&self) -> Kind {
        match &self.operation {
            Operation::PutIdentity { .. } => Kind::Identity,
            Operation::PushImage { .. } => Kind::Image,
            Operation::StartNode { .. }
            | Operation::RestartNode { .. }
            | Operation::RepairNode { .. }
            | Operation::ReloadNode { .. }
            | Operation::DeleteNode { .. } => Kind::Node,
            Operation::PutStream { .. } | Operation::ReduceStream { .. } => Kind::Stream,
            Operation::PutBucket { .. } | Operation::ReduceBucket { .. } => Kind::Bucket,
            Operation::PutConsumer { .. } | Operation::DeleteConsumer { .. } => Kind::Consumer,
            Operation::DeployService { .. }
            | Operation::RestartService { .. }
            | Operation::ScaleService { .. }
            | Operation::RollBackService { .. }
            | Operation::DeleteService { .. } => Kind::Service,
            Operation::StopTask { .. } => Kind::Task,
            Operation::StopEnvironment { .. } => Kind::Environment,
            Operation::DeleteData { .. } => Kind::Data,
        }
    }

    /// The name of its object.
    pub fn name(&self) -> &str {
        match &self.operation {
            Operation::StartNode { node, .. }
            | Operation::RestartNode { node, .. }
            | Operation::RepairNode { node, .. }
            | Operation::ReloadNode { node, .. }
            | Operation::DeleteNode { node } => node,
            Operation::PutStream { stream, .. } | Operation::ReduceStream { stream, .. } => stream,
            Operation::PutBucket { bucket, .. } | Operation::ReduceBucket { bucket, .. } => bucket,
            Operation::PutConsumer { consumer, .. } | Operation::DeleteConsumer { consumer } => consumer,
            Operation::PushImage { service, .. }
            | Operation::DeployService { service, .. }
            | Operation::RestartService { service, .. }
            | Operation::ScaleService { service, .. }
            | Operation::RollBackService { service, .. }
            | Operation::DeleteService { service, .. } => service,
            Operation::PutIdentity { identity, .. } => identity,
            Operation::StopTask { task, .. } => task,
            Operation::StopEnvironment { environment } | Operation::DeleteData { environment } => environment,
        }
    }

    /// How many tasks its service has afterwards, where it sets that.
    pub fn tasks(&self) -> Option<u32> {
        match &self.operation {
            Operation::DeployService { tasks, .. } | Operation::ScaleService { tasks, .. } => Some(*tasks),
            _ => None,
        }
    }

    /// What is lost for good when it is done.
    pub fn losses(&self) -> &[Loss] {
        match &self.operation {
            Operation::ReduceStream { losses, .. } | Operation::ReduceBucket { losses, .. } => losses,
            _ => &[],
        }
    }
}

/// With its action, kind and name, so that programs need not know every operation.
impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            action: Action,
            kind: Kind,
            name: &'a str,
            wave: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            tasks: Option<u32>,
            changes: &'a [FieldChange],
            operation: &'a Operation,
        }
        let line = Line {
            action: self.action(),
            kind: self.kind(),
            name: self.name(),
            wave: self.wave,
            tasks: self.tasks(),
            changes: &self.changes,
            operation: &self.operation,
        };
        line.serialize(serializer)
    }
}

impl FieldChange {
    pub(super) fn new(field: impl Into<String>, from: Option<Value>, to: Option<Value>) -> Self {
        Self { field: field.into(), from, to }
    }
}

impl Loss {
    /// Which kind of loss it is.
    pub fn kind(&self) -> LossKind {
        match self {
            Self::History { .. } => LossKind::History,
            Self::Replicas { .. } => LossKind::Replicas,
            Self::Retention { .. } => LossKind::Retention,
            Self::Subjects { .. } => LossKind::Subjects,
        }
    }
}
