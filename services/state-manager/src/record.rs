//! Records: how they are named, kept and shown.

use prost::Message;
use proto::rpc::{Code, Error};
use proto::state::manager::v1 as wire;
use proto::state::{entity, player};
use proto::well_known::{Struct, Timestamp};
use sdk::check_id;

/// Bytes of an encoded answer. NATS carries a megabyte; the rest is for headers.
const MAX_ANSWER: usize = 1000 * 1024;

/// Characters of an id.
const MAX_ID: usize = 128;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Entity,
    Player,
}

impl Kind {
    /// Where records of this kind are kept.
    pub(crate) fn bucket(self) -> &'static str {
        match self {
            Self::Entity => "entities",
            Self::Player => "players",
        }
    }
}

/// Names a record: what a [`wire::Key`] means once it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) kind: Kind,
    pub(crate) id: String,
}

impl TryFrom<wire::Key> for Name {
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

impl TryFrom<Option<wire::Key>> for Name {
    type Error = Error;

    fn try_from(key: Option<wire::Key>) -> Result<Self, Error> {
        key.ok_or_else(|| Error::invalid("key is missing"))?.try_into()
    }
}

impl From<&Name> for wire::Key {
    fn from(name: &Name) -> Self {
        let kind = match name.kind {
            Kind::Entity => wire::Kind::Entity,
            Kind::Player => wire::Kind::Player,
        };
        Self { kind: kind.into(), id: name.id.clone() }
    }
}

impl std::fmt::Display for Name {
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
    pub(crate) name: Name,
    pub(crate) data: Struct,
    pub(crate) updated_at: Timestamp,
    /// Names of the operation that wrote it and of those before, the newest first.
    pub(crate) operations: Vec<String>,
    /// The revision that it took the place of; 0 if there was none.
    pub(crate) replaced: u64,
    /// Its number; 0 as long as it is not written.
    pub(crate) number: u64,
}

impl Revision {
    /// What is kept: all but its name, which is its key, and its number, which the bucket assigns.
    pub(crate) fn encode(&self) -> Vec<u8> {
        wire::StoredRecord {
            record: Some(wire::Record {
                key: None,
                data: Some(self.data.clone()),
                revision: 0,
                updated_at: Some(self.updated_at),
            }),
            written_by: self.operations.clone(),
            replaced_revision: self.replaced,
        }
        .encode_to_vec()
    }

    /// What was kept under this name and got this number.
    pub(crate) fn decode(name: &Name, bytes: &[u8], number: u64) -> Result<Self, Error> {
        let lost = || Error::new(Code::DataLoss, format!("revision {number} of {name} is not readable"));
        let stored = wire::StoredRecord::decode(bytes).map_err(|_| lost())?;
        let record = stored.record.ok_or_else(lost)?;
        Ok(Self {
            name: name.clone(),
            data: record.data.unwrap_or_default(),
            updated_at: record.updated_at.unwrap_or_default(),
            operations: stored.written_by,
            replaced: stored.replaced_revision,
            number,
        })
    }

    /// What identifies the event of this revision, however often it is sent.
    pub(crate) fn event_id(&self) -> String {
        format!("{}/{}/{}", self.name.kind.bucket(), self.name.id, self.number)
    }

    /// The event of an entity's revision.
    pub(crate) fn entity_updated(&self) -> entity::v1::Updated {
        entity::v1::Updated {
            meta: None,
            entity_id: self.name.id.clone(),
            revision: self.number,
            previous_revision: self.replaced,
            data: Some(self.data.clone()),
        }
    }

    /// The event of a player's revision.
    pub(crate) fn player_updated(&self) -> player::v1::Updated {
        player::v1::Updated {
            meta: None,
            player_id: self.name.id.clone(),
            revision: self.number,
            previous_revision: self.replaced,
            data: Some(self.data.clone()),
        }
    }
}

impl From<Revision> for wire::Record {
    fn from(revision: Revision) -> Self {
        Self {
            key: Some((&revision.name).into()),
            data: Some(revision.data),
            revision: revision.number,
            updated_at: Some(revision.updated_at),
        }
    }
}

/// The answer, unless it is larger than what can be sent.
pub(crate) fn sendable<M: Message>(answer: M) -> Result<M, Error> {
    match answer.encoded_len() {
        size if size > MAX_ANSWER => Err(Error::new(
            Code::ResourceExhausted,
            format!("answer would take {size} bytes, more than {MAX_ANSWER}: ask for fewer records"),
        )),
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
    fn good_names_are_taken() {
        let longest = "x".repeat(128);
        for id in ["a", "Orc-7_b", "0", "-", longest.as_str()] {
            for (kind, bucket) in [(wire::Kind::Entity, "entities"), (wire::Kind::Player, "players")] {
                let name = Name::try_from(key(kind, id)).unwrap();
                assert_eq!((name.id.as_str(), name.kind.bucket()), (id, bucket));
                assert_eq!(Some(wire::Key::from(&name)), key(kind, id));
            }
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let check = |key: Option<wire::Key>, reason: &str| {
            let error = Name::try_from(key).unwrap_err();
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
            name: Name::try_from(key(wire::Kind::Player, "p1")).unwrap(),
            data: object(json!({"hp": 3})),
            updated_at: Timestamp { seconds: 5, nanos: 6 },
            operations: vec!["newer".to_owned(), "older".to_owned()],
            replaced: 7,
            number: 9,
        }
    }

    #[test]
    fn what_is_kept_comes_back_with_the_number_that_it_got() {
        let revision = revision();
        let unwritten = Revision { number: 0, ..revision.clone() };
        assert_eq!(Revision::decode(&revision.name, &unwritten.encode(), 9), Ok(revision));
    }

    #[test]
    fn what_is_not_a_record_is_data_loss() {
        let name = revision().name;
        for bytes in [b"\xff".as_slice(), b""] {
            let error = Revision::decode(&name, bytes, 4).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert_eq!(error.message(), "revision 4 of player `p1` is not readable");
        }
    }

    #[test]
    fn records_and_events_carry_both_numbers() {
        let record = wire::Record::from(revision());
        assert_eq!(record.revision, 9);
        assert_eq!(record.key, key(wire::Kind::Player, "p1"));

        let event = revision().player_updated();
        assert_eq!((event.revision, event.previous_revision), (9, 7));
        assert_eq!(event.player_id, "p1");
        assert_eq!(event.data, Some(object(json!({"hp": 3}))));
        assert_eq!(revision().event_id(), "players/p1/9");
        assert_eq!(entity::v1::Updated::SUBJECT, "evt.state.entity.updated.v1");
        assert_eq!(player::v1::Updated::SUBJECT, "evt.state.player.updated.v1");
    }

    #[test]
    fn answers_that_cannot_be_sent_are_refused() {
        let answer = |bytes: usize| wire::GetResponse {
            record: Some(wire::Record {
                data: Some(object(json!({ "t": "x".repeat(bytes) }))),
                ..wire::Record::default()
            }),
            ..wire::GetResponse::default()
        };
        assert!(sendable(answer(MAX_ANSWER - 100)).is_ok());
        assert_eq!(sendable(answer(MAX_ANSWER)).unwrap_err().code(), Code::ResourceExhausted);
    }
}
