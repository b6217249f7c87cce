//! Records: their keys, their revisions, and their events.

use std::borrow::Cow;

use proto::state::manager::v1 as wire;
use proto::state::manager::v1::StoredRecord;
use proto::state::{entity, player};
use sdk::{Error, RecordKey, check_id, choice, required};

/// The maximum length of an id.
const MAX_ID: usize = 128;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Entity,
    Player,
}

impl Kind {
    /// The bucket of records of this kind.
    pub(crate) fn bucket(self) -> &'static str {
        match self {
            Self::Entity => "entities",
            Self::Player => "players",
        }
    }
}

/// The key of a record: a validated [`wire::Key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateKey {
    pub(crate) kind: Kind,
    pub(crate) id: String,
}

impl TryFrom<wire::Key> for StateKey {
    type Error = Error;

    fn try_from(key: wire::Key) -> Result<Self, Error> {
        let kind = match choice("kind of the key", key.kind)? {
            wire::Kind::Player => Kind::Player,
            _ => Kind::Entity,
        };
        check_id("id", &key.id, MAX_ID)?;
        Ok(Self { kind, id: key.id })
    }
}

impl TryFrom<Option<wire::Key>> for StateKey {
    type Error = Error;

    fn try_from(key: Option<wire::Key>) -> Result<Self, Error> {
        required("key", key)?.try_into()
    }
}

impl From<&StateKey> for wire::Key {
    fn from(key: &StateKey) -> Self {
        let kind = match key.kind {
            Kind::Entity => wire::Kind::Entity,
            Kind::Player => wire::Kind::Player,
        };
        Self { kind: kind.into(), id: key.id.clone() }
    }
}

impl std::fmt::Display for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Entity => write!(f, "entity `{}`", self.id),
            Kind::Player => write!(f, "player `{}`", self.id),
        }
    }
}

impl RecordKey for StateKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}

/// The revision of a record. It grows with every change, and is known before the record is written, so that the event which is
/// written with it can name it: the revision of the bucket that it replaced, and one.
pub(crate) fn revision(stored: &StoredRecord) -> u64 {
    stored.replaced_revision + 1
}

/// The record as callers see it.
pub(crate) fn shown(key: &StateKey, stored: StoredRecord) -> wire::Record {
    let revision = revision(&stored);
    wire::Record { key: Some(key.into()), revision, ..stored.record.unwrap_or_default() }
}

/// The event of an entity's record that follows revision `previous`.
pub(crate) fn entity_updated(key: &StateKey, stored: &StoredRecord, previous: u64) -> entity::v1::Updated {
    entity::v1::Updated {
        meta: None,
        entity_id: key.id.clone(),
        revision: revision(stored),
        previous_revision: previous,
        data: stored.record.as_ref().and_then(|record| record.data.clone()),
    }
}

/// The event of a player's record that follows revision `previous`.
pub(crate) fn player_updated(key: &StateKey, stored: &StoredRecord, previous: u64) -> player::v1::Updated {
    player::v1::Updated {
        meta: None,
        player_id: key.id.clone(),
        revision: revision(stored),
        previous_revision: previous,
        data: stored.record.as_ref().and_then(|record| record.data.clone()),
    }
}

#[cfg(test)]
mod tests {
    use sdk::{Code, Event as _};
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn key(kind: impl Into<i32>, id: &str) -> Option<wire::Key> {
        Some(wire::Key { kind: kind.into(), id: id.to_owned() })
    }

    #[test]
    fn valid_keys_are_accepted() {
        let longest = "x".repeat(128);
        for id in ["a", "Orc-7_b", "0", "-", longest.as_str()] {
            for (kind, bucket) in [(wire::Kind::Entity, "entities"), (wire::Kind::Player, "players")] {
                let parsed = StateKey::try_from(key(kind, id)).unwrap();
                assert_eq!((parsed.id.as_str(), parsed.kind.bucket()), (id, bucket));
                assert_eq!(Some(wire::Key::from(&parsed)), key(kind, id));
            }
        }
    }

    #[test]
    fn invalid_keys_are_refused() {
        let check = |key: Option<wire::Key>, reason: &str| {
            let error = StateKey::try_from(key).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().contains(reason), "{error}");
        };
        check(None, "key is missing");
        check(
            key(wire::Kind::Unspecified, "a"),
            "kind of the key is missing, it must be one of KIND_ENTITY, KIND_PLAYER",
        );
        check(key(7, "a"), "kind of the key is 7");
        let too_long = "x".repeat(129);
        for id in ["", "a.b", "*", ">", "a b", "ä", "a/b", too_long.as_str()] {
            check(key(wire::Kind::Player, id), "id must be");
        }
    }

    #[test]
    fn records_and_events_carry_the_revision() {
        let key = StateKey::try_from(key(wire::Kind::Player, "p1")).unwrap();
        let data = Some(object(json!({"hp": 3})));
        let record = wire::Record { data: data.clone(), ..wire::Record::default() };
        let stored = StoredRecord { record: Some(record), replaced_revision: 7 };
        let event = player_updated(&key, &stored, 6);
        assert_eq!((event.player_id.as_str(), event.revision, event.previous_revision), ("p1", 8, 6));
        assert_eq!(event.data, data);
        let event = entity_updated(&key, &stored, 6);
        assert_eq!((event.entity_id.as_str(), event.revision, event.previous_revision), ("p1", 8, 6));
        let record = shown(&key, stored);
        assert_eq!((record.revision, record.key, record.data), (8, Some((&key).into()), data));
        assert_eq!(entity::v1::Updated::SUBJECT, "evt.state.entity.updated.v1");
        assert_eq!(player::v1::Updated::SUBJECT, "evt.state.player.updated.v1");
    }
}
