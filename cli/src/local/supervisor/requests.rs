//! How the supervisor handles the requests of its clients.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tokio::net::TcpSocket;
use tokio::sync::oneshot;

use super::node::NodeController;
use super::reconcile::{Deletion, LOG_TAIL_LINES, Shutdown, Supervisor, text};
use super::saved_state::SavedState;
use super::service::{NotStoppable, ServiceController};
use super::task::Moment;
use crate::error::hint;
use crate::local::logs;
use crate::local::ports::{self, Ports};
use crate::local::protocol::{
    Description, NodeSpec, NodeStatus, PROTOCOL, PutService, Refusal, Request, Response, SupervisorStatus,
};

/// How many connections may wait until a task accepts them.
const BACKLOG: u32 = 1024;

impl Supervisor {
    pub(super) fn request(&mut self, request: Request, reply: oneshot::Sender<Response>, now: Moment) {
        let changes =
            !matches!(request, Request::Ping | Request::Describe | Request::FindTraces { .. } | Request::Shutdown);
        let answered = match request {
            _ if changes && self.shutdown.is_some() => {
                Err(Refusal::new("the supervisor is stopping", "try again in a moment"))
            }
            Request::Ping => Ok(Response::Pong(self.status())),
            Request::Describe => Ok(Response::Description(Box::new(self.describe()))),
            Request::PutNode { name, spec } => self.put_node(&name, spec, NodeController::put),
            Request::RestartNode { name, spec } => self.put_node(&name, spec, NodeController::restart),
            Request::RollNode { name, spec } => self.put_node(&name, spec, NodeController::roll),
            Request::PutService(put) => self.put_service(*put, now),
            Request::DeleteNode { name } => match self.delete_node(&name) {
                Ok(()) => return self.deletions.push((Deletion::Node(name), reply)),
                Err(refusal) => Err(refusal),
            },
            Request::DeleteService { name } => match self.delete_service(&name) {
                Ok(()) => return self.deletions.push((Deletion::Service(name), reply)),
                Err(refusal) => Err(refusal),
            },
            Request::FindTraces { prefix } => match &self.spans {
                Ok(receiver) => return receiver.find(prefix, reply),
                Err(reason) => Err(Refusal::new(
                    format!("the supervisor receives no spans: {reason}"),
                    "`natsctl down` and `natsctl deploy --all` start another supervisor",
                )),
            },
            Request::StopTask { service, task } => self.stop_task(&service, &task, now),
            Request::Shutdown => {
                self.shut_down(Shutdown::Final);
                return self.deletions.push((Deletion::Everything, reply));
            }
        };
        self.answers.push((reply, answered.unwrap_or_else(Response::Refused)));
    }

    fn put_node(
        &mut self,
        name: &str,
        spec: NodeSpec,
        put: impl FnOnce(&mut NodeController, NodeSpec),
    ) -> Result<Response, Refusal> {
        runnable(name, &spec.program)?;
        let before = self.nodes.get(name).cloned();
        put(self.nodes.entry(name.to_owned()).or_insert_with(|| NodeController::new(spec.clone())), spec);
        self.save_or(|this| replace(&mut this.nodes, name, before)).map(|()| Response::Done)
    }

    fn delete_node(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(node) = self.nodes.get_mut(name) else { return Ok(()) };
        let before = node.clone();
        node.delete();
        self.save_or(|this| replace(&mut this.nodes, name, Some(before)))
    }

    fn delete_service(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(service) = self.services.get_mut(name) else { return Ok(()) };
        let before = service.clone();
        service.delete();
        self.save_or(|this| replace(&mut this.services, name, Some(before)))
    }

    /// Saves a change before anything comes of it; one that cannot be saved is undone.
    fn save_or(&mut self, undo: impl FnOnce(&mut Self)) -> Result<(), Refusal> {
        let before = (self.unsaved, self.unsaved_because.clone());
        let saved = self.save();
        saved.map_err(|error| {
            undo(self);
            (self.unsaved, self.unsaved_because) = before;
            let message = format!("the supervisor cannot save its state, so nothing was changed: {}", text(&error));
            Refusal::new(message, "make the file writable or make room on its disk, then run the command again")
        })
    }

    fn stop_task(&mut self, name: &str, task: &str, now: Moment) -> Result<Response, Refusal> {
        let Some(service) = self.services.get_mut(name) else {
            let deployed = list(self.services.keys().map(String::as_str));
            return Err(Refusal::new(
                format!("service `{name}` is not deployed"),
                format!("deployed services: {deployed}"),
            ));
        };
        service.stop_task(task, now).map(|()| Response::Done).map_err(|reason| match reason {
            NotStoppable::Unknown => {
                let running = list(service.stoppable_tasks());
                Refusal::new(format!("service `{name}` has no task `{task}`"), format!("its running tasks: {running}"))
            }
            NotStoppable::Stopping => Refusal::new(
                format!("task `{task}` of service `{name}` is stopping already"),
                "it has until its stop timeout to exit, then it is killed",
            ),
            NotStoppable::Exited => Refusal::new(
                format!("task `{task}` of service `{name}` has exited already"),
                "another task is started in its place in a moment",
            ),
        })
    }

    fn put_service(&mut self, mut put: PutService, now: Moment) -> Result<Response, Refusal> {
        runnable(&put.name, &put.spec.program)?;
        let name = put.name.clone();
        let before = self.services.get(&name).cloned();
        let listener = self.listeners.get(&name).and_then(|listener| listener.try_clone().ok());
        put.http_listen = put.http_listen.map(|address| self.listen(&name, address)).transpose()?;
        if put.http_listen.is_none() {
            self.listeners.remove(&name);
        }
        let accepted = self.services.entry(name.clone()).or_insert_with(ServiceController::new).put(put, now);
        let undo = |this: &mut Self| {
            replace(&mut this.services, &name, before);
            replace(&mut this.listeners, &name, listener);
        };
        self.save_or(undo).map(|()| Response::Accepted(accepted))
    }

    /// Listens for HTTP clients, unless it does already, and returns the address.
    pub(super) fn listen(&mut self, name: &str, wanted: SocketAddr) -> Result<SocketAddr, Refusal> {
        let open = self.listeners.get(name).and_then(|listener| listener.local_addr().ok());
        if let Some(open) = open.filter(|open| *open == wanted || (wanted.port() == 0 && open.ip() == wanted.ip())) {
            return Ok(open);
        }
        let key = format!("http:{name}");
        let file = self.dir.ports();
        let mut address = wanted;
        if wanted.port() == 0 {
            let ports = Ports::ensure(&file, &[(key.clone(), 0)].into()).map_err(no_port)?;
            address.set_port(ports.port(&key));
        }
        let mut bound = bind(address);
        if bound.is_err() && wanted.port() == 0 {
            // Another process has taken the port of the earlier start.
            let port = Ports::renew(&file, &key).map_err(no_port)?;
            address.set_port(port);
            bound = bind(address);
        }
        let listener = bound.map_err(|error| cannot_listen(address, &error))?;
        self.listeners.insert(name.to_owned(), listener);
        Ok(address)
    }

    pub(super) fn answer(&mut self) {
        let is_deleting = |deletion: &Deletion| match deletion {
            Deletion::Node(name) => self.nodes.get(name).map(NodeController::is_deleting),
            Deletion::Service(name) => self.services.get(name).map(ServiceController::is_deleting),
            Deletion::Everything => {
                let busy = self.services.values().any(ServiceController::has_processes)
                    || self.nodes.values().any(NodeController::has_process);
                busy.then_some(true)
            }
        };
        let (mut answers, mut pending) = (std::mem::take(&mut self.answers), Vec::new());
        for (deletion, reply) in std::mem::take(&mut self.deletions) {
            match is_deleting(&deletion) {
                None => answers.push((reply, Response::Done)),
                Some(true) => pending.push((deletion, reply)),
                Some(false) => {
                    let refusal =
                        Refusal::new("another command has deployed it again meanwhile", "run the command again");
                    answers.push((reply, Response::Refused(refusal)));
                }
            }
        }
        self.deletions = pending;
        if self.shutdown == Some(Shutdown::Final)
            && self.deletions.is_empty()
            && let Err(error) = SavedState::remove(&self.dir)
        {
            let message = format!("everything is stopped, but a deployment would start it again: {}", text(&error));
            let refusal = Response::Refused(Refusal::new(message, "remove that file"));
            answers.iter_mut().for_each(|(_, answer)| *answer = refusal.clone());
        }
        for (reply, answer) in answers {
            // The client may have disconnected.
            let _ = reply.send(answer);
        }
    }

    fn status(&self) -> SupervisorStatus {
        SupervisorStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            started_at_ms: self.started.unix_ms,
        }
    }

    fn describe(&self) -> Description {
        let services = self.services.iter().filter_map(|(name, service)| Some((name.clone(), service.status()?)));
        Description {
            supervisor: Some(self.status()),
            nodes: self.nodes.iter().map(|(name, node)| (name.clone(), self.node_status(name, node))).collect(),
            services: services.collect(),
            unsaved: self.unsaved_because.clone(),
        }
    }

    fn node_status(&self, name: &str, node: &NodeController) -> NodeStatus {
        let last_log = node.last_task().filter(|_| !node.has_process()).map(|task| self.dir.log(name, task));
        node.status(last_log.map(|log| logs::tail_of(&log, LOG_TAIL_LINES)).unwrap_or_default())
    }
}

/// Puts back what was there, or nothing.
fn replace<T>(map: &mut BTreeMap<String, T>, name: &str, before: Option<T>) {
    match before {
        Some(before) => drop(map.insert(name.to_owned(), before)),
        None => drop(map.remove(name)),
    }
}

/// Names for a hint.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Names become names of directories.
fn runnable(name: &str, program: &Path) -> Result<(), Refusal> {
    let is_allowed = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if name.is_empty() || !name.chars().all(is_allowed) {
        return Err(Refusal::new(format!("`{name}` is not a name"), "use lower-case letters, digits and `-`"));
    }
    if !program.is_file() {
        let message = format!("`{}`, the program of `{name}`, does not exist", program.display());
        return Err(Refusal { message, hint: None });
    }
    Ok(())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// The ports of earlier starts cannot be read, or no port is free.
fn no_port(error: std::io::Error) -> Refusal {
    let error = anyhow::Error::from(error);
    Refusal { message: format!("{error:#}"), hint: hint(&error) }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Refusal {
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Refusal { message: format!("failed to listen on `{address}`: {error}"), hint: None };
    }
    let holder =
        ports::holder(address.port()).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
    Refusal::new(
        format!("port {} is in use by {holder}", address.port()),
        "stop that process, or choose another port for this environment",
    )
}
