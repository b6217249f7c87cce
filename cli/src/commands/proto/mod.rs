//! `natsctl proto`

mod accept;
mod check;

use clap::Subcommand;
use serde_json::json;

use super::invocation::Invocation;
use crate::contract::Changes;
use crate::screen::Report;

/// Check the contracts in `proto/` for breaking changes
#[derive(Debug, Subcommand)]
pub(crate) enum Proto {
    Check(check::Check),
    Accept(accept::Accept),
}

impl Proto {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Check(command) => command.run(invocation),
            Self::Accept(command) => command.run(invocation),
        }
    }
}

fn report(changes: &Changes, verdict: &str) -> Report {
    let lines = |sign: char, facts: &[String]| facts.iter().map(|fact| format!("{sign} {fact}\n")).collect::<String>();
    let text = format!("{}{}{verdict}", lines('-', &changes.removed), lines('+', &changes.added));
    Report::new(&json!({ "added": changes.added, "removed": changes.removed }), text)
}
