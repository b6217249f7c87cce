//! How a plan reads: one line per step, and below it the fields that differ.

use std::fmt;

use serde_json::Value;

use super::{Action, Change, Kind, Plan, Step};

/// A value that is longer is cut: who needs all of it asks for JSON.
const LONGEST_VALUE: usize = 40;

impl Plan {
    /// The steps, by waves.
    pub fn waves(&self) -> impl Iterator<Item = &[Step]> {
        self.steps.chunk_by(|one, other| one.wave == other.wave)
    }

    /// In one line, how much is to be done.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "nothing to do".to_owned();
        }
        let counts = [Action::Create, Action::Update, Action::Start, Action::Delete].map(|action| {
            let count = self.steps.iter().filter(|step| step.action == action).count();
            (count > 0).then(|| format!("{count} to {action}"))
        });
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        format!("{} steps: {}", self.steps.len(), counts.join(", "))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{} {step}", step.action.sign())?;
            // Of what is new, everything differs.
            for change in step.changes.iter().filter(|_| step.action != Action::Create) {
                writeln!(f, "    {change}")?;
            }
        }
        f.write_str(&self.summary())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action, self.kind, self.name)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "(none)".to_owned(),
            Some(Value::String(text)) => cut(text),
            Some(value) => cut(&value.to_string()),
        };
        write!(f, "{}: {} -> {}", self.field, shown(&self.from), shown(&self.to))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Delete => "delete",
        })
    }
}

impl Action {
    fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Start => '>',
            Self::Delete => '-',
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Node => "node",
            Self::Stream => "stream",
            Self::Bucket => "bucket",
            Self::Service => "service",
        })
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
