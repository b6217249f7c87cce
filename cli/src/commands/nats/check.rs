//! `natsctl nats check`

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::nats::check::{self, Finding};
use crate::screen::{self, Report, UNHEALTHY};

/// Find what is wrong with the NATS cluster or soon will be, each finding with a stable code and what would repair it
///
/// For cron and CI: exits with 3 if a finding is critical. `--output prometheus` writes metrics for the node exporter.
#[derive(Debug, Args)]
pub(crate) struct NatsCheck {}

impl NatsCheck {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let (before, now) = invocation.platform().await?.survey_twice().await?;
        let findings = check::findings(&before, &now, Timestamp::now());
        let healthy = check::is_healthy(&findings);
        let data = json!({ "healthy": healthy, "findings": findings });
        let report = Report::new(&data, text(&findings)).prometheus(check::prometheus(&findings));
        Ok(report.code(if healthy { 0 } else { UNHEALTHY }))
    }
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong".to_owned();
    }
    let one = |Finding { code, severity, message, repair, .. }: &Finding| {
        format!("{severity}: {message} [{code}]\n{}", screen::indented(repair))
    };
    findings.iter().map(one).collect::<Vec<_>>().join("\n")
}
