//! Everything the supervisor holds, and the hands that do what rollouts and nodes decide.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::node::Node;
use super::probe;
use super::process::{Launch, Process};
use super::record::{Record, Records};
use super::service::{Effect, Health, Service};
use super::task::Moment;
use crate::local::dir::Dir;
use crate::local::logs;
use crate::local::protocol::{Exit, Request, Response};
use crate::model::desired::Role;

/// So many lines of a log explain a failure.
pub(super) const EXPLANATION: usize = 20;

/// What happens to the supervisor.
pub(super) enum Event {
    Requested(Box<Request>, oneshot::Sender<Response>),
    Probed(Owner, String, Health),
    Exited(Owner, String, Exit),
    /// Stop everything; the next supervisor starts it again.
    Halt,
}

/// Whose process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Node(String),
    Service(String),
}

/// A request whose answer waits until something is gone.
pub(super) enum Waiting {
    Node(String),
    Service(String),
    Everything,
}

/// Whether the fleet is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The next supervisor starts it again.
    Resumable,
    /// It is forgotten.
    Final,
}

pub(super) struct World {
    pub(super) dir: Dir,
    shim: PathBuf,
    events: mpsc::UnboundedSender<Event>,
    pub(super) started: Moment,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) services: BTreeMap<String, Service>,
    /// By task.
    processes: BTreeMap<String, Running>,
    /// Where clients come in, by service. Open for as long as the service is there, so that no connection is refused while tasks change.
    pub(super) listeners: BTreeMap<String, TcpListener>,
    pub(super) waiting: Vec<(Waiting, oneshot::Sender<Response>)>,
    /// Answers to send once what they confirm has been done.
    pub(super) answers: Vec<(oneshot::Sender<Response>, Response)>,
    pub(super) end: Option<End>,
    pub(super) unsaved: bool,
}

struct Running {
    owner: Owner,
    process: Process,
    probe: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

impl World {
    pub(super) fn new(dir: Dir, shim: PathBuf, events: mpsc::UnboundedSender<Event>, records: Records) -> Self {
        let now = Moment::now();
        let mut world = Self {
            dir,
            shim,
            events,
            started: now,
            nodes: records.nodes.into_iter().map(|(name, spec)| (name, Node::new(spec))).collect(),
            services: BTreeMap::new(),
            processes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            waiting: Vec::new(),
            answers: Vec::new(),
            end: None,
            unsaved: true,
        };
        for (name, record) in records.services {
            world.resume(name, record, now);
        }
        world
    }

    fn resume(&mut self, name: String, mut record: Record, now: Moment) {
        if let Some(http) = record.http
            && let Err(refusal) = self.listen(&name, http)
        {
            // Its tasks come up without it; the next deployment says what is wrong, or brings new tasks that have it.
            tracing::error!(service = name, reason = refusal.message, "the port for clients is taken");
            record.http = None;
        }
        self.services.insert(name, Service::resume(record, now));
    }

    pub(super) fn handle(&mut self, event: Event) {
        let now = Moment::now();
        match event {
            Event::Requested(request, reply) => self.request(*request, reply, now),
            Event::Probed(Owner::Service(name), task, health) => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.probed(&task, health, now);
                }
            }
            Event::Probed(Owner::Node(_), ..) => {}
            Event::Exited(owner, task, exit) => self.exited(&owner, &task, exit, now),
            Event::Halt => self.halt(End::Resumable),
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
        let live: Vec<&str> = self.processes.keys().map(String::as_str).collect();
        logs::prune(&self.dir, name, &live);
    }

    pub(super) fn halt(&mut self, end: End) {
        // A final end is not taken back.
        if self.end != Some(End::Final) {
            self.end = Some(end);
        }
        self.services.values_mut().for_each(Service::halt);
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.processes.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let services = self.services.values().filter_map(Service::deadline);
        services.chain(self.nodes.values().filter_map(Node::deadline)).min()
    }

    pub(super) fn bound_logs(&self) {
        for (task, running) in &self.processes {
            let (Owner::Node(name) | Owner::Service(name)) = &running.owner;
            logs::rotate(&self.dir.log(name, task));
        }
        logs::rotate(&self.dir.supervisor_log());
    }

    /// Does what there is to do now, remembers it, and answers those who waited for it.
    pub(super) fn reconcile(&mut self) {
        let now = Moment::now();
        let mut effects = Vec::new();
        for (name, service) in &mut self.services {
            let due = service.reconcile(now);
            effects.extend(due.into_iter().map(|effect| (Owner::Service(name.clone()), effect)));
            self.unsaved |= service.take_unsaved();
        }
        // Nodes end last, because services still use them while they drain.
        if self.end.is_some() && !self.services.values().any(Service::has_processes) {
            self.nodes.values_mut().for_each(Node::halt);
        }
        for (name, node) in &mut self.nodes {
            effects.extend(node.reconcile(now).map(|effect| (Owner::Node(name.clone()), effect)));
        }
        for (owner, effect) in effects {
            self.perform(&owner, effect);
        }
        self.forget_deleted();
        self.save();
        self.answer();
    }

    fn perform(&mut self, owner: &Owner, effect: Effect) {
        match effect {
            Effect::Start { task, revision } => {
                if let Err(error) = self.start(owner, &task, revision) {
                    tracing::error!(?owner, task, %error, "failed to start");
                    let _ = self.events.send(Event::Exited(owner.clone(), task, Exit::NotStarted(error.to_string())));
                }
            }
            Effect::Terminate { task } => self.signal(&task, Process::terminate),
            Effect::Kill { task } => self.signal(&task, Process::kill),
            Effect::Explain { task } => {
                let Owner::Service(name) = owner else { return };
                let tail = logs::tail_of(&self.dir.log(name, &task), EXPLANATION);
                if let Some(service) = self.services.get_mut(name) {
                    service.explained(&task, tail);
                    self.unsaved = true;
                }
            }
        }
    }

    /// One that has just ended needs no signal.
    fn signal(&self, task: &str, send: impl FnOnce(&Process)) {
        if let Some(running) = self.processes.get(task) {
            send(&running.process);
        }
    }

    fn start(&mut self, owner: &Owner, task: &str, revision: u64) -> std::io::Result<()> {
        match owner {
            Owner::Node(name) => self.start_node(owner, name, task),
            Owner::Service(name) => self.start_task(owner, name, task, revision),
        }
    }

    fn start_node(&mut self, owner: &Owner, name: &str, task: &str) -> std::io::Result<()> {
        let Some(spec) = self.nodes.get(name).map(|node| node.spec().clone()) else { return Ok(()) };
        let (env, log, sockets) = (BTreeMap::new(), self.dir.log(name, task), Vec::new());
        let launch = Launch { task, program: &spec.program, args: &spec.args, env: &env, log, sockets };
        let pid = self.spawn(owner, launch)?;
        if let Some(node) = self.nodes.get_mut(name) {
            node.started(task, pid);
        }
        Ok(())
    }

    fn start_task(&mut self, owner: &Owner, name: &str, task: &str, revision: u64) -> std::io::Result<()> {
        let Some(mut spec) = self.services.get(name).and_then(|service| service.spec(revision)).cloned() else {
            return Ok(());
        };
        spec.env.insert("SERVICE_REVISION".to_owned(), revision.to_string());
        let health = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = health.local_addr()?.port();
        let mut sockets = vec![("health", OwnedFd::from(health))];
        if let Some(listener) = self.listeners.get(name).filter(|_| spec.definition.role == Role::Gateway) {
            sockets.push(("http", listener.try_clone()?.into()));
        }
        let log = self.dir.log(name, task);
        let launch = Launch { task, program: &spec.program, args: &[], env: &spec.env, log, sockets };
        let pid = self.spawn(owner, launch)?;
        let (events, owner, id) = (self.events.clone(), owner.clone(), task.to_owned());
        let probe = tokio::spawn(probe::watch(port, spec.definition.health, move |health| {
            let _ = events.send(Event::Probed(owner.clone(), id.clone(), health));
        }));
        if let Some(running) = self.processes.get_mut(task) {
            running.probe = Some(probe.abort_handle());
        }
        if let Some(service) = self.services.get_mut(name) {
            service.started(task, pid, port);
        }
        Ok(())
    }

    fn spawn(&mut self, owner: &Owner, launch: Launch<'_>) -> std::io::Result<u32> {
        let task = launch.task.to_owned();
        let (events, exited) = (self.events.clone(), (owner.clone(), task.clone()));
        let process = Process::start(&self.shim, launch, move |exit| {
            let _ = events.send(Event::Exited(exited.0, exited.1, exit));
        })?;
        let pid = process.pid;
        tracing::info!(?owner, task, pid, "process started");
        self.processes.insert(task, Running { owner: owner.clone(), process, probe: None });
        Ok(pid)
    }

    fn forget_deleted(&mut self) {
        let before = self.services.len() + self.nodes.len();
        self.services.retain(|_, service| !service.is_deleting() || service.has_processes());
        self.nodes.retain(|_, node| !node.is_deleting() || node.has_process());
        self.listeners.retain(|name, _| self.services.contains_key(name));
        self.unsaved |= before != self.services.len() + self.nodes.len();
    }

    fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) || self.end == Some(End::Final) {
            return;
        }
        let records = Records {
            nodes: self.nodes.iter().map(|(name, node)| (name.clone(), node.spec().clone())).collect(),
            services: self.services.iter().map(|(name, service)| (name.clone(), service.record().clone())).collect(),
        };
        if let Err(error) = records.save(&self.dir) {
            tracing::error!(%error, "failed to save the state");
        }
    }
}
