//! Quests as they are kept, and how they and their players are named.

use prost::Message as _;
use proto::quest::v1::{Generated, QuestInfo, QuestState, StoredQuest};
use proto::rpc::{Code, Error};
use proto::well_known::Timestamp;
use sdk::check_id;

use crate::dice::stable_hash;
use crate::lifecycle::{Move, Refusal, apply, as_of};

/// Characters of an id.
const MAX_ID: usize = 64;

/// Operations that a quest remembers. One that is repeated after so many others is taken for a new one.
const REMEMBERED: usize = 16;

/// Names a quest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    player_id: String,
    quest_id: String,
}

impl Name {
    /// Checks both ids.
    pub(crate) fn new(player_id: String, quest_id: String) -> Result<Self, Error> {
        check_id("player id", &player_id, MAX_ID)?;
        check_id("quest id", &quest_id, MAX_ID)?;
        Ok(Self { player_id, quest_id })
    }

    /// The quest that this operation makes for this player, now and whenever it is repeated.
    pub(crate) fn generated(player_id: String, operation_id: &str) -> Result<Self, Error> {
        let number = stable_hash(&[player_id.as_bytes(), operation_id.as_bytes()]);
        Self::new(player_id, format!("q{number:016x}"))
    }

    /// The player's.
    pub(crate) fn player_id(&self) -> &str {
        &self.player_id
    }

    /// The quest's own.
    pub(crate) fn quest_id(&self) -> &str {
        &self.quest_id
    }

    /// Where the quest is kept.
    pub(crate) fn key(&self) -> String {
        format!("{}.{}", self.player_id, self.quest_id)
    }

    /// What identifies the event of its generation, however often it is sent.
    pub(crate) fn event_id(&self) -> String {
        format!("quests/{}/{}", self.player_id, self.quest_id)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "quest `{}` of player `{}`", self.quest_id, self.player_id)
    }
}

/// Matches where all quests of the player are kept.
pub(crate) fn all_keys(player_id: &str) -> Result<String, Error> {
    check_id("player id", player_id, MAX_ID)?;
    Ok(format!("{player_id}.*"))
}

/// A quest, and which operations made it what it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    quest: QuestInfo,
    /// The newest last.
    operations: Vec<String>,
}

impl Kept {
    /// A quest that has just been made.
    pub(crate) fn new(quest: QuestInfo) -> Self {
        Self { quest, operations: Vec::new() }
    }

    /// What was kept under `key` and got this revision.
    pub(crate) fn decode(key: &str, bytes: &[u8], revision: u64) -> Result<Self, Error> {
        let lost = || Error::new(Code::DataLoss, format!("revision {revision} of quest `{key}` is not readable"));
        let stored = StoredQuest::decode(bytes).map_err(|_| lost())?;
        let quest = stored.quest.ok_or_else(lost)?;
        Ok(Self { quest: QuestInfo { revision, ..quest }, operations: stored.written_by })
    }

    /// What is kept: all but the revision, which the bucket assigns.
    pub(crate) fn encode(&self) -> Vec<u8> {
        StoredQuest {
            quest: Some(QuestInfo { revision: 0, ..self.quest.clone() }),
            written_by: self.operations.clone(),
        }
        .encode_to_vec()
    }

    /// The quest as it is at that time.
    pub(crate) fn seen(self, now: Timestamp) -> QuestInfo {
        as_of(self.quest, now)
    }

    /// The event of its generation.
    pub(crate) fn generated(&self) -> Generated {
        Generated {
            meta: None,
            quest_id: self.quest.id.clone(),
            player_id: self.quest.player_id.clone(),
            template: self.quest.template.clone(),
            level: self.quest.level,
            location: self.quest.location.clone(),
        }
    }

    /// The same, written as this revision.
    pub(crate) fn at(mut self, revision: u64) -> Self {
        self.quest.revision = revision;
        self
    }

    /// The quest after the move, or `None` if this operation has made it before.
    pub(crate) fn moved(&self, attempted: &Move, operation_id: &str, now: Timestamp) -> Result<Option<Self>, Refusal> {
        let operation = operation(attempted, operation_id);
        if self.operations.contains(&operation) {
            return Ok(None);
        }
        let quest = apply(self.quest.clone(), attempted, now)?;
        let mut operations = self.operations.clone();
        operations.push(operation);
        operations.drain(..operations.len().saturating_sub(REMEMBERED));
        Ok(Some(Self { quest, operations }))
    }
}

/// Names the move. One logical request may make several moves, so its id alone would not do.
fn operation(attempted: &Move, operation_id: &str) -> String {
    match attempted {
        Move::Progress { objective, .. } => format!("{operation_id}/{attempted}/{objective}"),
        _ => format!("{operation_id}/{attempted}"),
    }
}

/// The quests in this state, the newest first; all of them if the state is unspecified.
pub(crate) fn listed(mut quests: Vec<QuestInfo>, state: QuestState) -> Vec<QuestInfo> {
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
            assert_eq!(all_keys(id).unwrap(), format!("{id}.*"));
            assert!(Name::new(id.to_owned(), id.to_owned()).is_ok());
        }
        let too_long = "x".repeat(65);
        for id in ["", "a.b", "*", ">", "a b", "é", too_long.as_str()] {
            for error in [
                all_keys(id).unwrap_err(),
                Name::new(id.to_owned(), "q".to_owned()).unwrap_err(),
                Name::new("p".to_owned(), id.to_owned()).unwrap_err(),
                Name::generated(id.to_owned(), "op").err().unwrap_or_else(|| panic!("`{id}`")),
            ] {
                assert_eq!(error.code(), Code::InvalidArgument, "`{id}`");
            }
        }
    }

    #[test]
    fn the_same_operation_names_the_same_quest_for_ever() {
        let name = |player: &str, operation| Name::generated(player.to_owned(), operation).unwrap();
        assert_eq!(name("p1", "op1").key(), "p1.q4fa31ca935a52a30");
        assert_eq!(name("p1", "op1"), name("p1", "op1"));
        assert_ne!(name("p1", "op1").quest_id(), name("p1", "op2").quest_id());
        assert_ne!(name("p1", "op1").quest_id(), name("p", "1op1").quest_id());
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

    fn progress(objective: &str) -> Move {
        Move::Progress { objective: objective.to_owned(), amount: 1 }
    }

    #[test]
    fn what_is_kept_comes_back_with_the_revision_that_it_got() {
        let kept = Kept { quest: quest(QuestState::Active), operations: vec!["a".to_owned(), "b".to_owned()] };
        let back = Kept::decode("p.q1", &kept.encode(), 9).unwrap();
        assert_eq!(back.quest.revision, 9);
        assert_eq!(back.operations, kept.operations);
        assert_eq!(back.seen(NOW), QuestInfo { revision: 9, ..kept.quest });
    }

    #[test]
    fn what_is_not_a_quest_is_data_loss() {
        for bytes in [b"\xff".as_slice(), b""] {
            let error = Kept::decode("p.q1", bytes, 9).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert_eq!(error.message(), "revision 9 of quest `p.q1` is not readable");
        }
    }

    #[test]
    fn a_repeated_move_has_no_second_effect() {
        let check = |state, attempted: Move| {
            let once = Kept::new(quest(state)).moved(&attempted, "op", NOW).unwrap().unwrap();
            assert_eq!(once.moved(&attempted, "op", NOW), Ok(None), "{attempted}");
        };
        check(QuestState::Offered, Move::Accept);
        check(QuestState::Active, progress("wolves"));
        check(QuestState::Active, Move::Abandon);
    }

    #[test]
    fn one_request_may_make_several_moves() {
        let offered = Kept::new(quest(QuestState::Offered));
        let accepted = offered.moved(&Move::Accept, "op", NOW).unwrap().unwrap();
        let advanced = accepted.moved(&progress("wolves"), "op", NOW).unwrap().unwrap();
        assert_eq!(advanced.moved(&progress("wolves"), "op", NOW), Ok(None));
        assert_eq!(advanced.moved(&Move::Accept, "op", NOW), Ok(None));
        assert!(advanced.moved(&Move::Accept, "another", NOW).is_err());
    }

    #[test]
    fn a_repetition_is_recognised_after_the_end() {
        let active = Kept::new(quest(QuestState::Active));
        let advanced = active.moved(&progress("wolves"), "op", NOW).unwrap().unwrap();
        let abandoned = advanced.moved(&Move::Abandon, "op2", NOW).unwrap().unwrap();
        assert_eq!(abandoned.moved(&progress("wolves"), "op", NOW), Ok(None));
        assert!(abandoned.moved(&progress("wolves"), "op3", NOW).is_err());
    }

    #[test]
    fn the_newest_operations_are_remembered() {
        let mut kept = Kept::new(quest(QuestState::Active));
        for number in 0..20 {
            kept = kept.moved(&progress("wolves"), &format!("op{number}"), NOW).unwrap().unwrap();
        }
        assert_eq!(kept.operations.len(), REMEMBERED);
        assert_eq!(kept.operations[0], "op4/progress/wolves");
        assert_eq!(kept.operations[15], "op19/progress/wolves");
    }

    #[test]
    fn lists_are_filtered_and_the_newest_comes_first() {
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
            let listed = listed(quests.to_vec(), state);
            assert_eq!(listed.iter().map(|quest| quest.id.as_str()).collect::<Vec<_>>(), ids);
        };
        check(QuestState::Unspecified, &["d", "b", "c", "a"]);
        check(QuestState::Active, &["d", "b", "c"]);
        check(QuestState::Expired, &[]);
    }

    #[test]
    fn the_event_says_what_was_offered() {
        let info = QuestInfo {
            player_id: "p1".to_owned(),
            template: "hunt".to_owned(),
            level: 7,
            location: "forest".to_owned(),
            ..quest(QuestState::Offered)
        };
        let event = Kept::new(info).generated();
        assert_eq!((event.quest_id.as_str(), event.player_id.as_str()), ("q1", "p1"));
        assert_eq!((event.template.as_str(), event.level, event.location.as_str()), ("hunt", 7, "forest"));
        let name = Name::new("p1".to_owned(), "q1".to_owned()).unwrap();
        assert_eq!(name.event_id(), "quests/p1/q1");
    }
}
