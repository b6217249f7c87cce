//! How a plan reads: one line per step, and below it the fields that differ.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::nodes::HEALTH;
use super::{Action, FieldChange, Loss, LossKind, Operation, Plan, Step};
use crate::model::step::{Kind, Quorum};
use crate::model::units::{Size, Span};
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

impl Plan {
    /// In one line, what was done.
    pub fn done(&self) -> String {
        let mut counts: BTreeMap<Action, BTreeMap<Kind, usize>> = BTreeMap::new();
        for step in &self.steps {
            *counts.entry(step.action()).or_default().entry(step.kind()).or_default() += 1;
        }
        let kinds = |kinds: &BTreeMap<Kind, usize>| {
            kinds.iter().map(|(kind, count)| counted(*count, &kind.to_string())).collect::<Vec<_>>().join(", ")
        };
        let parts = counts.iter().map(|(action, counted)| format!("{} {}", action.done(), kinds(counted)));
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in rows(&self.steps) {
            row.fmt(f)?;
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

/// Steps that differ in nothing but the name of what they are about: NATS servers that change in the same way. The first stands for all.
struct Row<'a> {
    steps: Vec<&'a Step>,
}

fn rows(steps: &[Step]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for step in steps {
        match rows.last_mut() {
            Some(row) if row.steps[0].is_like(step) => row.steps.push(step),
            _ => rows.push(Row { steps: vec![step] }),
        }
    }
    rows
}

impl Step {
    fn is_like(&self, other: &Self) -> bool {
        let fields = |step: &Self| -> Vec<String> { step.changes.iter().map(|change| change.field.clone()).collect() };
        let is_repair = |step: &Self| matches!(step.operation, Operation::RepairNode { .. });
        let equal = self.kind() == other.kind() && self.action() == other.action() && fields(self) == fields(other);
        equal && self.kind() == Kind::Node && !is_repair(self) && !is_repair(other)
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [step, others @ ..] = &*self.steps else { return Ok(()) };
        write!(f, "{} {}", step.action().sign(), self.head())?;
        if let Operation::RepairNode { reason, quorum, .. } = &step.operation {
            writeln!(f, ": {reason}")?;
            if let Some(price) = quorum.price() {
                writeln!(f, "  ! {price}")?;
            }
        } else {
            // Every field of a new object differs.
            let is_scaled = step.changes.iter().any(|change| change.field == "tasks");
            let is_shown = |change: &&FieldChange| match &*change.field {
                _ if step.action() == Action::Create => false,
                HEALTH => false,
                // The manifest's number, which is what the tasks become.
                "declared_tasks" => !is_scaled,
                _ => true,
            };
            let changes: Vec<&FieldChange> = step.changes.iter().filter(is_shown).collect();
            match &*changes {
                [change] if others.is_empty() => writeln!(f, "  {change}")?,
                changes => {
                    writeln!(f)?;
                    for change in changes {
                        match others.iter().all(|other| other.changes.contains(change)) {
                            true => writeln!(f, "    {change}")?,
                            false => writeln!(f, "    {}: of each another", shown_field(&change.field))?,
                        }
                    }
                }
            }
            if let Some(meaning) = meaning(step.kind(), step.action()) {
                writeln!(f, "  ! {meaning}")?;
            }
        }
        for loss in step.losses() {
            writeln!(f, "  ! {loss}; `--force {}` accepts that", loss.kind())?;
        }
        Ok(())
    }
}

impl Row<'_> {
    fn head(&self) -> String {
        let [first, others @ ..] = &*self.steps else { return String::new() };
        if others.is_empty() {
            return first.to_string();
        }
        let names: Vec<&str> = self.steps.iter().map(|step| step.name()).collect();
        format!("{} {}s {}", first.action(), first.kind(), names.join(", "))
    }
}

/// What a step means for those who use what it changes.
fn meaning(kind: Kind, action: Action) -> Option<&'static str> {
    match (kind, action) {
        (Kind::Node, Action::Restart) => Some("restarted one by one: clients connect to another server meanwhile"),
        (Kind::Node, Action::Reload) => Some("reloaded: nothing is restarted, and no client loses its connection"),
        (Kind::Service, Action::Delete) => {
            Some("its tasks finish what they have begun; nothing answers its calls then")
        }
        _ => None,
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
            Some(Value::String(text)) if text.is_empty() => "(empty)".to_owned(),
            Some(value) => cut(&self.with_unit(value)),
        };
        let field = shown_field(&self.field);
        let (from, to) = (shown(&self.from), shown(&self.to));
        if from != to {
            return write!(f, "{field} {from} → {to}");
        }
        // They differ after what is shown of a value.
        let whole = |value: &Option<Value>| value.as_ref().map(text).unwrap_or_default().replace('\n', "\\n");
        write!(f, "{field} {} → {}", whole(&self.from), whole(&self.to))
    }
}

impl FieldChange {
    /// A value as people write it; its unit is a part of the field's name.
    fn with_unit(&self, value: &Value) -> String {
        let number = value.as_u64();
        let time = |milliseconds: u64| Span::from(Duration::from_millis(milliseconds)).to_string();
        match (self.field.rsplit('.').next(), number) {
            (Some("cpu"), Some(units)) => {
                format!("{} vCPU", f64::from(u32::try_from(units).unwrap_or(u32::MAX)) / 1024.0)
            }
            (Some("memory_mib"), Some(mebibytes)) => Size::from_mebibytes(mebibytes).to_string(),
            (Some(field), Some(seconds)) if field.ends_with("_seconds") => time(seconds.saturating_mul(1000)),
            (Some(field), Some(milliseconds)) if field.ends_with("_ms") => time(milliseconds),
            _ => short_digest(&text(value)),
        }
    }
}

/// A field without its unit, and without the words that all have.
fn shown_field(field: &str) -> &str {
    let field = field.strip_prefix("definition.").unwrap_or(field);
    ["_mib", "_seconds", "_ms"].into_iter().find_map(|unit| field.strip_suffix(unit)).unwrap_or(field)
}

/// Digests are compared by their beginnings; JSON has all of them.
fn short_digest(text: &str) -> String {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        hex[..12].to_owned()
    } else {
        text.to_owned()
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
            Self::Retention { from_seconds, to_seconds } => {
                let time = |seconds: u64| Span::from(Duration::from_secs(seconds));
                write!(f, "what is older than {} is deleted; now it is kept ", time(*to_seconds))?;
                match from_seconds {
                    0 => f.write_str("for ever"),
                    seconds => write!(f, "for {}", time(*seconds)),
                }
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
    /// What was done, afterwards.
    fn done(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Start => "started",
            Self::Reload => "reloaded",
            Self::Restart => "restarted",
            Self::Scale => "scaled",
            Self::RollBack => "rolled back",
            Self::Reduce => "reduced",
            Self::Stop => "stopped",
            Self::Delete => "deleted",
        }
    }

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
