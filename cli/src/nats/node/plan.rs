//! In what a node differs from what it should be, and what that takes: a start, a reload, or a restart, which is a roll's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::state::NodeState;
use super::{NodeSpec, Reload};

/// Settings that a server takes by a reload, as paths in the file that natsctl writes. Of everything else it takes nothing, or only a
/// part: it gets that by a restart.
const RELOADABLE: &[&str] = &[
    "cluster.routes",
    "cluster.tls",
    "max_control_line",
    "max_payload",
    "ping_interval",
    "ping_max",
    "tls",
    "write_deadline",
];

/// What is to be done on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodePlan {
    /// Name of the server.
    pub node: String,
    /// Everything that differs.
    pub changes: Vec<NodeChange>,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeChange {
    /// `release`, `certificates`, `configuration`, `accounts`, `unit` or `server`.
    pub what: &'static str,
    /// What it takes.
    pub effect: Effect,
    /// In words.
    pub details: String,
    /// Lines of a file that differ, each with `+` or `-` before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<String>,
}

/// What a change takes, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A file that nothing uses yet.
    Install,
    /// The server reads its files again; clients stay connected.
    Reload,
    /// The server is started, which does not run.
    Start,
    /// The server is restarted, which a roll does: one at a time, while the others have a quorum.
    Roll,
}

/// What makes it impossible to go on with a node. Nothing is changed on any node then.
pub fn refusals(spec: &NodeSpec, state: &NodeState) -> Vec<String> {
    let NodeSpec { name, cluster, .. } = spec;
    let mut refusals = Vec::new();
    if state.name != *name {
        refusals.push(format!("`{name}` is a machine that calls itself `{}`", state.name));
    }
    if !state.mounted {
        refusals.push(format!("`{name}` has no data volume mounted at /var/lib/nats"));
    }
    if !state.prepared {
        refusals.push(format!("`{name}` lacks the user or the folders that the instance's user data makes"));
    }
    if let Some((of_cluster, of_node)) = state.owner.split_once(' ')
        && (of_cluster, of_node) != (cluster.as_str(), name.as_str())
    {
        refusals.push(format!(
            "the data volume of `{name}` belongs to server `{of_node}` of cluster `{of_cluster}`, not to `{name}` of `{cluster}`"
        ));
    }
    if !["x86_64", "aarch64"].contains(&state.machine.as_str()) {
        refusals.push(format!("`{name}` is a machine of type `{}`, for which there is no nats-server", state.machine));
    }
    refusals
}

impl NodePlan {
    /// `accounts` are the names of accounts by their keys, for people.
    pub fn new(spec: &NodeSpec, state: &NodeState, accounts: &BTreeMap<String, String>) -> Self {
        let changes = [
            release(spec, state),
            certificates(spec, state),
            configuration(spec, state),
            changed_accounts(spec, state, accounts),
            unit(spec, state),
            server(spec, state),
        ];
        Self { node: spec.name.clone(), changes: changes.into_iter().flatten().collect() }
    }

    /// Whether there is anything to do that `apply` does.
    pub fn applies(&self) -> bool {
        self.changes.iter().any(|change| change.effect != Effect::Roll)
    }

    /// Whether there is something that only a restart does.
    pub fn needs_roll(&self) -> bool {
        self.changes.iter().any(|change| change.effect == Effect::Roll)
    }

    /// Whether the server is started.
    pub fn starts(&self) -> bool {
        self.changes.iter().any(|change| change.effect == Effect::Start)
    }

    /// Whether its configuration may be replaced while it runs.
    pub fn reload(&self) -> Reload {
        let is_rolled = |change: &NodeChange| change.what == "configuration" && change.effect == Effect::Roll;
        if self.changes.iter().any(is_rolled) { Reload::AccountsOnly } else { Reload::Allowed }
    }

    /// For people: the node and what happens to it, then each change, with the lines that differ.
    pub fn text(&self) -> String {
        let worst = self.changes.iter().map(|change| change.effect).max();
        let (sign, verb) = match worst {
            None => return format!("  {}: as planned", self.node),
            Some(Effect::Install) => ("+", "is prepared"),
            Some(Effect::Reload) => ("~", "is reloaded"),
            Some(Effect::Start) => ("+", "is started"),
            Some(Effect::Roll) => (">", "needs a roll"),
        };
        let mut text = format!("{sign} {}: {verb}", self.node);
        for change in &self.changes {
            let effect = match change.effect {
                Effect::Roll if worst == Some(Effect::Roll) => "",
                Effect::Reload if worst == Some(Effect::Roll) => " (by a reload)",
                _ => "",
            };
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\n    {}: {}{effect}", change.what, change.details);
            for line in &change.diff {
                let (sign, line) = line.split_at(1);
                let _ = write!(text, "\n{sign}     {line}");
            }
        }
        text
    }
}

fn change(what: &'static str, effect: Effect, details: impl Into<String>) -> Option<NodeChange> {
    Some(NodeChange { what, effect, details: details.into(), diff: Vec::new() })
}

fn release(spec: &NodeSpec, state: &NodeState) -> Option<NodeChange> {
    let wanted = &spec.release;
    let archive = if state.machine == "aarch64" { &wanted.arm64 } else { &wanted.amd64 };
    let is_installed = state.installed.get(&wanted.version) == Some(&archive.sha256);
    match &state.running {
        Some(running) if running.version != wanted.version => {
            let installed = if is_installed { "is installed beside it" } else { "is to be installed" };
            let details = format!("{} runs, {} {installed}", running.version, wanted.version);
            change("release", if is_installed { Effect::Roll } else { Effect::Install }, details)
        }
        _ if !is_installed => {
            change("release", Effect::Install, format!("nats-server {} is to be installed", wanted.version))
        }
        _ => None,
    }
}

fn certificates(spec: &NodeSpec, state: &NodeState) -> Option<NodeChange> {
    if state.certificates.contains_key(&spec.certificates) {
        return None;
    }
    let old = state.certificates.iter().next();
    let old = old.map_or(String::new(), |(name, expiry)| format!(", in place of {name}, which expire {expiry}"));
    change("certificates", Effect::Install, format!("{} are to be fetched{old}", spec.certificates))
}

fn configuration(spec: &NodeSpec, state: &NodeState) -> Option<NodeChange> {
    let Some(config) = &state.config else {
        return change("configuration", Effect::Install, "is to be written");
    };
    if *config == spec.config {
        return None;
    }
    let settings = changed_settings(config, &spec.config);
    let is_reloadable = |path: &String| {
        RELOADABLE.iter().any(|one| path.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let restarting: Vec<&str> = settings.iter().filter(|path| !is_reloadable(path)).map(String::as_str).collect();
    let (effect, details) = match &state.running {
        None => (Effect::Install, "differs".to_owned()),
        Some(_) if restarting.is_empty() => (Effect::Reload, "differs".to_owned()),
        Some(_) => (Effect::Roll, format!("differs in what takes a restart: {}", restarting.join(", "))),
    };
    Some(NodeChange { what: "configuration", effect, details, diff: diff(config, &spec.config) })
}

fn changed_accounts(spec: &NodeSpec, state: &NodeState, names: &BTreeMap<String, String>) -> Option<NodeChange> {
    if state.accounts_file == spec.accounts_digest() {
        return None;
    }
    let effect = if state.running.is_some() { Effect::Reload } else { Effect::Install };
    let wanted = account_digests(&spec.accounts);
    let name = |id: &String| names.get(id).unwrap_or(id).clone();
    let mut words = Vec::new();
    for (id, digest) in &wanted {
        match state.accounts.get(id) {
            None => words.push(format!("+{}", name(id))),
            Some(found) if found != digest => words.push(format!("~{}", name(id))),
            Some(_) => {}
        }
    }
    words.extend(state.accounts.keys().filter(|id| !wanted.contains_key(*id)).map(|id| format!("-{}", name(id))));
    let details = match words.len() {
        0 => "are to be written".to_owned(),
        number if number == wanted.len() && state.accounts.is_empty() => format!("{number} are to be written"),
        _ => words.join(" "),
    };
    change("accounts", effect, details)
}

fn unit(spec: &NodeSpec, state: &NodeState) -> Option<NodeChange> {
    let is_written = state.unit.as_deref() == Some(&spec.unit.text);
    let is_used = state.running.as_ref().is_none_or(|running| running.unit == spec.unit.digest);
    match (&state.unit, is_written, is_used) {
        (_, true, true) => None,
        (_, true, false) => change("unit", Effect::Roll, "the server was started with another one"),
        (None, ..) => change("unit", Effect::Install, "is to be written"),
        (Some(found), ..) => Some(NodeChange {
            what: "unit",
            effect: Effect::Install,
            details: "differs; the server has it after its next start".to_owned(),
            diff: diff(found, &spec.unit.text),
        }),
    }
}

fn server(spec: &NodeSpec, state: &NodeState) -> Option<NodeChange> {
    match &state.running {
        None => change("server", Effect::Start, format!("is {}", state.state)),
        Some(running) if running.config != running.config_in_files && state.config.as_ref() == Some(&spec.config) => {
            change("server", Effect::Reload, "runs another configuration than that in its files")
        }
        Some(_) => None,
    }
}

/// The lines that differ, without context.
fn diff(from: &str, to: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(from, to);
    let line = |change: similar::Change<&str>| {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => return None,
        };
        Some(format!("{sign}{}", change.value().trim_end_matches('\n')))
    };
    diff.iter_all_changes().filter_map(line).collect()
}

/// The paths of settings in which two files differ, in the form that natsctl writes.
fn changed_settings(from: &str, to: &str) -> BTreeSet<String> {
    let (from, to) = (settings(from), settings(to));
    from.symmetric_difference(&to).map(|(path, _)| path.clone()).collect()
}

/// Lines with the paths of the blocks that they are in. Comments are none.
fn settings(text: &str) -> BTreeSet<(String, &str)> {
    let mut blocks: Vec<&str> = Vec::new();
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split([':', ' ']).next().unwrap_or_default().trim_matches('"');
        if line.ends_with(['{', '[']) {
            blocks.push(name);
        } else if ["}", "]"].contains(&line) {
            blocks.pop();
        } else {
            let in_list = line.starts_with('"') && !line.contains("\": ");
            let path = if in_list { blocks.join(".") } else { [&blocks[..], &[name]].concat().join(".") };
            found.insert((path, line));
        }
    }
    found
}

/// Digest of the JWT of each account, as the script on the node makes it.
fn account_digests(accounts: &str) -> BTreeMap<String, String> {
    let digest = |line: &str| {
        let (id, jwt) = line.trim().split_once(": ")?;
        let jwt = jwt.strip_prefix('"')?.strip_suffix('"')?;
        Some((id.to_owned(), super::sha256(jwt)[..16].to_owned()))
    };
    accounts.lines().filter_map(digest).collect()
}
