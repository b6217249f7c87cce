//! The steps that are under way, as lines of progress: each service has its own, equal steps of other kinds share one.

use std::collections::BTreeMap;

use crate::model::step::{Action, Kind, Step};
use crate::problem::counted;
use crate::screen::note;
use crate::screen::progress::Activity;

/// Steps that were started and have not ended.
#[derive(Default)]
pub(super) struct Activities {
    services: BTreeMap<String, Activity>,
    groups: BTreeMap<(Action, Kind), Group>,
}

/// Equal steps of one wave, for example the creation of its buckets.
struct Group {
    activity: Activity,
    started: usize,
    ended: usize,
    failed: usize,
}

impl Activities {
    pub(super) fn started(&mut self, step: &Step) {
        if is_of_service(step) {
            self.services.insert(step.name().to_owned(), Activity::start(step.name()));
            return;
        }
        let group = self.groups.entry((step.action(), step.kind())).or_insert_with(|| {
            let activity = Activity::start(step.to_string());
            Group { activity, started: 0, ended: 0, failed: 0 }
        });
        group.started += 1;
        if group.started > 1 {
            let several = counted(group.started, &step.kind().to_string());
            group.activity.is_called(format!("{} {several}", step.action()));
        }
    }

    /// How far a step is.
    #[cfg(feature = "aws")]
    pub(super) fn is_at(&self, step: &Step, state: &str) {
        let activity = if is_of_service(step) {
            self.services.get(step.name())
        } else {
            self.groups.get(&(step.action(), step.kind())).map(|group| &group.activity)
        };
        if let Some(activity) = activity {
            activity.is_at(state, None);
        }
    }

    pub(super) fn ended(&mut self, step: &Step, verdict: &str, is_failure: bool) {
        if is_of_service(step) {
            if let Some(activity) = self.services.remove(step.name()) {
                activity.end(verdict);
            }
            return;
        }
        let key = (step.action(), step.kind());
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.ended += 1;
        group.failed += usize::from(is_failure);
        if is_failure && group.started > 1 {
            note(&format!("{step} {verdict}"));
        }
        if group.ended < group.started {
            return;
        }
        if let Some(Group { activity, started, failed, .. }) = self.groups.remove(&key) {
            match failed {
                0 => activity.end(verdict),
                _ if started == 1 => activity.end(verdict),
                failed => activity.end(&format!("{failed} FAILED")),
            }
        }
    }

    /// The line of a service, for those who follow its deployment.
    pub(super) fn take(&mut self, step: &Step) -> Activity {
        self.services.remove(step.name()).unwrap_or_else(|| Activity::start(step.name()))
    }
}

/// Whether a deployment of a service is followed, task by task.
fn is_of_service(step: &Step) -> bool {
    step.kind() == Kind::Service && step.action() != Action::Delete
}
