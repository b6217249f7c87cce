//! Actions: which requests their parts become, and what their answers are together.

use proto::bodybroker::v1::state_change::Change as StatePart;
use proto::bodybroker::v1::{
    Action, ActionOutcome, Movement, MovementResult, Outcome, QuestProgress, QuestResult, StateChange, StateResult,
    SubmitActionResponse,
};
use proto::quest::v1::{ProgressRequest, ProgressResponse};
use proto::state::manager::v1::update_request::Change;
use proto::state::manager::v1::{Key, Kind, UpdateRequest, UpdateResponse};
use proto::world::state::v1::{Entity, MoveEntityRequest, UpsertEntityRequest};
use sdk::{Error, required};

/// The kind of the entities of players.
const PLAYER: &str = "player";

/// The requests that an action becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    pub(crate) state: Option<UpdateRequest>,
    pub(crate) movement: Option<Step>,
    pub(crate) quest: Option<ProgressRequest>,
}

/// What a movement becomes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The player's entity comes into the world.
    Enter(UpsertEntityRequest),
    /// It moves within the world.
    Move(MoveEntityRequest),
}

/// The parts of an action of a player.
pub(crate) fn parts(player_id: &str, action: Option<Action>) -> Result<Parts, Error> {
    let Action { state, movement, quest } = required("action", action)?;
    let parts = Parts {
        state: state.map(|change| update(player_id, change)).transpose()?,
        movement: movement.map(|movement| step(player_id, movement)).transpose()?,
        quest: quest.map(|progress| self::progress(player_id, progress)),
    };
    match parts == Parts::default() {
        true => Err(Error::invalid("action has no part, it must have state, movement or quest")),
        false => Ok(parts),
    }
}

fn update(player_id: &str, change: StateChange) -> Result<UpdateRequest, Error> {
    let part = match required("merge or fields of state", change.change)? {
        StatePart::Merge(merge) => Change::Merge(merge),
        StatePart::Fields(fields) => Change::Fields(fields),
    };
    Ok(UpdateRequest {
        meta: None,
        key: Some(Key { kind: Kind::Player.into(), id: player_id.to_owned() }),
        expected_revision: change.expected_revision,
        change: Some(part),
    })
}

fn step(player_id: &str, movement: Movement) -> Result<Step, Error> {
    let Movement { from_region_id, region_id, position } = movement;
    let position = Some(required("position of movement", position)?);
    if !from_region_id.is_empty() {
        return Ok(Step::Move(MoveEntityRequest {
            meta: None,
            region_id: from_region_id,
            entity_id: player_id.to_owned(),
            to_region_id: region_id,
            position,
        }));
    }
    let kind = PLAYER.to_owned();
    let entity = Entity { id: player_id.to_owned(), region_id, kind, position, ..Entity::default() };
    // An entity that is there already has attributes, which would be lost.
    Ok(Step::Enter(UpsertEntityRequest { meta: None, entity: Some(entity), expected_revision: Some(0) }))
}

fn progress(player_id: &str, progress: QuestProgress) -> ProgressRequest {
    let QuestProgress { quest_id, objective_id, amount } = progress;
    ProgressRequest { meta: None, player_id: player_id.to_owned(), quest_id, objective_id, amount }
}

/// What the parts came to; those are `None` that the action does not have.
pub(crate) fn combined(
    state: Option<Result<UpdateResponse, Error>>,
    movement: Option<Result<Option<Entity>, Error>>,
    quest: Option<Result<ProgressResponse, Error>>,
) -> SubmitActionResponse {
    let state = state.map(|answer| match answer {
        Ok(answer) => StateResult { outcome: Outcome::Applied.into(), error: None, record: answer.record },
        Err(error) => StateResult { outcome: Outcome::Failed.into(), error: Some(error.into()), record: None },
    });
    let movement = movement.map(|answer| match answer {
        Ok(entity) => MovementResult { outcome: Outcome::Applied.into(), error: None, entity },
        Err(error) => MovementResult { outcome: Outcome::Failed.into(), error: Some(error.into()), entity: None },
    });
    let quest = quest.map(|answer| match answer {
        Ok(answer) => QuestResult { outcome: Outcome::Applied.into(), error: None, quest: answer.quest },
        Err(error) => QuestResult { outcome: Outcome::Failed.into(), error: Some(error.into()), quest: None },
    });
    let outcomes = [
        state.as_ref().map(StateResult::outcome),
        movement.as_ref().map(MovementResult::outcome),
        quest.as_ref().map(QuestResult::outcome),
    ];
    let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    let applied = outcomes.iter().filter(|outcome| **outcome == Outcome::Applied).count();
    let outcome = match applied {
        0 => ActionOutcome::Failed,
        _ if applied == outcomes.len() => ActionOutcome::Applied,
        _ => ActionOutcome::PartlyApplied,
    };
    SubmitActionResponse { error: None, outcome: outcome.into(), state, movement, quest }
}

#[cfg(test)]
mod tests {
    use proto::quest::v1::QuestInfo;
    use proto::state::manager::v1::FieldPatches;
    use proto::world::state::v1::Point;

    use super::*;

    const HERE: Option<Point> = Some(Point { x: 1.0, y: 2.0, z: 0.0 });

    fn movement(from: &str) -> Movement {
        Movement { from_region_id: from.to_owned(), region_id: "mill".to_owned(), position: HERE }
    }

    #[test]
    fn every_part_is_about_the_player_of_the_session() {
        let state =
            StateChange { expected_revision: Some(3), change: Some(StatePart::Fields(FieldPatches::default())) };
        let quest = QuestProgress { quest_id: "q".to_owned(), objective_id: "o".to_owned(), amount: 2 };
        let action = Action { state: Some(state), movement: Some(movement("inn")), quest: Some(quest) };
        let parts = parts("ada", Some(action)).unwrap();
        let update = parts.state.unwrap();
        assert_eq!(update.key, Some(Key { kind: Kind::Player.into(), id: "ada".to_owned() }));
        assert_eq!((update.expected_revision, update.change), (Some(3), Some(Change::Fields(FieldPatches::default()))));
        let Some(Step::Move(step)) = parts.movement else { panic!("{:?}", parts.movement) };
        assert_eq!((&*step.entity_id, &*step.region_id, &*step.to_region_id), ("ada", "inn", "mill"));
        let progress = parts.quest.unwrap();
        assert_eq!((&*progress.player_id, &*progress.quest_id, progress.amount), ("ada", "q", 2));
    }

    #[test]
    fn a_player_who_comes_into_the_world_takes_nothing_from_one_who_is_there() {
        let Step::Enter(step) = step("ada", movement("")).unwrap() else { panic!("a move") };
        assert_eq!(step.expected_revision, Some(0));
        let entity = step.entity.unwrap();
        assert_eq!((&*entity.id, &*entity.kind, entity.position), ("ada", "player", HERE));
    }

    #[track_caller]
    fn refused(action: Option<Action>, message: &str) {
        assert_eq!(parts("ada", action).unwrap_err().message(), message);
    }

    #[test]
    fn an_action_without_what_it_needs_is_refused() {
        refused(None, "action is missing");
        refused(Some(Action::default()), "action has no part, it must have state, movement or quest");
        let state = Some(StateChange::default());
        refused(Some(Action { state, ..Action::default() }), "merge or fields of state is missing");
        let nowhere = Some(Movement { position: None, ..movement("") });
        refused(Some(Action { movement: nowhere, ..Action::default() }), "position of movement is missing");
    }

    #[test]
    fn an_action_is_applied_partly_applied_or_failed() {
        let update = |is_applied: bool| match is_applied {
            true => Ok(UpdateResponse::default()),
            false => Err(Error::unavailable("no")),
        };
        let quest = QuestInfo { id: "q".to_owned(), ..QuestInfo::default() };
        let check = |state: Option<bool>, moved: Option<bool>, outcome: ActionOutcome| {
            let moved = moved.map(|is_applied| update(is_applied).map(|_| None));
            let answer = combined(state.map(update), moved, None);
            assert_eq!(answer.outcome(), outcome, "{answer:?}");
            assert!(answer.quest.is_none());
        };
        check(Some(true), Some(true), ActionOutcome::Applied);
        check(Some(true), None, ActionOutcome::Applied);
        check(Some(true), Some(false), ActionOutcome::PartlyApplied);
        check(Some(false), Some(false), ActionOutcome::Failed);
        let answer = combined(Some(update(false)), None, Some(Ok(quest.clone().into())));
        assert_eq!(answer.quest.unwrap().quest, Some(quest));
        assert_eq!(answer.state.unwrap().error.unwrap().message, "no");
    }
}
