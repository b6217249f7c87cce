//! What was done to an environment: by whom, by which command, step by step and with what result.

mod text;

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use self::text::text;
use crate::model::step::{Action, Kind, Step};
use crate::nats::roll::Roll;

/// One run that changed the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Sorts by time.
    pub(crate) id: String,
    /// The user, on AWS the ARN of the caller.
    pub(crate) who: String,
    /// As typed.
    pub(crate) command: String,
    /// Of the sources, with `-dirty` if they were changed; empty if they are in no repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) git_revision: String,
    pub(crate) started: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<jiff::Timestamp>,
    pub(crate) result: RunResult,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Services that it was about.
    pub(crate) services: Vec<String>,
    /// What was rolled out to NATS servers: `natsctl nats roll --resume` goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) roll: Option<Roll>,
    pub(crate) steps: Vec<StepRecord>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunResult {
    /// It has not ended, or was killed.
    #[serde(alias = "begun")]
    Started,
    /// Everything was done and proven.
    Done,
    /// Something failed; what had been changed was rolled back.
    RolledBack,
    /// Something failed.
    Failed,
    /// It could not go on, for example because credentials had expired: what was done stays.
    Interrupted,
}

impl RunResult {
    /// Whether `natsctl deploy --resume` goes on with the run: it neither came to its end nor went back.
    pub(crate) fn is_unfinished(self) -> bool {
        matches!(self, Self::Started | Self::Failed | Self::Interrupted)
    }
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    /// For example `update service quest-system`.
    pub(crate) step: String,
    /// Revision before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// Revision afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Digest of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// `started`, `done` or `failed`.
    pub(crate) result: String,
}

impl StepRecord {
    /// A step that starts now.
    pub(crate) fn started(step: &Step) -> Self {
        Self { step: step.to_string(), from: None, to: None, image: None, result: "started".to_owned() }
    }
}

impl Record {
    /// A run that starts now.
    pub(crate) fn start(who: &str, command: &str, workspace: &Path, services: BTreeSet<String>) -> Self {
        let started = jiff::Timestamp::now();
        Self {
            id: format!("{started:.3}-{:04x}", fastrand::u16(..)),
            who: who.to_owned(),
            command: command.to_owned(),
            git_revision: git_revision(workspace),
            started,
            ended: None,
            result: RunResult::Started,
            error: None,
            services: services.into_iter().collect(),
            roll: None,
            steps: Vec::new(),
        }
    }

    /// The run ends now.
    pub(crate) fn end<T>(&mut self, outcome: &anyhow::Result<T>) {
        self.ended = Some(jiff::Timestamp::now());
        match outcome {
            Ok(_) => self.result = RunResult::Done,
            Err(error) => {
                if self.result == RunResult::Started {
                    self.result = RunResult::Failed;
                }
                self.error = Some(format!("{error:#}"));
            }
        }
    }

    /// How long it took; until now if it has not ended.
    pub(crate) fn duration(&self) -> jiff::SignedDuration {
        self.ended.unwrap_or_else(jiff::Timestamp::now).duration_since(self.started)
    }
}

/// The last run that did one of these to a service, and the step of it; `records` are the newest first.
pub(crate) fn last_done<'a>(
    records: &'a [Record],
    service: &str,
    actions: &[Action],
) -> Option<(&'a Record, &'a StepRecord)> {
    let steps: Vec<String> = actions.iter().map(|action| format!("{action} {} {service}", Kind::Service)).collect();
    let is_one = |step: &&StepRecord| step.result == "done" && steps.contains(&step.step);
    records.iter().find_map(|record| Some((record, record.steps.iter().rev().find(is_one)?)))
}

/// That `rollback` brought a service to the revision at which it is: by whom, and when. `is_current` is about [`StepRecord::to`].
pub(crate) fn rolled_back(records: &[Record], service: &str, is_current: impl Fn(&str) -> bool) -> Option<String> {
    let (record, step) = last_done(records, service, &[Action::Create, Action::Update, Action::RollBack])?;
    let is_back = step.step.starts_with(&Action::RollBack.to_string()) && step.to.as_deref().is_none_or(is_current);
    is_back.then(|| format!("rolled back by {} at {:.0}", record.who, record.started))
}

/// That a service was scaled, and by whom, if the history knows it.
pub(crate) fn scaled(records: &[Record], service: &str, tasks: u32) -> String {
    let by = last_done(records, service, &[Action::Scale]);
    let by = by.map(|(record, _)| format!(" by {} at {:.0}", record.who, record.started)).unwrap_or_default();
    format!("scaled to {tasks}{by}")
}

/// The commit of the sources that a deployment is made of.
fn git_revision(workspace: &Path) -> String {
    let git = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .current_dir(workspace)
        .output();
    let output = git.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
