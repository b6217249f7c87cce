//! The stored records of quests, and their keys.

use prost::Message as _;
use proto::quest::v1::{Generated, QuestInfo, QuestState, StoredQuest};
use proto::rpc::{Code, Error};
use proto::well_known::Timestamp;
use sdk::check_id;

use crate::lifecycle::{Action, ActionError, apply, as_of};
use crate::random::stable_hash;

/// The maximum length of an id.
const MAX_ID: usize = 64;

/// How many operations a quest remembers. An operation that is retried after this many others is treated as a new one.
const MAX_OPERATIONS: usize = 16;

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

    /// The key of the record in the bucket.
    pub(crate) fn bucket_key(&self) -> String {
        format!("{}.{}", self.player_id, self.quest_id)
    }

    /// The id of the event of its generation, the same on every attempt.
    pub(crate) fn event_id(&self) -> String {
        format!("quests/{}/{}", self.player_id, self.quest_id)
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

/// A quest and the operations that changed it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuestRecord {
    quest: QuestInfo,
    /// Oldest first.
    operations: Vec<String>,
}

impl QuestRecord {
    /// The record of a new quest.
    pub(crate) fn new(quest: QuestInfo) -> Self {
        Self { quest, operations: Vec::new() }
    }

    /// Decodes the record that is stored under `key` at this revision.
    pub(crate) fn decode(key: &str, bytes: &[u8], revision: u64) -> Result<Self, Error> {
        let lost = || Error::new(Code::DataLoss, format!("revision {revision} of quest `{key}` is not readable"));
        let stored = StoredQuest::decode(bytes).map_err(|_| lost())?;
        let quest = stored.quest.ok_or_else(lost)?;
        Ok(Self { quest: QuestInfo { revision, ..quest }, operations: stored.written_by })
    }

    /// Encodes the record without the revision, which the bucket assigns.
    pub(crate) fn encode(&self) -> Vec<u8> {
        StoredQuest {
            quest: Some(QuestInfo { revision: 0, ..self.quest.clone() }),
            written_by: self.operations.clone(),
        }
        .encode_to_vec()
    }

    /// The quest as of `now`.
    pub(crate) fn into_quest(self, now: Timestamp) -> QuestInfo {
        as_of(self.quest, now)
    }

    /// The event of its generation.
    pub(crate) fn generated_event(&self) -> Generated {
        Generated {
            meta: None,
            quest_id: self.quest.id.clone(),
            player_id: self.quest.player_id.clone(),
            template: self.quest.template.clone(),
            level: self.quest.level,
            location: self.quest.location.clone(),
        }
    }

    /// The record with the revision at which it was written.
    pub(crate) fn with_revision(mut self, revision: u64) -> Self {
        self.quest.revision = revision;
        self
    }

    /// The record after the action, or `None` if this operation was applied before.
    pub(crate) fn after(
        &self,
        action: &Action,
        operation_id: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, ActionError> {
        let operation = operation(action, operation_id);
        if self.operations.contains(&operation) {
            return Ok(None);
        }
        let quest = apply(self.quest.clone(), action, now)?;
        let mut operations = self.operations.clone();
        operations.push(operation);
        operations.drain(..operations.len().saturating_sub(MAX_OPERATIONS));
        Ok(Some(Self { quest, operations }))
    }
}

/// Identifies the operation. One logical request may perform several actions, so its id alone is not enough.
fn operation(action: &Action, operation_id: &str) -> String {
    match action {
        Action::Progress { objective, .. } => format!("{operation_id}/{action}/{objective}"),
        _ => format!("{operation_id}/{action}"),
    }
}

/// The quests in this state, newest first; all of them if the state is unspecified.
pub(crate) fn filtered_newest_first(mut quests: Vec<QuestInfo>, state: QuestState) -> Vec<QuestInfo> {
    quests.retain(|quest| state == QuestState::Unspecified || quest.state() == state);
    quests.sort_by(|a, b| {
        let age = |quest: &QuestInfo| quest.offered_at.map_or((0, 0), |at| (at.seconds, at.nanos));
        age(b).cmp(&age(a)).then_with(|| a.id.cmp(&b.id))
    });
    quests
}

#[cfg(test)]
mod tests {
    use proto::quest::v1::Objective;

    use super::*;

    const NOW: Timestamp = Timestamp { seconds: 100, nanos: 0 };

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
        QuestInfo {
            id: "q1".to_owned(),
            state: state.into(),
            objectives: vec![Objective { id: "wolves".to_owned(), required: 100, ..Objective::default() }],
            revision: 4,
            ..QuestInfo::default()
        }
    }

    fn progress(objective: &str) -> Action {
        Action::Progress { objective: objective.to_owned(), amount: 1 }
    }

    #[test]
    fn a_stored_record_is_read_with_its_revision() {
        let record = QuestRecord { quest: quest(QuestState::Active), operations: vec!["a".to_owned(), "b".to_owned()] };
        let back = QuestRecord::decode("p.q1", &record.encode(), 9).unwrap();
        assert_eq!(back.quest.revision, 9);
        assert_eq!(back.operations, record.operations);
        assert_eq!(back.into_quest(NOW), QuestInfo { revision: 9, ..record.quest });
    }

    #[test]
    fn an_undecodable_record_is_data_loss() {
        for bytes in [b"\xff".as_slice(), b""] {
            let error = QuestRecord::decode("p.q1", bytes, 9).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert_eq!(error.message(), "revision 9 of quest `p.q1` is not readable");
        }
    }

    #[test]
    fn a_retried_action_is_applied_once() {
        let check = |state, action: Action| {
            let once = QuestRecord::new(quest(state)).after(&action, "op", NOW).unwrap().unwrap();
            assert_eq!(once.after(&action, "op", NOW), Ok(None), "{action}");
        };
        check(QuestState::Offered, Action::Accept);
        check(QuestState::Active, progress("wolves"));
        check(QuestState::Active, Action::Abandon);
    }

    #[test]
    fn one_request_may_perform_several_actions() {
        let offered = QuestRecord::new(quest(QuestState::Offered));
        let accepted = offered.after(&Action::Accept, "op", NOW).unwrap().unwrap();
        let advanced = accepted.after(&progress("wolves"), "op", NOW).unwrap().unwrap();
        assert_eq!(advanced.after(&progress("wolves"), "op", NOW), Ok(None));
        assert_eq!(advanced.after(&Action::Accept, "op", NOW), Ok(None));
        assert!(advanced.after(&Action::Accept, "another", NOW).is_err());
    }

    #[test]
    fn a_retry_is_recognised_after_the_quest_has_ended() {
        let active = QuestRecord::new(quest(QuestState::Active));
        let advanced = active.after(&progress("wolves"), "op", NOW).unwrap().unwrap();
        let abandoned = advanced.after(&Action::Abandon, "op2", NOW).unwrap().unwrap();
        assert_eq!(abandoned.after(&progress("wolves"), "op", NOW), Ok(None));
        assert!(abandoned.after(&progress("wolves"), "op3", NOW).is_err());
    }

    #[test]
    fn the_newest_operations_are_remembered() {
        let mut record = QuestRecord::new(quest(QuestState::Active));
        for number in 0..20 {
            record = record.after(&progress("wolves"), &format!("op{number}"), NOW).unwrap().unwrap();
        }
        assert_eq!(record.operations.len(), MAX_OPERATIONS);
        assert_eq!(record.operations[0], "op4/progress/wolves");
        assert_eq!(record.operations[15], "op19/progress/wolves");
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
        check(QuestState::Unspecified, &["d", "b", "c", "a"]);
        check(QuestState::Active, &["d", "b", "c"]);
        check(QuestState::Expired, &[]);
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
        let event = QuestRecord::new(info).generated_event();
        assert_eq!((event.quest_id.as_str(), event.player_id.as_str()), ("q1", "p1"));
        assert_eq!((event.template.as_str(), event.level, event.location.as_str()), ("hunt", 7, "forest"));
        let key = QuestKey::new("p1".to_owned(), "q1".to_owned()).unwrap();
        assert_eq!(key.event_id(), "quests/p1/q1");
    }
}
