//! The contract that running peers rely on: what of the protocol must not change, against what was last accepted.
//!
//! The contract is a text of one fact a line, `contract.lock` beside the `.proto` files, so that a change of it is read
//! in a review like any other. Additions are compatible; what a peer of the last release knows may neither go nor
//! change.

mod compile;
mod describe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use compile::comments;

use crate::problem::{Place, Problem, Problems, read};
use describe::{Described, describe};

/// Name of the file that keeps what was accepted.
const LOCK: &str = "contract.lock";

const HEADER: &str = "\
# What running peers rely on, one fact a line. `natsctl proto check` compares the .proto files with it;
# `natsctl proto accept` writes it. Never edit it by hand.
";

/// Facts that differ from what was accepted, as lines of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or changed.
    pub added: Vec<String>,
    /// Gone or changed.
    pub removed: Vec<String>,
}

/// Compares the `.proto` files in `folder` with what was accepted; the answer is what was added since.
///
/// # Errors
/// Everything that would break a running peer, and everything that is wrong with the files themselves.
pub fn check(folder: &Path) -> Result<Changes, Problems> {
    let described = describe(folder)?;
    let accepted = accepted(folder)?;
    let problems: Vec<Problem> = Comparison::new(&accepted, &described, folder).problems();
    Problems::from(problems).none_or(changes(&accepted, &described.contract))
}

/// What [`accept`] would answer.
///
/// # Errors
/// Everything that is wrong with the files themselves.
pub fn preview(folder: &Path) -> Result<Changes, Problems> {
    Ok(changes(&accepted(folder).unwrap_or_default(), &describe(folder)?.contract))
}

/// Makes the `.proto` files in `folder` the contract from now on, whatever it breaks; the answer is what changed.
///
/// # Errors
/// Everything that is wrong with the files themselves.
pub fn accept(folder: &Path) -> Result<Changes, Problems> {
    let described = describe(folder)?;
    // What cannot be read is replaced.
    let changes = changes(&accepted(folder).unwrap_or_default(), &described.contract);
    let file = folder.join(LOCK);
    let written = fs::write(&file, render(&described.contract));
    written.map_err(|error| {
        let message = format!("cannot write `{}`: {error}", file.display());
        Problem::new(&Place::start_of(&file), message)
    })?;
    Ok(changes)
}

/// The facts of a contract, in their order.
type Contract = BTreeMap<FactKey, String>;

/// What a fact is about. The rest of its line is what must not change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FactKey {
    kind: FactKind,
    /// Full name of a message, an enum, or a subject.
    of: String,
    /// Of a field, of a value, the first of a reserved range.
    number: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FactKind {
    Rpc,
    Event,
    Message,
    Field,
    Reserved,
    Enum,
}

const KINDS: [(FactKind, &str); 6] = [
    (FactKind::Rpc, "rpc"),
    (FactKind::Event, "event"),
    (FactKind::Message, "message"),
    (FactKind::Field, "field"),
    (FactKind::Reserved, "reserved"),
    (FactKind::Enum, "enum"),
];

impl FactKind {
    fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    fn is_numbered(self) -> bool {
        matches!(self, Self::Field | Self::Reserved | Self::Enum)
    }
}

impl FactKey {
    fn new(kind: FactKind, of: impl Into<String>) -> Self {
        Self { kind, of: of.into(), number: None }
    }

    fn numbered(kind: FactKind, of: &str, number: i32) -> Self {
        Self { number: Some(number), ..Self::new(kind, of) }
    }

    /// Reads a line of a contract.
    fn parse(line: &str) -> Option<(Self, String)> {
        let (kind, rest) = line.split_once(' ')?;
        let (kind, _) = KINDS.iter().find(|(_, name)| *name == kind)?;
        let (of, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut key = Self::new(*kind, of);
        if !kind.is_numbered() {
            return Some((key, rest.to_owned()));
        }
        let (number, rest) = rest.split_once(' ')?;
        key.number = Some(number.parse().ok()?);
        Some((key, rest.to_owned()))
    }
}

impl fmt::Display for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.of)?;
        self.number.map_or(Ok(()), |number| write!(f, " {number}"))
    }
}

fn line(key: &FactKey, rest: &str) -> String {
    if rest.is_empty() { key.to_string() } else { format!("{key} {rest}") }
}

fn render(contract: &Contract) -> String {
    let lines: Vec<String> = contract.iter().map(|(key, rest)| line(key, rest) + "\n").collect();
    format!("{HEADER}{}", lines.concat())
}

/// What was accepted, and in which line.
type LockedContract = BTreeMap<FactKey, (String, usize)>;

fn accepted(folder: &Path) -> Result<LockedContract, Problems> {
    let file = folder.join(LOCK);
    if !file.exists() {
        let problem = Problem::new(&Place::start_of(&file), "no contract was accepted yet");
        return Err(problem.hint("`natsctl proto accept` writes it; commit it").into());
    }
    let text = read(&file)?;
    let mut accepted = LockedContract::new();
    let mut problems = Vec::new();
    for (index, text) in text.lines().enumerate() {
        if text.starts_with('#') || text.is_empty() {
            continue;
        }
        match FactKey::parse(text) {
            Some((key, rest)) => drop(accepted.insert(key, (rest, index + 1))),
            None => {
                let place = Place { line: index + 1, ..Place::start_of(&file) };
                let problem = Problem::new(&place, "this is no line of a contract");
                problems.push(problem.hint("take the file from the last commit; it is never edited by hand"));
            }
        }
    }
    Problems::from(problems).none_or(accepted)
}

fn changes(accepted: &LockedContract, contract: &Contract) -> Changes {
    let before: BTreeSet<String> = accepted.iter().map(|(key, (rest, _))| line(key, rest)).collect();
    let after: BTreeSet<String> = contract.iter().map(|(key, rest)| line(key, rest)).collect();
    Changes {
        added: after.difference(&before).cloned().collect(),
        removed: before.difference(&after).cloned().collect(),
    }
}

struct Comparison<'a> {
    accepted: &'a LockedContract,
    described: &'a Described,
    lock: PathBuf,
}

/// What to do about something that is gone.
const PUT_BACK: &str = "put it back and mark it deprecated, or make a new version of the package";

/// What to do about something that is not what it was.
const CHANGE_BACK: &str = "change it back and add a new one beside it";

impl<'a> Comparison<'a> {
    fn new(accepted: &'a LockedContract, described: &'a Described, folder: &Path) -> Self {
        Self { accepted, described, lock: folder.join(LOCK) }
    }

    fn problems(&self) -> Vec<Problem> {
        self.accepted
            .iter()
            .filter_map(|(key, (before, line))| match self.described.contract.get(key) {
                None => self.removed(key, before, *line),
                Some(after) if after != before => self.changed(key, before, after, *line),
                Some(_) => None,
            })
            .collect()
    }

    fn removed(&self, key: &FactKey, before: &str, line: usize) -> Option<Problem> {
        let FactKey { kind, of, number } = key;
        let number = number.unwrap_or_default();
        let (name, _) = before.split_once(' ').unwrap_or((before, ""));
        // One word for a type that is gone as a whole, not one for each of its parts.
        let part_of_nothing = match kind {
            FactKind::Field | FactKind::Reserved => !self.described.has(FactKind::Message, of),
            FactKind::Enum => !self.described.has(FactKind::Enum, of) && !self.is_first_value(key),
            _ => false,
        };
        if part_of_nothing {
            return None;
        }
        let message = match kind {
            FactKind::Rpc => format!("rpc `{of}` was removed"),
            FactKind::Event => format!("event `{of}` was removed"),
            FactKind::Message => format!("message `{of}` was removed"),
            FactKind::Reserved => format!("number {number} of `{of}` is not reserved any more"),
            FactKind::Enum if !self.described.has(FactKind::Enum, of) => format!("enum `{of}` was removed"),
            FactKind::Enum => format!("value `{name}` = {number} of `{of}` was removed"),
            FactKind::Field => match self.field_named(of, name) {
                Some(other) => {
                    let now = other.number.unwrap_or_default();
                    let message = format!("field `{name}` of `{of}` was renumbered from {number} to {now}");
                    return Some(self.problem(&self.described.place(other), message, line, CHANGE_BACK));
                }
                None => format!("field `{name}` = {number} of `{of}` was removed"),
            },
        };
        let place = self.described.nearest(key).unwrap_or_else(|| Place { line, ..Place::start_of(&self.lock) });
        Some(self.problem(&place, message, line, PUT_BACK))
    }

    fn changed(&self, key: &FactKey, before: &str, after: &str, line: usize) -> Option<Problem> {
        let FactKey { kind, of, number } = key;
        let number = number.unwrap_or_default();
        let what = match kind {
            FactKind::Rpc => {
                let (before, after) = (Rpc::parse(before), Rpc::parse(after));
                let what = before.breaks(&after)?;
                format!("rpc `{of}` {what}")
            }
            FactKind::Field => {
                let name = after.split(' ').next().unwrap_or_default();
                format!("field `{name}` = {number} of `{of}` {}", field_change(before, after))
            }
            FactKind::Enum => format!("value {number} of `{of}` was renamed from `{before}` to `{after}`"),
            FactKind::Event => format!("event `{of}` became `{after}`, it was `{before}`"),
            FactKind::Message | FactKind::Reserved => format!("`{key}` was `{before}`, is `{after}`"),
        };
        Some(self.problem(&self.described.place(key), what, line, CHANGE_BACK))
    }

    fn problem(&self, place: &Place, message: String, line: usize, advice: &str) -> Problem {
        let lock = self.lock.display();
        Problem::new(place, message).hint(format!(
            "{advice}; accepted in {lock}:{line}, and `natsctl proto accept` takes it back once no peer relies on it"
        ))
    }

    fn field_named(&self, message: &str, name: &str) -> Option<&'a FactKey> {
        let fields = self.described.contract.iter();
        fields
            .filter(|(key, _)| key.kind == FactKind::Field && key.of == message)
            .find(|(_, rest)| rest.split(' ').next() == Some(name))
            .map(|(key, _)| key)
    }

    fn is_first_value(&self, key: &FactKey) -> bool {
        let mut values = self.accepted.keys().filter(|other| other.kind == FactKind::Enum && other.of == key.of);
        values.next() == Some(key)
    }
}

/// What a line says of an rpc, for example `quest.v1.GetRequest -> quest.v1.GetResponse idempotent`.
struct Rpc<'a> {
    request: &'a str,
    response: &'a str,
    idempotent: bool,
    streams: bool,
}

impl<'a> Rpc<'a> {
    fn parse(rest: &'a str) -> Self {
        let words: Vec<&str> = rest.split(' ').collect();
        Self {
            request: words.first().copied().unwrap_or_default(),
            response: words.get(2).copied().unwrap_or_default(),
            idempotent: words.contains(&"idempotent"),
            streams: words.contains(&"stream"),
        }
    }

    /// How a peer that knows `self` breaks on `after`. That an rpc becomes idempotent breaks no peer.
    fn breaks(&self, after: &Self) -> Option<String> {
        if self.request != after.request {
            return Some(format!("takes `{}`, it took `{}`", after.request, self.request));
        }
        if self.response != after.response {
            return Some(format!("answers `{}`, it answered `{}`", after.response, self.response));
        }
        match (self.streams, after.streams) {
            (true, false) => return Some("does not stream any more".to_owned()),
            (false, true) => return Some("streams, it answered once".to_owned()),
            _ => {}
        }
        (self.idempotent && !after.idempotent).then(|| "is not idempotent any more, but peers repeat it".to_owned())
    }
}

/// Lines are `name type cardinality…`.
fn field_change(before: &str, after: &str) -> String {
    let words = |text: &str| -> Vec<String> { text.splitn(3, ' ').map(str::to_owned).collect() };
    let (before, after) = (words(before), words(after));
    let names = ["was renamed from", "changed its type from", "changed from"];
    let changes: Vec<String> = before
        .iter()
        .zip(&after)
        .zip(names)
        .filter(|((before, after), _)| before != after)
        .map(|((before, after), what)| format!("{what} `{before}` to `{after}`"))
        .collect();
    changes.join(" and ")
}

#[cfg(test)]
mod tests;
