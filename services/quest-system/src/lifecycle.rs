//! The life of a quest: offered → active → completed | abandoned | expired.

use std::fmt;

use proto::quest::v1::{QuestInfo, QuestState};
use proto::rpc::{Code, Error};
use proto::well_known::Timestamp;

/// What a player does about a quest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Accept,
    /// Counts `amount` towards an objective.
    Progress {
        objective: String,
        amount: u32,
    },
    Complete,
    Abandon,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Progress { .. } => "progress",
            Self::Complete => "complete",
            Self::Abandon => "abandon",
        })
    }
}

/// Why a move is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("quest `{quest}` is {}, which does not allow `{attempted}`", name(*state))]
    Illegal { quest: String, state: QuestState, attempted: Move },
    #[error("objective `{objective}` of quest `{quest}` does not exist")]
    NoSuchObjective { quest: String, objective: String },
    #[error("objective `{objective}` of quest `{quest}` is at {done} of {required}")]
    Unfinished { quest: String, objective: String, done: u32, required: u32 },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Illegal { state, attempted, .. } => {
                Self::failed_precondition(message).with_detail("state", name(state)).with_detail("move", attempted)
            }
            Refusal::NoSuchObjective { .. } => Self::new(Code::NotFound, message),
            Refusal::Unfinished { objective, .. } => {
                Self::failed_precondition(message).with_detail("objective", objective)
            }
        }
    }
}

/// What people call the state.
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

/// Whether something can still become of the quest.
pub(crate) fn is_open(quest: &QuestInfo) -> bool {
    matches!(quest.state(), QuestState::Offered | QuestState::Active)
}

/// The quest as it is at that time: time itself moves a quest only to its expiry.
pub(crate) fn as_of(mut quest: QuestInfo, now: Timestamp) -> QuestInfo {
    let due = |expiry: Timestamp| (expiry.seconds, expiry.nanos) <= (now.seconds, now.nanos);
    if is_open(&quest) && quest.expires_at.is_some_and(due) {
        quest.set_state(QuestState::Expired);
    }
    quest
}

/// The quest after the move.
pub(crate) fn apply(quest: QuestInfo, attempted: &Move, now: Timestamp) -> Result<QuestInfo, Refusal> {
    let mut quest = as_of(quest, now);
    match (quest.state(), attempted) {
        (QuestState::Offered, Move::Accept) => quest.set_state(QuestState::Active),
        (QuestState::Active, Move::Progress { objective, amount }) => progress(&mut quest, objective, *amount)?,
        (QuestState::Active, Move::Complete) => {
            check_finished(&quest)?;
            quest.set_state(QuestState::Completed);
        }
        (QuestState::Offered | QuestState::Active, Move::Abandon) => quest.set_state(QuestState::Abandoned),
        (state, _) => {
            return Err(Refusal::Illegal { quest: quest.id, state, attempted: attempted.clone() });
        }
    }
    Ok(quest)
}

fn progress(quest: &mut QuestInfo, id: &str, amount: u32) -> Result<(), Refusal> {
    let Some(objective) = quest.objectives.iter_mut().find(|objective| objective.id == id) else {
        return Err(Refusal::NoSuchObjective { quest: quest.id.clone(), objective: id.to_owned() });
    };
    objective.done = objective.done.saturating_add(amount).min(objective.required);
    Ok(())
}

fn check_finished(quest: &QuestInfo) -> Result<(), Refusal> {
    match quest.objectives.iter().find(|objective| objective.done < objective.required) {
        Some(objective) => Err(Refusal::Unfinished {
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
