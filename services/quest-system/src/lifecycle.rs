//! The lifecycle of a quest: offered → active → completed | abandoned | expired.

use std::fmt;

use proto::quest::v1::{Objective, QuestInfo, QuestState};
use proto::well_known::Timestamp;
use sdk::Error;

/// An action of a player on a quest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    /// Adds `amount` to an objective.
    Progress {
        objective: String,
        amount: u32,
    },
    Complete,
    Abandon,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Progress { .. } => "progress",
            Self::Complete => "complete",
            Self::Abandon => "abandon",
        })
    }
}

/// The name of a state in messages.
fn name(state: QuestState) -> &'static str {
    match state {
        QuestState::Unspecified => "in no state",
        QuestState::Offered => "offered",
        QuestState::Active => "active",
        QuestState::Completed => "completed",
        QuestState::Abandoned => "abandoned",
        QuestState::Expired => "expired",
    }
}

/// Whether the quest is offered or active.
pub(crate) fn is_open(quest: &QuestInfo) -> bool {
    matches!(quest.state(), QuestState::Offered | QuestState::Active)
}

/// The quest as of `now`: an open quest past its expiry is expired.
pub(crate) fn as_of(mut quest: QuestInfo, now: Timestamp) -> QuestInfo {
    let due = |expiry: Timestamp| (expiry.seconds, expiry.nanos) <= (now.seconds, now.nanos);
    if is_open(&quest) && quest.expires_at.is_some_and(due) {
        quest.set_state(QuestState::Expired);
    }
    quest
}

/// The quest after the action.
pub(crate) fn apply(quest: QuestInfo, action: &Action, now: Timestamp) -> Result<QuestInfo, Error> {
    let mut quest = as_of(quest, now);
    match (quest.state(), action) {
        (QuestState::Offered, Action::Accept) => quest.set_state(QuestState::Active),
        (QuestState::Active, Action::Progress { objective, amount }) => progress(&mut quest, objective, *amount)?,
        (QuestState::Active, Action::Complete) => {
            check_completed(&quest)?;
            quest.set_state(QuestState::Completed);
        }
        (QuestState::Offered | QuestState::Active, Action::Abandon) => quest.set_state(QuestState::Abandoned),
        (state, _) => return Err(not_allowed(&quest.id, state, action)),
    }
    Ok(quest)
}

fn not_allowed(quest: &str, state: QuestState, action: &Action) -> Error {
    let state = name(state);
    Error::failed_precondition(format_args!("quest `{quest}` is {state}, which does not allow `{action}`"))
        .with_detail("state", state)
        .with_detail("move", action)
}

fn progress(quest: &mut QuestInfo, id: &str, amount: u32) -> Result<(), Error> {
    let Some(objective) = quest.objectives.iter_mut().find(|objective| objective.id == id) else {
        return Err(Error::not_found(format_args!("objective `{id}` of quest `{}`", quest.id)));
    };
    objective.done = objective.done.saturating_add(amount).min(objective.required);
    Ok(())
}

fn check_completed(quest: &QuestInfo) -> Result<(), Error> {
    let unfinished = quest.objectives.iter().find(|objective| objective.done < objective.required);
    unfinished.map_or(Ok(()), |objective| {
        let Objective { id, done, required, .. } = objective;
        let reason = format_args!("objective `{id}` of quest `{}` is at {done} of {required}", quest.id);
        Err(Error::failed_precondition(reason).with_detail("objective", id))
    })
}

#[cfg(test)]
mod tests;
