//! `natsctl schema`

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::screen::Report;
use crate::{handover, manifest};

/// Write the JSON Schemas of the manifests
///
/// They go into `schema/` in the folder of the manifests, where editors find them.
#[derive(Debug, Args)]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let folder = invocation.manifests_dir()?.join("schema");
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
        let mut written = Vec::new();
        for (name, text) in manifest::schemas().into_iter().chain([handover::schema()]) {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
            written.push(path.display().to_string());
        }
        Ok(Report::new(&json!({ "written": written }), written.join("\n")))
    }
}
