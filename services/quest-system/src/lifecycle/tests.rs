use proptest::prelude::*;
use sdk::Code;

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

fn progress(objective: &str, amount: u32) -> Action {
    Action::Progress { objective: objective.to_owned(), amount }
}

fn actions() -> [Action; 4] {
    [Action::Accept, progress("wolves", 1), Action::Complete, Action::Abandon]
}

/// Every state with every action, before and after the expiry. Everything that is not listed is refused.
#[test]
fn only_allowed_actions_are_performed() {
    let allowed = |state, action: &Action| match (state, action) {
        (QuestState::Offered, Action::Accept) => Some(QuestState::Active),
        (QuestState::Offered, Action::Abandon) => Some(QuestState::Abandoned),
        (QuestState::Active, Action::Progress { .. }) => Some(QuestState::Active),
        (QuestState::Active, Action::Complete) => Some(QuestState::Completed),
        (QuestState::Active, Action::Abandon) => Some(QuestState::Abandoned),
        _ => None,
    };
    for state in STATES {
        for action in actions() {
            let expected = allowed(state, &action).ok_or_else(|| not_allowed("q1", state, &action));
            let result = apply(quest(state, 3), &action, BEFORE).map(|quest| quest.state());
            assert_eq!(result, expected, "{state:?} {action}");

            let late = match state {
                QuestState::Offered | QuestState::Active => QuestState::Expired,
                other => other,
            };
            let result = apply(quest(state, 3), &action, EXPIRY);
            assert_eq!(result, Err(not_allowed("q1", late, &action)), "{state:?} {action}, too late");
        }
    }
}

#[test]
fn only_open_quests_expire() {
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
fn progress_is_capped_at_the_required_count() {
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
fn errors_name_the_problem() {
    let check = |quest: QuestInfo, action: Action, code, message: &str| {
        let error = apply(quest, &action, BEFORE).unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
    };
    check(
        quest(QuestState::Completed, 3),
        Action::Abandon,
        Code::FailedPrecondition,
        "quest `q1` is completed, which does not allow `abandon`",
    );
    check(
        quest(QuestState::Active, 2),
        Action::Complete,
        Code::FailedPrecondition,
        "objective `wolves` of quest `q1` is at 2 of 3",
    );
    check(
        quest(QuestState::Active, 0),
        progress("dragons", 1),
        Code::NotFound,
        "objective `dragons` of quest `q1` does not exist",
    );
    let error = not_allowed("q1", QuestState::Expired, &Action::Accept);
    assert_eq!((error.detail("state"), error.detail("move")), (Some("expired"), Some("accept")));
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Accept),
        (0_u32..5).prop_map(|amount| progress("wolves", amount)),
        Just(Action::Complete),
        Just(Action::Abandon),
    ]
}

proptest! {
    /// For any sequence of actions: the final state of a quest never changes, and only a quest with met objectives is
    /// completed.
    #[test]
    fn final_states_are_final(attempts in prop::collection::vec((any_action(), 990_i64..1003), 0..30)) {
        let mut current = quest(QuestState::Offered, 0);
        let mut ended = None;
        let mut now = Timestamp::default();
        for (action, seconds) in attempts {
            now.seconds = now.seconds.max(seconds);
            if let Ok(next) = apply(current.clone(), &action, now) {
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
