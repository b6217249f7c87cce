//! Ports that the environment's manifest names and that another process holds.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use super::ports::{self, Holder};
use super::protocol::{Description, ServiceStatus};
use crate::error::Hinted;
use crate::manifest::{Environment, LocalEnvironment};

/// A port that something of the environment needs and another process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakenPort {
    pub(super) port: u16,
    /// `None` where this user may not see it.
    pub(super) holder: Option<Holder>,
    need: Need,
}

/// What a port is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// `nats-1`, or the name of the gateway.
    pub(super) name: String,
    purpose: &'static str,
    /// The key in the environment's manifest.
    key: &'static str,
}

/// The keys of a node's ports, and what each is for.
const OF_NODES: [(&str, &str); 3] =
    [("client_port", "clients"), ("route_port", "its peers"), ("monitor_port", "monitoring")];

impl TakenPort {
    /// What is wrong, in the middle of a sentence.
    pub(super) fn held_by(&self) -> String {
        self.holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    }
}

/// Refuses to go on when ports are taken.
///
/// # Errors
/// All of them, each with the process that holds it.
pub(super) fn refuse(taken: &[TakenPort]) -> Result<(), Hinted> {
    let Some(first) = taken.first() else { return Ok(()) };
    let lines: Vec<String> = taken.iter().map(ToString::to_string).collect();
    let key = first.need.key;
    let hint = format!("stop it, or set another `{key}` in the environment's manifest (0 takes any free port)");
    Err(Hinted::new(lines.join("\n"), hint))
}

impl fmt::Display for TakenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Need { name, purpose, .. } = &self.need;
        write!(f, "port {}, which `{name}` needs for {purpose}, is held by {}", self.port, self.held_by())
    }
}

/// The ports of a node that other processes hold: those for clients, for its peers and for monitoring. The node itself must not run.
pub(super) fn of_node(name: &str, ports: [u16; 3]) -> Vec<TakenPort> {
    let needs = OF_NODES.map(|(key, purpose)| Need { name: name.to_owned(), purpose, key });
    ports.into_iter().zip(needs).filter_map(|(port, need)| taken(port, need)).collect()
}

/// The ports of everything that does not run, as far as the manifest names them. `gateway` is the service that takes HTTP requests, if it
/// should run.
pub(super) fn of_environment(
    environment: &Environment,
    gateway: Option<&str>,
    running: &Description,
) -> Vec<TakenPort> {
    let Environment::Local(LocalEnvironment { nats, gateway: settings, .. }) = environment else {
        return Vec::new();
    };
    let first = [nats.client_port, nats.route_port, nats.monitor_port];
    let stopped = (1..=nats.nodes).filter_map(|number| {
        let name = format!("nats-{number}");
        let runs = running.nodes.get(&name).is_some_and(|node| node.running);
        (!runs).then_some((name, u16::try_from(number - 1).unwrap_or(u16::MAX)))
    });
    let port = |first: u16, offset| if first == 0 { 0 } else { first.saturating_add(offset) };
    let of_nodes = stopped.flat_map(|(name, offset)| of_node(&name, first.map(|first| port(first, offset))));
    let listens = |service: &ServiceStatus| service.http.is_some_and(|address| address.port() == settings.port);
    let is_open = running.supervisor.is_some() && running.services.values().any(listens);
    let of_gateway = gateway.filter(|_| !is_open).and_then(|name| {
        taken(settings.port, Need { name: name.to_owned(), purpose: "HTTP clients", key: "gateway.port" })
    });
    of_nodes.chain(of_gateway).collect()
}

fn taken(port: u16, need: Need) -> Option<TakenPort> {
    let bound = (port != 0).then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let is_taken = matches!(bound, Some(Err(error)) if error.kind() == ErrorKind::AddrInUse);
    is_taken.then(|| TakenPort { port, holder: ports::holder(port), need })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_port_that_is_needed_is_named_and_free_ports_are_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = of_node("nats-2", [0, 0, port]);
        let holder = ports::holder(port).unwrap();
        let said = format!("port {port}, which `nats-2` needs for monitoring, is held by {holder}");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);
        assert!(refuse(&found).unwrap_err().hint().unwrap().contains("`monitor_port`"));
        drop(listener);
        assert_eq!(of_node("nats-2", [0, 0, port]), []);
    }
}
