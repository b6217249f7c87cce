//! A trace: what happened because of one request, in all services.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands for the id of a trace in a link.
pub(crate) const LINK_PLACEHOLDER: &str = "{trace_id}";

/// One operation of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Whose operation it is.
    pub service: String,
    /// The task of the service.
    pub task: String,
    /// What it is, for example `quest.v1.Quest/Generate`.
    pub name: String,
    /// What it is to its trace.
    pub kind: SpanKind,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span that caused it.
    pub parent_id: Option<String>,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// What went wrong.
    pub error: Option<String>,
    /// Named as OpenTelemetry's semantic conventions do.
    pub attributes: BTreeMap<String, String>,
}

/// What a span is to its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// It handles a request.
    Server,
    /// It sends a request.
    Client,
    /// It publishes an event.
    Producer,
    /// It handles an event.
    Consumer,
    /// None of these.
    Internal,
}

/// A span with its place in the tree of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branch<'a> {
    pub(crate) span: &'a Span,
    /// For each level above it, whether more spans follow there; the last is its own. A root has none.
    pub(crate) more: u128,
    pub(crate) depth: usize,
}

/// The deepest level that has a place of its own in the tree.
const MAX_DEPTH: usize = 100;

/// The spans of a trace as a tree: below each span those that it caused, in the order in which they started. A span whose
/// parent is not there is a root, so every span is there once.
pub(crate) fn tree(spans: &[Span]) -> Vec<Branch<'_>> {
    let by_id: BTreeMap<&str, usize> = spans.iter().enumerate().map(|(at, span)| (span.span_id.as_str(), at)).collect();
    let mut children: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (at, span) in spans.iter().enumerate() {
        let parent = span.parent_id.as_deref().and_then(|id| by_id.get(id)).copied();
        children.entry(parent.filter(|parent| *parent != at)).or_default().push(at);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|at| (spans[*at].start_ns, *at));
    }
    let mut branches = Vec::with_capacity(spans.len());
    let mut left: Vec<(usize, usize, u128)> =
        children.get(&None).into_iter().flatten().rev().map(|root| (*root, 0, 0)).collect();
    let mut placed = vec![false; spans.len()];
    loop {
        let Some((at, depth, more)) = left.pop() else {
            // Spans that name each other as parents have no root: the first of them becomes one.
            let Some(lost) = placed.iter().position(|placed| !placed) else { return branches };
            left.push((lost, 0, 0));
            continue;
        };
        if std::mem::replace(&mut placed[at], true) {
            continue;
        }
        branches.push(Branch { span: &spans[at], more, depth });
        let below = children.get(&Some(at)).map(Vec::as_slice).unwrap_or_default();
        let child_depth = (depth + 1).min(MAX_DEPTH);
        for (index, child) in below.iter().enumerate().rev() {
            let follows = u128::from(index + 1 < below.len()) << child_depth;
            left.push((*child, child_depth, more & !(1 << child_depth) | follows));
        }
    }
}

/// The beginning of a trace's id, or all of it: lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePrefix(String);

/// The fewest digits of a [`TracePrefix`].
const MIN_DIGITS: usize = 4;
/// The digits of a whole id.
const ALL_DIGITS: usize = 32;

impl TracePrefix {
    /// Whether an id begins with it.
    pub fn matches(&self, id: &str) -> bool {
        id.starts_with(&self.0)
    }

    /// The id, if it is a whole one.
    pub(crate) fn whole(&self) -> Option<&str> {
        (self.0.len() == ALL_DIGITS).then_some(&*self.0)
    }
}

impl fmt::Display for TracePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for TracePrefix {
    type Err = String;

    /// Reads an id, its beginning, or the `traceparent` or `traceresponse` that it is in.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let id = match lower.split('-').collect::<Vec<_>>().as_slice() {
            [version, id, span, _flags, ..] if version.len() == 2 && span.len() == 16 => (*id).to_owned(),
            _ => lower,
        };
        let is_hexadecimal = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hexadecimal && (MIN_DIGITS..=ALL_DIGITS).contains(&id.len()) {
            return Ok(Self(id));
        }
        let digits =
            format!("an id has {ALL_DIGITS} hexadecimal digits, of which the first {MIN_DIGITS} or more will do");
        Err(format!("{digits}; a `traceparent` will do too"))
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
