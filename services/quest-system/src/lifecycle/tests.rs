use proptest::prelude::*;
use proto::quest::v1::Objective;

use super::*;

const STATES: [QuestState; 6] = [
    QuestState::Unspecified,
    QuestState::Offered,
    QuestState::Active,
    QuestState::Completed,
    QuestState::Abandoned,
    QuestState::Expired,
];

const EXPIRY: Timestamp = Timestamp { seconds: 1000, nanos: 5 };
const BEFORE: Timestamp = Timestamp { seconds: 1000, nanos: 4 };

fn quest(state: QuestState, done: u32) -> QuestInfo {
    QuestInfo {
        id: "q1".to_owned(),
        state: state.into(),
        objectives: vec![Objective { id: "wolves".to_owned(), required: 3, done, ..Objective::default() }],
        expires_at: Some(EXPIRY),
        ..QuestInfo::default()
    }
}

fn progress(objective: &str, amount: u32) -> Move {
    Move::Progress { objective: objective.to_owned(), amount }
}

fn moves() -> [Move; 4] {
    [Move::Accept, progress("wolves", 1), Move::Complete, Move::Abandon]
}

/// Every state, every move, in time and too late. What is not listed here is refused.
#[test]
fn only_legal_moves_are_made() {
    let legal = |state, attempted: &Move| match (state, attempted) {
        (QuestState::Offered, Move::Accept) => Some(QuestState::Active),
        (QuestState::Offered, Move::Abandon) => Some(QuestState::Abandoned),
        (QuestState::Active, Move::Progress { .. }) => Some(QuestState::Active),
        (QuestState::Active, Move::Complete) => Some(QuestState::Completed),
        (QuestState::Active, Move::Abandon) => Some(QuestState::Abandoned),
        _ => None,
    };
    for state in STATES {
        for attempted in moves() {
            let expected = legal(state, &attempted).ok_or_else(|| illegal(state, &attempted));
            let result = apply(quest(state, 3), &attempted, BEFORE).map(|quest| quest.state());
            assert_eq!(result, expected, "{state:?} {attempted}");

            let late = match state {
                QuestState::Offered | QuestState::Active => QuestState::Expired,
                other => other,
            };
            let result = apply(quest(state, 3), &attempted, EXPIRY);
            assert_eq!(result, Err(illegal(late, &attempted)), "{state:?} {attempted}, too late");
        }
    }
}

fn illegal(state: QuestState, attempted: &Move) -> Refusal {
    Refusal::Illegal { quest: "q1".to_owned(), state, attempted: attempted.clone() }
}

#[test]
fn open_quests_expire_and_others_stay() {
    let check = |state, at, expected| {
        assert_eq!(as_of(quest(state, 0), at).state(), expected, "{state:?} at {at:?}");
    };
    let long_after = Timestamp { seconds: 9000, nanos: 0 };
    for state in STATES {
        check(state, BEFORE, state);
        let late = if is_open(&quest(state, 0)) { QuestState::Expired } else { state };
        check(state, EXPIRY, late);
        check(state, long_after, late);
    }
    let endless = QuestInfo { expires_at: None, ..quest(QuestState::Active, 0) };
    assert_eq!(as_of(endless, long_after).state(), QuestState::Active);
}

#[test]
fn progress_stops_at_what_is_required() {
    let check = |done, amount, expected| {
        let after = apply(quest(QuestState::Active, done), &progress("wolves", amount), BEFORE).unwrap();
        assert_eq!(after.objectives[0].done, expected, "{done} + {amount}");
    };
    check(0, 1, 1);
    check(0, 3, 3);
    check(2, 5, 3);
    check(3, 1, 3);
    check(1, u32::MAX, 3);
}

#[test]
fn refusals_say_what_is_wrong() {
    let check = |quest: QuestInfo, attempted: Move, code, message: &str| {
        let error = Error::from(apply(quest, &attempted, BEFORE).unwrap_err());
        assert_eq!((error.code(), error.message()), (code, message));
    };
    check(
        quest(QuestState::Completed, 3),
        Move::Abandon,
        Code::FailedPrecondition,
        "quest `q1` is completed, which does not allow `abandon`",
    );
    check(
        quest(QuestState::Active, 2),
        Move::Complete,
        Code::FailedPrecondition,
        "objective `wolves` of quest `q1` is at 2 of 3",
    );
    check(
        quest(QuestState::Active, 0),
        progress("dragons", 1),
        Code::NotFound,
        "objective `dragons` of quest `q1` does not exist",
    );
    let error = Error::from(illegal(QuestState::Expired, &Move::Accept));
    assert_eq!((error.detail("state"), error.detail("move")), (Some("expired"), Some("accept")));
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        Just(Move::Accept),
        (0_u32..5).prop_map(|amount| progress("wolves", amount)),
        Just(Move::Complete),
        Just(Move::Abandon),
    ]
}

proptest! {
    /// Whatever is tried in whatever order: an ended quest stays as it ended, and only a finished one is completed.
    #[test]
    fn nothing_leads_out_of_an_end(attempts in prop::collection::vec((any_move(), 990_i64..1003), 0..30)) {
        let mut current = quest(QuestState::Offered, 0);
        let mut ended = None;
        let mut now = Timestamp::default();
        for (attempted, seconds) in attempts {
            now.seconds = now.seconds.max(seconds);
            if let Ok(next) = apply(current.clone(), &attempted, now) {
                prop_assert_eq!(&ended, &None);
                prop_assert!(next.objectives[0].done >= current.objectives[0].done);
                prop_assert!(next.objectives[0].done <= 3);
                prop_assert!(next.state() != QuestState::Completed || next.objectives[0].done == 3);
                current = next;
            }
            let seen = as_of(current.clone(), now);
            if !is_open(&seen) {
                ended.get_or_insert(seen.state());
            }
        }
    }
}
