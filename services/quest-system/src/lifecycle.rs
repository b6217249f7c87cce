//! The lifecycle of a quest: offered → active → completed | abandoned | expired.

use std::fmt;

use proto::quest::v1::{QuestInfo, QuestState};
use proto::rpc::{Code, Error};
use proto::well_known::Timestamp;

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

/// Why an action is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActionError {
    #[error("quest `{quest}` is {}, which does not allow `{action}`", name(*state))]
    NotAllowed { quest: String, state: QuestState, action: Action },
    #[error("objective `{objective}` of quest `{quest}` does not exist")]
    NoSuchObjective { quest: String, objective: String },
    #[error("objective `{objective}` of quest `{quest}` is at {done} of {required}")]
    Unfinished { quest: String, objective: String, done: u32, required: u32 },
}

impl From<ActionError> for Error {
    fn from(error: ActionError) -> Self {
        let message = error.to_string();
        match error {
            ActionError::NotAllowed { state, action, .. } => {
                Self::failed_precondition(message).with_detail("state", name(state)).with_detail("move", action)
            }
            ActionError::NoSuchObjective { .. } => Self::new(Code::NotFound, message),
            ActionError::Unfinished { objective, .. } => {
                Self::failed_precondition(message).with_detail("objective", objective)
            }
        }
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
pub(crate) fn apply(quest: QuestInfo, action: &Action, now: Timestamp) -> Result<QuestInfo, ActionError> {
    let mut quest = as_of(quest, now);
    match (quest.state(), action) {
        (QuestState::Offered, Action::Accept) => quest.set_state(QuestState::Active),
        (QuestState::Active, Action::Progress { objective, amount }) => progress(&mut quest, objective, *amount)?,
        (QuestState::Active, Action::Complete) => {
            check_completed(&quest)?;
            quest.set_state(QuestState::Completed);
        }
        (QuestState::Offered | QuestState::Active, Action::Abandon) => quest.set_state(QuestState::Abandoned),
        (state, _) => {
            return Err(ActionError::NotAllowed { quest: quest.id, state, action: action.clone() });
        }
    }
    Ok(quest)
}

fn progress(quest: &mut QuestInfo, id: &str, amount: u32) -> Result<(), ActionError> {
    let Some(objective) = quest.objectives.iter_mut().find(|objective| objective.id == id) else {
        return Err(ActionError::NoSuchObjective { quest: quest.id.clone(), objective: id.to_owned() });
    };
    objective.done = objective.done.saturating_add(amount).min(objective.required);
    Ok(())
}

fn check_completed(quest: &QuestInfo) -> Result<(), ActionError> {
    match quest.objectives.iter().find(|objective| objective.done < objective.required) {
        Some(objective) => Err(ActionError::Unfinished {
            quest: quest.id.clone(),
            objective: objective.id.clone(),
            done: objective.done,
            required: objective.required,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
