//! `natsctl docs`

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::error::Hinted;
use crate::reference::{DOCUMENT, PICTURE, Reference};
use crate::screen::Report;

/// Write the references of the services and of the commands, and a picture of who calls whom
///
/// `docs/services.md` and `docs/services.svg` beside the manifests are made of the contracts, with their comments, and of the manifests;
/// `docs/commands.md` of the command line. A natsctl without AWS has not all commands, and leaves that as it is.
#[derive(Debug, Args)]
pub(crate) struct Docs {
    /// Write nothing, and fail if a file is not as it would be written
    #[arg(long)]
    check: bool,
}

impl Docs {
    /// `commands` is the reference of the commands: its name, and what is in it.
    pub(crate) fn run(
        self,
        invocation: &Invocation,
        commands: Option<(&'static str, String)>,
    ) -> anyhow::Result<Report> {
        let workspace = invocation.workspace()?;
        let reference = Reference::new(&invocation.load()?, &workspace.join("proto"))?;
        let folder = workspace.join("docs");
        let files = [(DOCUMENT, reference.document()), (PICTURE, reference.picture())].into_iter().chain(commands);
        let mut different = Vec::new();
        for (name, text) in files {
            let path = folder.join(name);
            if !is_current(&path, &text)? {
                different.push((path, text));
            }
        }
        let names: Vec<String> = different.iter().map(|(path, _)| path.display().to_string()).collect();
        if self.check && !names.is_empty() {
            let message = format!("not current: {}", names.join(", "));
            return Err(Hinted::new(message, "run `natsctl docs`, and commit what it writes").into());
        }
        if !different.is_empty() {
            std::fs::create_dir_all(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
        }
        for (path, text) in different {
            std::fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        let text = if names.is_empty() { "everything is current".to_owned() } else { names.join("\n") };
        Ok(Report::new(&json!({ "written": names }), text))
    }
}

/// Whether a file has this text.
fn is_current(path: &Path, text: &str) -> anyhow::Result<bool> {
    match std::fs::read(path) {
        Ok(found) => Ok(found == text.as_bytes()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}
