//! How a deployment of one service ended, on any platform, and how that reads on one screen.

use std::fmt;

/// What a followed deployment has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All tasks of the new revision run, and no others are left.
    Completed,
    /// The deployment failed; the revision that ran before runs.
    Failed(Failure),
    /// Another deployment took its place: the revision that it brings, where that is known.
    Superseded(Option<String>),
    /// The service was deleted meanwhile.
    Gone,
    /// It did not end in time.
    Unfinished(Failure),
}

/// How far a deployment of a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// The revision that it brings.
    pub revision: u64,
    /// Tasks of this revision that take requests.
    pub new: u32,
    /// How many there should be.
    pub desired: u32,
    /// Tasks of earlier revisions that take requests.
    pub old: u32,
    /// Tasks of earlier revisions that are left.
    pub old_left: u32,
    /// Why a task of the revision is not ready.
    pub waits_for: Option<String>,
}

impl fmt::Display for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}  new {}/{}", self.revision, self.new, self.desired)?;
        match (self.old, self.old_left) {
            (_, 0) => Ok(()),
            (0, left) => write!(f, "  old {left} stopping"),
            (old, left) => write!(f, "  old {old}/{left} serving"),
        }
    }
}

/// Why a deployment failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// What the platform says.
    pub reason: String,
    /// Tasks that stopped meanwhile or do not become ready, the latest last.
    pub tasks: Vec<StoppedTask>,
    /// Id of the task that the log lines are of.
    pub log_task: Option<String>,
    /// The last lines of that task's log.
    pub log: Vec<String>,
    /// What the platform reported meanwhile, the newest last.
    pub events: Vec<String>,
}

/// A task that ended, or that does not become ready.
#[derive(Clone, Debug, PartialEq)]
pub struct StoppedTask {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Exit code of its container.
    pub exit_code: Option<i32>,
    /// Whether its health check failed.
    pub unhealthy: bool,
    /// Whether it ended by itself.
    pub crashed: bool,
}

/// Tasks, lines and events that fit on one screen.
const SHOWN: usize = 3;

impl Outcome {
    /// In two words, for progress lines.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Completed => "done",
            Self::Failed(_) => "FAILED",
            Self::Superseded(_) => "was superseded by another deployment",
            Self::Gone => "is gone",
            Self::Unfinished(_) => "did not finish in time",
        }
    }

    /// On one screen, why this is not what was asked for; `None` if it is. `image` is named where there are images.
    pub fn explanation(&self, service: &str, revision: u64, image: Option<&str>) -> Option<String> {
        let head = |what: &str| format!("deployment of `{service}` revision {revision} {what}");
        match self {
            Self::Completed => None,
            Self::Superseded(by) => {
                let by = by.as_ref().map(|by| format!(": another user or process deployed `{by}` meanwhile"));
                Some(head(&format!("was superseded{}", by.unwrap_or_default())))
            }
            Self::Gone => Some(head("ended: the service was deleted meanwhile")),
            Self::Failed(failure) => Some(failure.screen(&head("failed"), image)),
            Self::Unfinished(failure) => Some(failure.screen(&head("did not finish in time"), image)),
        }
    }
}

impl Failure {
    fn screen(&self, head: &str, image: Option<&str>) -> String {
        let mut lines = vec![format!("{head}: {}", self.reason)];
        lines.extend(image.map(|image| format!("  image {image}")));
        lines.extend(self.tasks.iter().rev().take(SHOWN).map(|task| format!("  task {task}")));
        if !self.log.is_empty() {
            let task = self.log_task.as_ref().map(|task| format!(" of task {task}")).unwrap_or_default();
            lines.push(format!("  last lines of the log{task}:"));
            lines.extend(self.log.iter().map(|line| format!("  | {line}")));
        }
        let oldest = self.events.len().saturating_sub(SHOWN);
        lines.extend(self.events[oldest..].iter().map(|event| format!("  event: {event}")));
        lines.join("\n")
    }
}

impl fmt::Display for StoppedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason)?;
        if let Some(code) = self.exit_code {
            write!(f, ", exit code {code}")?;
        }
        if self.unhealthy {
            f.write_str(", health check failed")?;
        }
        Ok(())
    }
}
