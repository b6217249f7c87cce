//! How a plan reads: one line per step, and below it the fields that differ.

use std::fmt;

use serde_json::Value;

use super::nodes::HEALTH;
use super::{Action, FieldChange, Loss, LossKind, Operation, Plan, Step};
use crate::model::step::{Kind, Quorum};
use crate::problem::counted;

/// A value that is longer is cut; JSON output has all of it.
const LONGEST_VALUE: usize = 40;

impl Plan {
    /// In one line, how much is to be done.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "nothing to do".to_owned();
        }
        let mut counts: Vec<(Action, usize)> = Vec::new();
        for action in self.steps.iter().map(Step::action) {
            match counts.iter_mut().find(|(counted, _)| *counted == action) {
                Some((_, count)) => *count += 1,
                None => counts.push((action, 1)),
            }
        }
        counts.sort();
        let counts: Vec<String> = counts.into_iter().map(|(action, count)| format!("{count} to {action}")).collect();
        let total = format!("{}: {}", counted(self.steps.len(), "step"), counts.join(", "));
        match &self.incomplete {
            None => total,
            Some(_) => format!("{total}; the rest is planned when these are done"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match &step.operation {
                Operation::RepairNode { reason, quorum, .. } => {
                    writeln!(f, "{} {step}: {reason}", step.action().sign())?;
                    if let Some(price) = quorum.price() {
                        writeln!(f, "    {price}")?;
                    }
                }
                _ => writeln!(f, "{} {step}", step.action().sign())?,
            }
            for loss in step.losses() {
                writeln!(f, "    {loss}; `--force {}` accepts that", loss.kind())?;
            }
            // Every field of a new object differs.
            let is_shown = |change: &&FieldChange| step.action() != Action::Create && change.field != HEALTH;
            for change in step.changes.iter().filter(is_shown) {
                writeln!(f, "    {change}")?;
            }
        }
        for (service, kept) in &self.kept {
            writeln!(f, "= service {service} keeps what its manifest does not set")?;
            for (field, value) in kept {
                writeln!(f, "    {field}: {}", cut(&text(value)))?;
            }
        }
        if let Some(reason) = &self.incomplete {
            writeln!(f, "? streams, buckets and services\n    not known yet: {reason}")?;
        }
        f.write_str(&self.summary())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action(), self.kind(), self.name())
    }
}

impl Quorum {
    /// What a repair costs besides the server that is restarted.
    fn price(self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::Missing => Some("there is no quorum now: writes wait until it is back"),
            Self::Interrupted => Some("there is no quorum meanwhile: writes wait until it is back"),
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "(none)".to_owned(),
            Some(value) => cut(&text(value)),
        };
        let (from, to) = (shown(&self.from), shown(&self.to));
        if from != to {
            return write!(f, "{}: {from} -> {to}", self.field);
        }
        // They differ after what is shown of a value.
        let whole = |value: &Option<Value>| value.as_ref().map(text).unwrap_or_default().replace('\n', "\\n");
        write!(f, "{}: {} -> {}", self.field, whole(&self.from), whole(&self.to))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::History { from, to } => {
                let kept = counted(to, "value");
                write!(f, "of each key only the last {kept} stay instead of {from}: older ones are deleted")
            }
            Self::Replicas { from, to } => {
                write!(f, "{} instead of {from}: fewer nodes may fail", counted(to, "replica"))
            }
            Self::Retention { from_seconds: 0, to_seconds } => {
                write!(f, "what is older than {to_seconds} s is deleted; now it is kept for ever")
            }
            Self::Retention { from_seconds, to_seconds } => {
                write!(f, "what is older than {to_seconds} s is deleted; now it is kept for {from_seconds} s")
            }
            Self::Subjects { removed } => {
                write!(f, "messages on `{}` are no longer stored", removed.join("`, `"))
            }
        }
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::History => "history",
            Self::Replicas => "replicas",
            Self::Retention => "retention",
            Self::Subjects => "subjects",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::Scale => "scale",
            Self::RollBack => "roll back",
            Self::Reduce => "reduce",
            Self::Stop => "stop",
            Self::Delete => "delete",
        })
    }
}

impl Action {
    fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update | Self::Scale | Self::RollBack => '~',
            Self::Start | Self::Reload | Self::Restart => '>',
            Self::Reduce => '!',
            Self::Stop | Self::Delete => '-',
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Image => "image",
            Self::Node => "node",
            Self::Stream => "stream",
            Self::Bucket => "bucket",
            Self::Consumer => "consumer",
            Self::Service => "service",
            Self::Task => "task",
            Self::Environment => "environment",
            Self::Data => "data of",
        })
    }
}

/// A value, as a person would write it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of a value, on one line.
fn cut(text: &str) -> String {
    let text = &text.replace('\n', "\\n");
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
