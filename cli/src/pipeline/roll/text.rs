//! How a roll reads: what it would do, what it does, and what it has done.

use std::fmt;
use std::time::Duration;

use super::{Preview, Rolled, Turn};
use crate::nats::roll::{Event, Goal};
use crate::problem::counted;
use crate::screen::note;
use crate::screen::progress::Activity;

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, turn) in (1..).zip(&self.nodes) {
            let Turn { node, version, meta_leader, leads, clients, replicas, to } = turn;
            writeln!(f, "> {number}. restart node {node}{}", if *meta_leader { ", the meta leader" } else { "" })?;
            let runs = version.as_deref().map_or("does not answer".to_owned(), |version| format!("runs {version}"));
            let clients = counted(clients, "client");
            writeln!(f, "    {runs}; {clients}, leads {leads} of {replicas} streams and consumers")?;
            if let Some(wanted) = to.version.filter(|wanted| Some(wanted.to_string()) != *version) {
                writeln!(f, "    version {} → {wanted}", version.as_deref().unwrap_or("?"))?;
            }
        }
        for (obstacle, next) in self.obstacles.iter().zip(self.obstacles.iter().skip(1).map(Some).chain([None])) {
            writeln!(f, "! {obstacle}")?;
            let repair = obstacle.repair();
            // What repairs several is said once, below the last of them.
            if next.is_none_or(|next| next.repair() != repair) {
                writeln!(f, "    {repair}")?;
            }
        }
        match (self.nodes.len(), self.obstacles.len()) {
            (0, _) => f.write_str("nothing to do"),
            (nodes, 0) => {
                write!(f, "{} to roll, one after the other; every group keeps its quorum", counted(nodes, "node"))
            }
            (nodes, _) => write!(f, "{} to roll, and as it is, the roll would not begin", counted(nodes, "node")),
        }
    }
}

impl fmt::Display for Rolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() && self.record.is_none() {
            return f.write_str("nothing had to be done");
        }
        let nodes = counted(self.nodes.len(), "node");
        let longest = self.nodes.iter().map(|node| node.seconds).fold(0.0, f64::max);
        write!(f, "rolled {nodes} in {:.1} s, at most {longest:.1} s each", self.seconds)?;
        match self.goal {
            Goal::Version => {
                write!(f, "; the next `natsctl deploy --all` brings them to the nats-server that it finds")
            }
            _ => Ok(()),
        }
    }
}

/// What is said of each server while it is rolled: that it leaves, what is waited for, and that it is back.
#[derive(Default)]
pub(super) struct Lines {
    /// The server that was taken, or what is waited for before one is.
    activity: Option<Activity>,
}

impl Lines {
    pub(super) fn tell(&mut self, event: &Event<'_>, limit: Duration) {
        match event {
            Event::Taken { node, observation } => {
                let server = observation.server(node);
                let clients = counted(server.map_or(0, |server| server.clients), "client");
                let leads = counted(observation.led_by(node), "group");
                let role = if observation.meta_leader() == Some(node) { ", the meta leader" } else { "" };
                self.activity = None;
                note(&format!("{node}{role}: leaves; {clients}, leads {leads}"));
                self.activity = Some(Activity::start(*node).within(limit));
            }
            Event::Back { node, observation, .. } => {
                let server = observation.server(node);
                let version = server.map_or_else(String::new, |server| format!(" as {}", server.version));
                let clients = counted(server.map_or(0, |server| server.clients), "client");
                if let Some(activity) = self.activity.take() {
                    activity.end(&format!("back{version}; {clients}, leads {}", observation.led_by(node)));
                }
            }
            Event::Waiting { obstacles } => {
                let Some(first) = obstacles.first() else { return };
                let more = match obstacles.len() {
                    1 => String::new(),
                    count => format!(" (and {} more)", count - 1),
                };
                let activity = self.activity.get_or_insert_with(|| Activity::start("waiting"));
                // What it waits for has numbers in it that change at every look.
                activity.waits_for(format!("{first}{more}"));
            }
        }
    }
}
