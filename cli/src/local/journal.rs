//! What was done to an environment, by which command and with what result: one line of JSON each, beside the environment's state.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::model::plan::Step;

/// Appends to `journal.jsonl`.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    command: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: jiff::Timestamp,
    command: &'a str,
    step: &'a Step,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Journal {
    pub(crate) fn new(dir: &Path, command: &str) -> Self {
        Self { path: dir.join("journal.jsonl"), command: command.to_owned() }
    }

    /// A step was begun.
    pub(crate) fn begun(&self, step: &Step) -> anyhow::Result<()> {
        self.write(step, "begun", None)
    }

    /// A step has ended.
    pub(crate) fn ended<T>(&self, step: &Step, outcome: &anyhow::Result<T>) -> anyhow::Result<()> {
        match outcome {
            Ok(_) => self.write(step, "done", None),
            Err(error) => self.write(step, "failed", Some(format!("{error:#}"))),
        }
    }

    fn write(&self, step: &Step, result: &str, error: Option<String>) -> anyhow::Result<()> {
        let entry = Entry { time: jiff::Timestamp::now(), command: &self.command, step, result, error };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        file.and_then(|mut file| file.write_all(&line))
            .with_context(|| format!("failed to write `{}`", self.path.display()))
    }
}
