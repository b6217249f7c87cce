//! `natsctl validate`

use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::problem::counted;
use crate::screen::Report;

/// Check the manifests and report all problems
#[derive(Debug, Args)]
pub(crate) struct Validate {}

impl Validate {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let manifests = invocation.load()?;
        let names: Vec<&String> = manifests.services.keys().collect();
        let text = format!("{} in environment `{}`: no problems", counted(names.len(), "service"), manifests.name);
        Ok(Report::new(&json!({ "environment": manifests.name, "services": names, "problems": [] }), text))
    }
}
