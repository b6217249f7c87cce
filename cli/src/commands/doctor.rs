//! `natsctl doctor`

use clap::Args;

use crate::commands::invocation::Invocation;
use crate::local::doctor::{Finding, check};
use crate::screen::{FAILED, Report, table};

/// Check this machine for missing prerequisites, taken ports and damaged files, and show how to fix them
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let findings = check(&invocation.workspace()?, invocation.any_local()).await;
        let rows = findings.iter().map(|Finding { what, ok, found, hint }| {
            let verdict = if *ok { "ok" } else { "NOT ok" };
            vec![what.clone(), verdict.to_owned(), found.clone(), hint.clone().unwrap_or_default()]
        });
        let text = table(&["what", "", "found", "how to fix it"], rows);
        let healthy = findings.iter().all(|finding| finding.ok);
        Ok(Report::new(&findings, text).code(if healthy { 0 } else { FAILED }))
    }
}
