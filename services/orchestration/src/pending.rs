//! Which workflows no worker runs: an index of all workflows, as each worker keeps it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use proto::orchestration::v1::{Summary, Workflow, WorkflowState};
use sdk::{Clock, Deadlines, Follow, Update};

use crate::saga;

/// How long a workflow is kept after its end.
pub(crate) const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3_600);

/// All workflows.
#[derive(Debug)]
pub(crate) struct Pending {
    clock: Clock,
    summaries: BTreeMap<String, Summary>,
    unfinished: BTreeMap<String, Seen>,
    /// When those that have ended are deleted.
    over: Deadlines,
}

/// A workflow that has not ended, as it was seen by the clock of this worker: no two clocks are compared.
#[derive(Clone, Copy, Debug)]
struct Seen {
    revision: u64,
    at: SystemTime,
    patience: Duration,
}

impl Pending {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, summaries: BTreeMap::new(), unfinished: BTreeMap::new(), over: Deadlines::default() }
    }

    /// How many workflows there are.
    pub(crate) fn count(&self) -> usize {
        self.summaries.len()
    }

    /// The workflows after an id, ordered by id; those in this state, or all.
    pub(crate) fn after(&self, id: &str, state: Option<WorkflowState>, limit: usize) -> impl Iterator<Item = Summary> {
        let after = self.summaries.range::<str, _>((Bound::Excluded(id), Bound::Unbounded));
        let summaries = after.map(|(_, summary)| summary);
        summaries.filter(move |summary| state.is_none_or(|state| summary.state() == state)).take(limit).cloned()
    }

    /// Workflows that nothing has changed for longer than the worker that runs them may take, with their revisions.
    pub(crate) fn abandoned(&self) -> Vec<(String, u64)> {
        let now = self.clock.now();
        let is_abandoned = |seen: &Seen| now.duration_since(seen.at).is_ok_and(|age| age >= seen.patience);
        self.unfinished
            .iter()
            .filter(|(_, seen)| is_abandoned(seen))
            .map(|(id, seen)| (id.clone(), seen.revision))
            .collect()
    }

    /// Workflows that ended so long ago that they are deleted, at most `limit`.
    pub(crate) fn over(&self, limit: usize) -> Vec<String> {
        self.over.passed(self.clock.now(), limit)
    }
}

/// Whether a workflow ended so long ago that it is deleted.
pub(crate) fn is_over(workflow: &Workflow, now: SystemTime) -> bool {
    over_at(workflow).is_some_and(|at| at <= now)
}

/// When a workflow is deleted. One with a failed compensation waits for a person.
fn over_at(workflow: &Workflow) -> Option<SystemTime> {
    let is_settled = matches!(workflow.state(), WorkflowState::Completed | WorkflowState::Compensated);
    let ended_at = workflow.ended_at.filter(|_| is_settled)?;
    Some(SystemTime::try_from(ended_at).ok()? + KEPT_AFTER_END)
}

impl Follow<Workflow> for Pending {
    fn apply(&mut self, update: Update<Workflow>) {
        let Some(workflow) = update.record.map(|stored| stored.value) else {
            self.summaries.remove(&update.key);
            self.unfinished.remove(&update.key);
            self.over.set(&update.key, None);
            return;
        };
        self.over.set(&update.key, over_at(&workflow));
        let (state, started_at) = (workflow.state, workflow.started_at);
        self.summaries.insert(update.key.clone(), Summary { id: workflow.id.clone(), state, started_at });
        if saga::has_ended(workflow.state()) {
            self.unfinished.remove(&update.key);
        } else if self.unfinished.get(&update.key).is_none_or(|seen| seen.revision != update.revision) {
            let (revision, patience) = (update.revision, saga::patience(&workflow));
            self.unfinished.insert(update.key, Seen { revision, at: self.clock.now(), patience });
        }
    }
}

#[cfg(test)]
mod tests {
    use sdk::testing::{Time, written};

    use super::*;
    use crate::testing::workflow;

    #[test]
    fn a_workflow_is_abandoned_when_it_has_not_changed_for_longer_than_its_call_may_take() {
        let time = Time::default();
        let mut pending = Pending::new(time.clock());
        let begun = saga::begun(workflow(&["a", "b"]), "w", time.now());
        pending.apply(written("w1", 1, begun.clone()));
        pending.apply(written("w2", 2, workflow(&["a"])));
        // Nothing runs the one that is not begun.
        assert_eq!(pending.abandoned(), [("w2".to_owned(), 2)]);
        time.pass(Duration::from_millis(7_999));
        // The same again is no sign of life, another revision is.
        pending.apply(written("w1", 1, begun.clone()));
        assert_eq!(pending.abandoned().len(), 1);
        time.pass(Duration::from_millis(1));
        assert_eq!(pending.abandoned().len(), 2);
        pending.apply(written("w1", 3, begun));
        assert_eq!(pending.abandoned(), [("w2".to_owned(), 2)]);
        assert_eq!(pending.count(), 2);
    }

    #[test]
    fn a_workflow_is_over_a_day_after_its_end_unless_a_compensation_failed() {
        let time = Time::default();
        let mut pending = Pending::new(time.clock());
        let ended = |state: WorkflowState| Workflow {
            state: state.into(),
            ended_at: Some(time.now().into()),
            ..workflow(&["a"])
        };
        pending.apply(written("w1", 1, ended(WorkflowState::Completed)));
        pending.apply(written("w2", 2, ended(WorkflowState::CompensationFailed)));
        assert!(pending.abandoned().is_empty());
        time.pass(KEPT_AFTER_END - Duration::from_secs(1));
        assert!(pending.over(9).is_empty());
        time.pass(Duration::from_secs(1));
        assert_eq!(pending.over(9), ["w1"]);
        assert!(is_over(&ended(WorkflowState::Completed), time.now() + KEPT_AFTER_END));
        assert!(!is_over(&ended(WorkflowState::CompensationFailed), time.now() + KEPT_AFTER_END));
        pending.apply(Update { key: "w1".to_owned(), revision: 3, record: None });
        assert_eq!((pending.over(9).len(), pending.count()), (0, 1));
    }

    #[test]
    fn workflows_are_listed_by_page_and_state() {
        let mut pending = Pending::new(Clock::default());
        for (revision, id) in ["c", "a", "b"].into_iter().enumerate() {
            let workflow = Workflow { id: id.to_owned(), ..workflow(&["a"]) };
            pending.apply(written(id, 1 + revision as u64, workflow));
        }
        let ids = |after: &str, state, limit| -> Vec<String> {
            pending.after(after, state, limit).map(|summary| summary.id).collect()
        };
        assert_eq!(ids("", None, 9), ["a", "b", "c"]);
        assert_eq!(ids("a", Some(WorkflowState::Running), 1), ["b"]);
        assert_eq!(ids("", Some(WorkflowState::Completed), 9), [""; 0]);
    }
}
