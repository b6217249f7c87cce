//! Records: their keys, their stored form, and their revisions.

use prost::Message;
use proto::rpc::{Code, Error};
use proto::state::manager::v1 as wire;
use proto::state::{entity, player};
use proto::well_known::{Struct, Timestamp};
use sdk::{Operations, check_id};

/// The maximum size of an encoded response. NATS carries a megabyte; the rest is for headers.
const MAX_RESPONSE_BYTES: usize = 1000 * 1024;

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
pub(crate) struct RecordKey {
    pub(crate) kind: Kind,
    pub(crate) id: String,
}

impl TryFrom<wire::Key> for RecordKey {
    type Error = Error;

    fn try_from(key: wire::Key) -> Result<Self, Error> {
        let kind = match wire::Kind::try_from(key.kind) {
            Ok(wire::Kind::Entity) => Kind::Entity,
            Ok(wire::Kind::Player) => Kind::Player,
            Ok(wire::Kind::Unspecified) => return Err(Error::invalid("kind of the key is missing")),
            Err(_) => return Err(Error::invalid(format_args!("kind {} is unknown", key.kind))),
        };
        check_id("id", &key.id, MAX_ID)?;
        Ok(Self { kind, id: key.id })
    }
}

impl TryFrom<Option<wire::Key>> for RecordKey {
    type Error = Error;

    fn try_from(key: Option<wire::Key>) -> Result<Self, Error> {
        key.ok_or_else(|| Error::invalid("key is missing"))?.try_into()
    }
}

impl From<&RecordKey> for wire::Key {
    fn from(key: &RecordKey) -> Self {
        let kind = match key.kind {
            Kind::Entity => wire::Kind::Entity,
            Kind::Player => wire::Kind::Player,
        };
        Self { kind: kind.into(), id: key.id.clone() }
    }
}

impl std::fmt::Display for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Entity => write!(f, "entity `{}`", self.id),
            Kind::Player => write!(f, "player `{}`", self.id),
        }
    }
}

/// One revision of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    pub(crate) key: RecordKey,
    pub(crate) data: Struct,
    pub(crate) updated_at: Timestamp,
    /// The operations that are remembered; the last one wrote this revision.
    pub(crate) operations: Operations,
    /// The revision of the bucket that it replaced; 0 if there was none.
    pub(crate) replaced: u64,
    /// The revision of the bucket that it is; 0 until it is written.
    pub(crate) stored_at: u64,
}

impl Revision {
    /// Its number. It grows with every revision of the record, and is known before the revision is written, so that the
    /// event which is written with it can name it: the revision of the bucket that it replaced, and one.
    pub(crate) fn number(&self) -> u64 {
        self.replaced + 1
    }

    /// Encodes the record without its key, under which it is stored, and its number.
    pub(crate) fn encode(&self) -> Vec<u8> {
        wire::StoredRecord {
            record: Some(wire::Record {
                key: None,
                data: Some(self.data.clone()),
                revision: 0,
                updated_at: Some(self.updated_at),
            }),
            written_by: Vec::new(),
            replaced_revision: self.replaced,
            operations: self.operations.clone().into(),
        }
        .encode_to_vec()
    }

    /// Decodes the record that is stored under this key, at this revision of the bucket.
    pub(crate) fn decode(key: &RecordKey, bytes: &[u8], stored_at: u64) -> Result<Self, Error> {
        let lost = || {
            let bucket = key.kind.bucket();
            Error::new(Code::DataLoss, format!("{key} is not readable at revision {stored_at} of bucket `{bucket}`"))
        };
        let stored = wire::StoredRecord::decode(bytes).map_err(|_| lost())?;
        let record = stored.record.ok_or_else(lost)?;
        Ok(Self {
            key: key.clone(),
            data: record.data.unwrap_or_default(),
            updated_at: record.updated_at.unwrap_or_default(),
            operations: stored.operations.into(),
            replaced: stored.replaced_revision,
            stored_at,
        })
    }

    /// The event of an entity's revision that follows revision `previous`.
    pub(crate) fn entity_updated(&self, previous: u64) -> entity::v1::Updated {
        entity::v1::Updated {
            meta: None,
            entity_id: self.key.id.clone(),
            revision: self.number(),
            previous_revision: previous,
            data: Some(self.data.clone()),
        }
    }

    /// The event of a player's revision that follows revision `previous`.
    pub(crate) fn player_updated(&self, previous: u64) -> player::v1::Updated {
        player::v1::Updated {
            meta: None,
            player_id: self.key.id.clone(),
            revision: self.number(),
            previous_revision: previous,
            data: Some(self.data.clone()),
        }
    }
}

impl From<Revision> for wire::Record {
    fn from(revision: Revision) -> Self {
        Self {
            revision: revision.number(),
            key: Some((&revision.key).into()),
            data: Some(revision.data),
            updated_at: Some(revision.updated_at),
        }
    }
}

/// Returns the response, unless it is too large to be sent.
pub(crate) fn check_size<M: Message>(answer: M) -> Result<M, Error> {
    match answer.encoded_len() {
        size if size > MAX_RESPONSE_BYTES => Err(Error::invalid(format_args!(
            "the response would have {size} bytes, more than {MAX_RESPONSE_BYTES}: request fewer records"
        ))),
        _ => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use proto::rpc::Event as _;
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
                let parsed = RecordKey::try_from(key(kind, id)).unwrap();
                assert_eq!((parsed.id.as_str(), parsed.kind.bucket()), (id, bucket));
                assert_eq!(Some(wire::Key::from(&parsed)), key(kind, id));
            }
        }
    }

    #[test]
    fn invalid_keys_are_refused() {
        let check = |key: Option<wire::Key>, reason: &str| {
            let error = RecordKey::try_from(key).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().contains(reason), "{error}");
        };
        check(None, "key is missing");
        check(key(wire::Kind::Unspecified, "a"), "kind of the key is missing");
        check(key(7, "a"), "kind 7 is unknown");
        let too_long = "x".repeat(129);
        for id in ["", "a.b", "*", ">", "a b", "ä", "a/b", too_long.as_str()] {
            check(key(wire::Kind::Player, id), "id must be");
        }
    }

    fn revision() -> Revision {
        Revision {
            key: RecordKey::try_from(key(wire::Kind::Player, "p1")).unwrap(),
            data: object(json!({"hp": 3})),
            updated_at: Timestamp { seconds: 5, nanos: 6 },
            operations: vec![proto::common::v1::Operation { at_seconds: 5, ..Default::default() }].into(),
            replaced: 7,
            stored_at: 9,
        }
    }

    #[test]
    fn a_stored_record_is_read_with_its_number() {
        let revision = revision();
        assert_eq!(revision.number(), 8);
        assert_eq!(Revision::decode(&revision.key, &revision.encode(), 9), Ok(revision));
    }

    #[test]
    fn an_undecodable_record_is_data_loss() {
        let key = revision().key;
        for bytes in [b"\xff".as_slice(), b""] {
            let error = Revision::decode(&key, bytes, 4).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert_eq!(error.message(), "player `p1` is not readable at revision 4 of bucket `players`");
        }
    }

    #[test]
    fn records_and_events_carry_both_numbers() {
        let record = wire::Record::from(revision());
        assert_eq!(record.revision, 8);
        assert_eq!(record.key, key(wire::Kind::Player, "p1"));

        let event = revision().player_updated(6);
        assert_eq!((event.revision, event.previous_revision), (8, 6));
        assert_eq!(event.player_id, "p1");
        assert_eq!(event.data, Some(object(json!({"hp": 3}))));
        assert_eq!(entity::v1::Updated::SUBJECT, "evt.state.entity.updated.v1");
        assert_eq!(player::v1::Updated::SUBJECT, "evt.state.player.updated.v1");
    }

    #[test]
    fn responses_that_are_too_large_are_refused() {
        let answer = |bytes: usize| wire::GetResponse {
            record: Some(wire::Record {
                data: Some(object(json!({ "t": "x".repeat(bytes) }))),
                ..wire::Record::default()
            }),
            ..wire::GetResponse::default()
        };
        assert!(check_size(answer(MAX_RESPONSE_BYTES - 100)).is_ok());
        assert_eq!(check_size(answer(MAX_RESPONSE_BYTES)).unwrap_err().code(), Code::InvalidArgument);
    }
}
