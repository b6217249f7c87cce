//! The state of the supervisor: takes events, asks the controllers what to do, does it, saves and answers.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::node::NodeController;
use super::probe::{self, ProbeResult, Unhealthy};
use super::process::{Launch, Process};
use super::saved_state::{SavedState, ServiceRecord};
use super::service::{Effect, ServiceController};
use super::span_receiver::SpanReceiver;
use super::task::Moment;
use crate::local::dir::Dir;
use crate::local::logs;
use crate::local::protocol::{Exit, Request, Response};
use crate::local::secrets;
use crate::model::desired::Role;

/// How many lines of a log go with a failure.
pub(super) const LOG_TAIL_LINES: usize = 20;

/// Between two attempts to save what could not be saved.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// What the supervisor reacts to.
pub(super) enum Event {
    Requested(Box<Request>, oneshot::Sender<Response>),
    Probed(String, String, ProbeResult),
    /// What a NATS server says of itself: its name and its process.
    Checked(String, String, Result<(), Unhealthy>),
    /// A NATS server in lame duck has no clients left: its name and its process.
    Left(String, String),
    Exited(Owner, String, Exit),
    /// It got SIGTERM or SIGINT.
    Terminated,
}

/// What a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Node(String),
    Service(String),
}

/// A deletion that is answered when all of its processes have exited.
pub(super) enum Deletion {
    Node(String),
    Service(String),
    Everything,
}

/// What a shutdown leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// The saved state: the next supervisor starts the same nodes and services.
    Resumable,
    /// Nothing.
    Final,
}

pub(super) struct Supervisor {
    pub(super) dir: Dir,
    shim: PathBuf,
    events: mpsc::UnboundedSender<Event>,
    pub(super) started: Moment,
    pub(super) nodes: BTreeMap<String, NodeController>,
    pub(super) services: BTreeMap<String, ServiceController>,
    /// By task id.
    processes: BTreeMap<String, RunningProcess>,
    /// Listeners for HTTP clients, by service. They are open as long as the service exists, so that no connection is refused while tasks are
    /// replaced.
    pub(super) listeners: BTreeMap<String, TcpListener>,
    pub(super) deletions: Vec<(Deletion, oneshot::Sender<Response>)>,
    /// Answers to send after the effects, so that they confirm what has been done.
    pub(super) answers: Vec<(oneshot::Sender<Response>, Response)>,
    pub(super) shutdown: Option<Shutdown>,
    /// Whether what should run differs from what is saved.
    pub(super) unsaved: bool,
    /// Why the last attempt to save it failed.
    pub(super) unsaved_because: Option<String>,
    /// When saving is tried again.
    save_again_at: Option<Instant>,
    /// Where tasks send their spans, or why nowhere.
    pub(super) spans: Result<SpanReceiver, String>,
}

struct RunningProcess {
    owner: Owner,
    process: Process,
    probe: Option<AbortHandle>,
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl Supervisor {
    pub(super) fn new(dir: Dir, shim: PathBuf, events: mpsc::UnboundedSender<Event>, state: SavedState) -> Self {
        let now = Moment::now();
        let mut supervisor = Self {
            dir,
            shim,
            events,
            started: now,
            nodes: state.nodes.into_iter().map(|(name, spec)| (name, NodeController::new(spec))).collect(),
            services: BTreeMap::new(),
            processes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            deletions: Vec::new(),
            answers: Vec::new(),
            shutdown: None,
            unsaved: true,
            unsaved_because: None,
            save_again_at: None,
            spans: SpanReceiver::start().map_err(|error| error.to_string()),
        };
        if let Err(error) = &supervisor.spans {
            tracing::error!(error, "spans are not received");
        }
        for (name, record) in state.services {
            supervisor.resume(name, record, now);
        }
        supervisor
    }

    fn resume(&mut self, name: String, mut record: ServiceRecord, now: Moment) {
        if let Some(http) = record.http
            && let Err(refusal) = self.listen(&name, http)
        {
            // Its tasks start without a listener. The next deployment reports the reason, or starts new tasks with one.
            tracing::error!(service = name, reason = refusal.message, "failed to listen for HTTP clients");
            record.http = None;
        }
        self.services.insert(name, ServiceController::resume(record, now));
    }

    pub(super) fn handle(&mut self, event: Event) {
        let now = Moment::now();
        match event {
            Event::Requested(request, reply) => self.request(*request, reply, now),
            Event::Probed(name, task, result) => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.probed(&task, result, now);
                }
            }
            Event::Checked(name, task, result) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.checked(&task, result.map_err(|unhealthy| unhealthy.to_string()), now);
                }
            }
            Event::Left(name, task) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.left(&task);
                }
            }
            Event::Exited(owner, task, exit) => self.exited(&owner, &task, exit, now),
            Event::Terminated => self.shut_down(Shutdown::Resumable),
        }
    }

    fn exited(&mut self, owner: &Owner, task: &str, exit: Exit, now: Moment) {
        self.processes.remove(task);
        let (Owner::Node(name) | Owner::Service(name)) = owner;
        tracing::info!(name, task, "process {exit}");
        match owner {
            Owner::Node(_) => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.exited(task, exit, now);
                }
            }
            Owner::Service(_) => {
                if let Some(service) = self.services.get_mut(name) {
                    service.exited(task, exit, now);
                }
            }
        }
        let running: Vec<&str> = self.processes.keys().map(String::as_str).collect();
        logs::prune(&self.dir, name, &running);
    }

    pub(super) fn shut_down(&mut self, shutdown: Shutdown) {
        // A later SIGTERM does not make a final shutdown resumable.
        if self.shutdown != Some(Shutdown::Final) {
            self.shutdown = Some(shutdown);
        }
        self.services.values_mut().for_each(ServiceController::shut_down);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.shutdown.is_some() && self.processes.is_empty() && self.deletions.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let services = self.services.values().filter_map(ServiceController::deadline);
        let nodes = self.nodes.values().filter_map(NodeController::deadline);
        services.chain(nodes).chain(self.save_again_at).min()
    }

    pub(super) fn rotate_logs(&self) {
        for (task, running) in &self.processes {
            let (Owner::Node(name) | Owner::Service(name)) = &running.owner;
            logs::rotate(&self.dir.log(name, task));
        }
        logs::rotate(&self.dir.supervisor_log());
    }

    /// Brings processes to the desired state, saves that state, and answers requests.
    pub(super) fn reconcile(&mut self) {
        let now = Moment::now();
        let mut effects = Vec::new();
        for (name, service) in &mut self.services {
            let changes = service.reconcile(now);
            effects.extend(changes.into_iter().map(|effect| (Owner::Service(name.clone()), effect)));
            self.unsaved |= service.take_unsaved();
        }
        // Nodes stop last, because services use them while they drain.
        if self.shutdown.is_some() && !self.services.values().any(ServiceController::has_processes) {
            self.nodes.values_mut().for_each(NodeController::shut_down);
        }
        for (name, node) in &mut self.nodes {
            effects.extend(node.reconcile(now).map(|effect| (Owner::Node(name.clone()), effect)));
        }
        for (owner, effect) in effects {
            self.apply(&owner, effect);
        }
        self.remove_deleted();
        self.save_if_changed(now);
        self.answer();
    }

    fn apply(&mut self, owner: &Owner, effect: Effect) {
        match effect {
            Effect::Start { task, revision } => {
                if let Err(error) = self.start(owner, &task, revision) {
                    tracing::error!(?owner, task, %error, "failed to start");
                    let _ = self.events.send(Event::Exited(owner.clone(), task, Exit::NotStarted(error.to_string())));
                }
            }
            Effect::Terminate { task } => self.signal(&task, Process::terminate),
            Effect::Interrupt { task } => self.signal(&task, Process::interrupt),
            Effect::LameDuck { task } => {
                self.signal(&task, Process::lame_duck);
                self.watch_leaving(owner, &task);
            }
            Effect::Reload { task } => self.signal(&task, Process::reload),
            Effect::Kill { task } => self.signal(&task, Process::kill),
            Effect::RecordLogTail { task } => {
                let Owner::Service(name) = owner else { return };
                let tail = logs::tail_of(&self.dir.log(name, &task), LOG_TAIL_LINES);
                if let Some(service) = self.services.get_mut(name) {
                    service.record_log_tail(&task, tail);
                    self.unsaved = true;
                }
            }
        }
    }

    /// A process that has just exited needs no signal.
    fn signal(&self, task: &str, send: impl FnOnce(&Process)) {
        if let Some(running) = self.processes.get(task) {
            send(&running.process);
        }
    }

    fn start(&mut self, owner: &Owner, task: &str, revision: u64) -> io::Result<()> {
        match owner {
            Owner::Node(name) => self.start_node(owner, name, task),
            Owner::Service(name) => self.start_task(owner, name, task, revision),
        }
    }

    fn start_node(&mut self, owner: &Owner, name: &str, task: &str) -> io::Result<()> {
        let Some(spec) = self.nodes.get(name).map(|node| node.spec().clone()) else { return Ok(()) };
        let (env, log, sockets) = (BTreeMap::new(), self.dir.log(name, task), Vec::new());
        let launch = Launch { task, program: &spec.program, args: &spec.args, env: &env, log, sockets };
        let pid = self.spawn(owner, launch)?;
        if let Some(monitor) = spec.monitor {
            let (events, name, id) = (self.events.clone(), name.to_owned(), task.to_owned());
            self.watch(task, async move {
                let report = |health| drop(events.send(Event::Checked(name.clone(), id.clone(), health)));
                probe::watch_node(monitor, report).await;
            });
        }
        if let Some(node) = self.nodes.get_mut(name) {
            node.started(task, pid);
        }
        Ok(())
    }

    fn start_task(&mut self, owner: &Owner, name: &str, task: &str, revision: u64) -> io::Result<()> {
        let Some(mut spec) = self.services.get(name).and_then(|service| service.spec(revision)).cloned() else {
            return Ok(());
        };
        spec.env.insert("SERVICE_REVISION".to_owned(), revision.to_string());
        if let Ok(receiver) = &self.spans {
            receiver.configure(&mut spec.env);
        }
        for (variable, file) in &spec.secrets {
            let value =
                secrets::read(file).map_err(|error| io::Error::other(format!("{:#}", anyhow::Error::from(error))))?;
            spec.env.insert(variable.clone(), value);
        }
        let health = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = health.local_addr()?.port();
        let mut sockets = vec![("health", OwnedFd::from(health))];
        if let Some(listener) = self.listeners.get(name).filter(|_| spec.definition.role == Role::Gateway) {
            sockets.push(("http", listener.try_clone()?.into()));
        }
        let log = self.dir.log(name, task);
        let launch = Launch { task, program: &spec.program, args: &[], env: &spec.env, log, sockets };
        let pid = self.spawn(owner, launch)?;
        let (events, of, id) = (self.events.clone(), name.to_owned(), task.to_owned());
        self.watch(task, async move {
            let report = |health| drop(events.send(Event::Probed(of.clone(), id.clone(), health)));
            probe::watch(port, spec.definition.health, report).await;
        });
        if let Some(service) = self.services.get_mut(name) {
            service.started(task, pid, port);
        }
        Ok(())
    }

    /// Reports when a NATS server that was put into lame duck has no clients left, instead of its health, which is bad by then.
    fn watch_leaving(&mut self, owner: &Owner, task: &str) {
        let Owner::Node(name) = owner else { return };
        let Some(monitor) = self.nodes.get(name).and_then(|node| node.running_spec()?.monitor.clone()) else { return };
        let (events, name, id) = (self.events.clone(), name.clone(), task.to_owned());
        if let Some(running) = self.processes.get_mut(task) {
            if let Some(probe) = running.probe.take() {
                probe.abort();
            }
            running.probe = Some(
                tokio::spawn(async move {
                    probe::until_left(&monitor).await;
                    let _ = events.send(Event::Left(name, id));
                })
                .abort_handle(),
            );
        }
    }

    /// Probes a process until it has exited.
    fn watch(&mut self, task: &str, probes: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = self.processes.get_mut(task) {
            running.probe = Some(tokio::spawn(probes).abort_handle());
        }
    }

    fn spawn(&mut self, owner: &Owner, launch: Launch<'_>) -> io::Result<u32> {
        let task = launch.task.to_owned();
        let (events, exited) = (self.events.clone(), (owner.clone(), task.clone()));
        let process = Process::start(&self.shim, launch, move |exit| {
            let _ = events.send(Event::Exited(exited.0, exited.1, exit));
        })?;
        let pid = process.pid;
        tracing::info!(?owner, task, pid, "process started");
        self.processes.insert(task, RunningProcess { owner: owner.clone(), process, probe: None });
        Ok(pid)
    }

    fn remove_deleted(&mut self) {
        let before = self.services.len() + self.nodes.len();
        self.services.retain(|_, service| !service.is_deleting() || service.has_processes());
        self.nodes.retain(|_, node| !node.is_deleting() || node.has_process());
        self.listeners.retain(|name, _| self.services.contains_key(name));
        self.unsaved |= before != self.services.len() + self.nodes.len();
    }

    /// Saves what has changed by itself, for example that a deployment has ended. If that fails it is tried again.
    fn save_if_changed(&mut self, now: Moment) {
        if !self.unsaved || self.shutdown == Some(Shutdown::Final) {
            self.save_again_at = None;
            return;
        }
        if self.save_again_at.is_none_or(|again| now.at >= again) {
            let failed_before = self.unsaved_because.is_some();
            let saved = self.save();
            self.save_again_at = saved.is_err().then(|| now.at + SAVE_AGAIN);
            if let Err(error) = saved
                && !failed_before
            {
                tracing::error!(%error, "failed to save the state");
            }
        }
    }

    /// Saves what should run, for the next supervisor.
    pub(super) fn save(&mut self) -> std::io::Result<()> {
        let nodes = self.nodes.iter().filter(|(_, node)| !node.is_deleting());
        let state = SavedState {
            nodes: nodes.map(|(name, node)| (name.clone(), node.spec().clone())).collect(),
            services: self.services.iter().map(|(name, service)| (name.clone(), service.record().clone())).collect(),
        };
        let saved = state.save(&self.dir);
        self.unsaved = saved.is_err();
        self.unsaved_because = saved.as_ref().err().map(text);
        saved
    }
}

/// An error with all that caused it.
pub(super) fn text(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(std::error::Error::source);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
