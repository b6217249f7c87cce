//! `natsctl new service`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::scaffold::{self, ServiceName};
use crate::screen::Report;

/// Write a new service: contract, crate, manifest, and tests that pass
///
/// It stores one kind of record; replace that by what the service is for.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// Lower-case words with hyphens, for example `high-scores`
    name: String,
    /// Protobuf package; by default made of the name: `high.scores.v1`
    #[arg(long, value_name = "PACKAGE")]
    package: Option<String>,
    /// Show which files would be written, and write none
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Service {
    pub(crate) fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let service = ServiceName::new(&self.name, self.package.as_deref())?;
        let workspace = invocation.workspace()?;
        let shown = |path: &std::path::Path| path.strip_prefix(&workspace).unwrap_or(path).display().to_string();
        if self.dry_run {
            let files = scaffold::preview(&service, &workspace)?;
            let files: Vec<String> = files.iter().map(|path| shown(path)).collect();
            return Ok(Report::new(
                &json!({ "to_write": files }),
                format!("{}\nnothing was written", files.join("\n")),
            ));
        }
        let written = scaffold::write(&service, &workspace)?;
        let is_formatted = format(&written);
        let written: Vec<String> = written.iter().map(|path| shown(path)).collect();
        let mut text = written.join("\n");
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n\n\
             `cargo test -p {name}` runs its tests\n\
             `cargo run -p natsctl -- proto accept` makes its contract one that peers rely on\n\
             `cargo run -p natsctl -- docs` puts it into docs/services.md\n\
             `cargo run -p natsctl -- deploy {name}` starts it",
            name = service.name()
        );
        if !is_formatted {
            text.push_str("\n`cargo fmt` formats it: rustfmt did not run here");
        }
        Ok(Report::new(&json!({ "written": written }), text))
    }
}

/// Has rustfmt sort and wrap what depends on the names. Returns whether it did.
fn format(written: &[PathBuf]) -> bool {
    let sources = written.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let rustfmt = Command::new("rustfmt").args(["--edition", "2024"]).args(sources).output();
    rustfmt.is_ok_and(|output| output.status.success())
}
