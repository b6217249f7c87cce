//! The stored records of quests, and their keys.

use std::borrow::Cow;

use proto::quest::v1::{Generated, QuestInfo, QuestState, StoredQuest};
use proto::well_known::Timestamp;
use sdk::random::stable_hash;
use sdk::{Error, Operation, RecordKey, Stored, check_id};

use crate::lifecycle::as_of;

/// The maximum length of an id.
const MAX_ID: usize = 64;

/// The key of a quest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuestKey {
    player_id: String,
    quest_id: String,
}

impl QuestKey {
    /// Validates both ids.
    pub(crate) fn new(player_id: String, quest_id: String) -> Result<Self, Error> {
        check_id("player id", &player_id, MAX_ID)?;
        check_id("quest id", &quest_id, MAX_ID)?;
        Ok(Self { player_id, quest_id })
    }

    /// The key of the quest that this operation generates for this player, on the first attempt and on retries.
    pub(crate) fn for_operation(player_id: String, operation_id: &str) -> Result<Self, Error> {
        let number = stable_hash(&[player_id.as_bytes(), operation_id.as_bytes()]);
        Self::new(player_id, format!("q{number:016x}"))
    }

    /// The player id.
    pub(crate) fn player_id(&self) -> &str {
        &self.player_id
    }

    /// The quest id.
    pub(crate) fn quest_id(&self) -> &str {
        &self.quest_id
    }
}

impl RecordKey for QuestKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{}.{}", self.player_id, self.quest_id))
    }
}

impl std::fmt::Display for QuestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "quest `{}` of player `{}`", self.quest_id, self.player_id)
    }
}

/// A filter that matches the records of all quests of the player.
pub(crate) fn player_filter(player_id: &str) -> Result<String, Error> {
    check_id("player id", player_id, MAX_ID)?;
    Ok(format!("{player_id}.*"))
}

/// The quest as callers see it at `now`.
pub(crate) fn shown(stored: Stored<StoredQuest>, now: Timestamp) -> QuestInfo {
    as_of(QuestInfo { revision: stored.revision, ..stored.value.quest.unwrap_or_default() }, now)
}

/// Refuses an operation that has the key of the one that generated the quest, and another request.
pub(crate) fn check_generated_by(stored: &StoredQuest, operation: &Operation) -> Result<(), Error> {
    stored.generated_by.as_ref().map_or(Ok(true), |generated_by| operation.is(generated_by)).map(drop)
}

/// The event of a quest's generation.
pub(crate) fn generated(quest: &QuestInfo) -> Generated {
    Generated {
        meta: None,
        quest_id: quest.id.clone(),
        player_id: quest.player_id.clone(),
        template: quest.template.clone(),
        level: quest.level,
        location: quest.location.clone(),
    }
}

/// The quests in this state, newest first; all of them if it is `None`.
pub(crate) fn filtered_newest_first(mut quests: Vec<QuestInfo>, state: Option<QuestState>) -> Vec<QuestInfo> {
    quests.retain(|quest| state.is_none_or(|state| quest.state() == state));
    quests.sort_by(|a, b| {
        let age = |quest: &QuestInfo| quest.offered_at.map_or((0, 0), |at| (at.seconds, at.nanos));
        age(b).cmp(&age(a)).then_with(|| a.id.cmp(&b.id))
    });
    quests
}

#[cfg(test)]
mod tests {
    use sdk::Code;

    use super::*;

    #[test]
    fn ids_are_checked() {
        let longest = "x".repeat(64);
        for id in ["p", "Player_1-x", longest.as_str()] {
            assert_eq!(player_filter(id).unwrap(), format!("{id}.*"));
            assert!(QuestKey::new(id.to_owned(), id.to_owned()).is_ok());
        }
        let too_long = "x".repeat(65);
        for id in ["", "a.b", "*", ">", "a b", "é", too_long.as_str()] {
            for error in [
                player_filter(id).unwrap_err(),
                QuestKey::new(id.to_owned(), "q".to_owned()).unwrap_err(),
                QuestKey::new("p".to_owned(), id.to_owned()).unwrap_err(),
                QuestKey::for_operation(id.to_owned(), "op").err().unwrap_or_else(|| panic!("`{id}`")),
            ] {
                assert_eq!(error.code(), Code::InvalidArgument, "`{id}`");
            }
        }
    }

    #[test]
    fn the_key_of_an_operation_never_changes() {
        let key = |player: &str, operation| QuestKey::for_operation(player.to_owned(), operation).unwrap();
        assert_eq!(key("p1", "op1").bucket_key(), "p1.q4fa31ca935a52a30");
        assert_eq!(key("p1", "op1"), key("p1", "op1"));
        assert_ne!(key("p1", "op1").quest_id(), key("p1", "op2").quest_id());
        assert_ne!(key("p1", "op1").quest_id(), key("p", "1op1").quest_id());
    }

    fn quest(state: QuestState) -> QuestInfo {
        QuestInfo { id: "q1".to_owned(), state: state.into(), ..QuestInfo::default() }
    }

    #[test]
    fn a_quest_is_shown_with_the_revision_at_which_it_is_stored() {
        let expires_at = Some(Timestamp { seconds: 10, nanos: 0 });
        let stored =
            StoredQuest { quest: Some(QuestInfo { expires_at, ..quest(QuestState::Active) }), generated_by: None };
        let check = |seconds, state: QuestState| {
            let seen = shown(Stored::at("p.q1", 9, stored.clone()), Timestamp { seconds, nanos: 0 });
            assert_eq!(seen, QuestInfo { revision: 9, expires_at, ..quest(state) });
        };
        check(9, QuestState::Active);
        check(10, QuestState::Expired);
    }

    #[test]
    fn lists_are_filtered_and_sorted_newest_first() {
        let of = |id: &str, state, seconds| QuestInfo {
            id: id.to_owned(),
            offered_at: Some(Timestamp { seconds, nanos: 0 }),
            ..quest(state)
        };
        let quests = [
            of("a", QuestState::Offered, 10),
            of("c", QuestState::Active, 20),
            of("b", QuestState::Active, 20),
            of("d", QuestState::Active, 30),
        ];
        let check = |state, ids: &[&str]| {
            let listed = filtered_newest_first(quests.to_vec(), state);
            assert_eq!(listed.iter().map(|quest| quest.id.as_str()).collect::<Vec<_>>(), ids);
        };
        check(None, &["d", "b", "c", "a"]);
        check(Some(QuestState::Active), &["d", "b", "c"]);
        check(Some(QuestState::Expired), &[]);
    }

    #[test]
    fn the_event_describes_the_quest() {
        let info = QuestInfo {
            player_id: "p1".to_owned(),
            template: "hunt".to_owned(),
            level: 7,
            location: "forest".to_owned(),
            ..quest(QuestState::Offered)
        };
        let event = generated(&info);
        assert_eq!((event.quest_id.as_str(), event.player_id.as_str()), ("q1", "p1"));
        assert_eq!((event.template.as_str(), event.level, event.location.as_str()), ("hunt", 7, "forest"));
    }
}
