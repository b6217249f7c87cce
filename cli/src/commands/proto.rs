//! `natsctl proto`

use clap::{Args, Subcommand};

use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::contract;
use crate::screen::Report;

/// Check the contracts in `proto/` against those that are deployed.
#[derive(Debug, Subcommand)]
pub(crate) enum Proto {
    /// Refuse what would break a peer that runs: removed or renumbered fields, changed types, removed rpcs, changed subjects
    Check(Nothing),
    /// Make the contracts as they are what later changes are checked against
    Accept(Nothing),
}

/// No options.
#[derive(Debug, Args)]
pub(crate) struct Nothing {}

impl Proto {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.workspace()?.join("proto");
        let (changes, verdict) = match self {
            Self::Check(Nothing {}) => (contract::check(&folder)?, "compatible with what is deployed"),
            Self::Accept(Nothing {}) => (contract::accept(&folder)?, "accepted"),
        };
        let lines =
            |sign: char, facts: &[String]| facts.iter().map(move |fact| format!("{sign} {fact}\n")).collect::<String>();
        let text = format!("{}{}{verdict}", lines('-', &changes.removed), lines('+', &changes.added));
        Ok(Report::new(&json!({ "added": changes.added, "removed": changes.removed }), text))
    }
}
