//! The stored records of models: a model, and the operations that changed it.

use std::time::SystemTime;

use prost::Message as _;
use proto::ai::model::v1::Model;
use proto::common::v1 as common;
use sdk::{Code, Entry, Error, Operation, Operations};

/// A model and the operations that are remembered with it; the last one wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelRecord {
    pub(crate) model: Model,
    operations: Operations,
}

/// What to do about an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// It was carried out before, or changes nothing.
    Keep(ModelRecord),
    Write(ModelRecord),
}

/// What is stored with a model, in a field that `Model` reserves. So what is stored is a model, too, for tasks of a version
/// without it.
#[derive(Clone, PartialEq, prost::Message)]
struct Memory {
    #[prost(message, repeated, tag = "15")]
    operations: Vec<common::Operation>,
}

impl ModelRecord {
    pub(crate) fn decode(entry: &Entry) -> Result<Self, Error> {
        let lost = |error| Error::new(Code::DataLoss, format!("model `{}` cannot be read: {error}", entry.key));
        let model = Model::decode(entry.value.as_ref()).map_err(lost)?;
        let memory = Memory::decode(entry.value.as_ref()).map_err(lost)?;
        Ok(Self { model, operations: memory.operations.into() }.with_revision(entry.revision))
    }

    /// Encodes the record without the revision, which the bucket assigns.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Model { revision: 0, ..self.model.clone() }.encode_to_vec();
        bytes.extend(Memory { operations: self.operations.clone().into() }.encode_to_vec());
        bytes
    }

    pub(crate) fn with_revision(mut self, revision: u64) -> Self {
        self.model.revision = revision;
        self
    }

    pub(crate) fn was_written_by(&self, operation: &Operation) -> bool {
        self.operations.end_with(operation)
    }

    /// Decides what to do about an operation that makes `next` of the current record. One with an idempotency key is
    /// remembered even if it changes nothing: when it comes again, it must not undo what others changed meanwhile.
    pub(crate) fn after(
        current: Option<&Self>,
        next: Result<Model, Error>,
        operation: &Operation,
        now: SystemTime,
    ) -> Result<Decision, Error> {
        let Some(current) = current else {
            return Ok(Decision::Write(Self { model: next?, operations: Operations::default().and(operation, now)? }));
        };
        if current.operations.contain(operation, now)? {
            return Ok(Decision::Keep(current.clone()));
        }
        let model = Model { revision: current.model.revision, ..next? };
        if model == current.model && !operation.has_key() {
            return Ok(Decision::Keep(current.clone()));
        }
        Ok(Decision::Write(Self { model, operations: current.operations.and(operation, now)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_an_older_version_read_the_model_and_newer_ones_read_theirs() {
        let model = Model { id: "m".to_owned(), latency_ms: 7, ..Model::default() };
        let operation = Operation::current("retire", &Model::default());
        let operations = Operations::default().and(&operation, SystemTime::UNIX_EPOCH).unwrap();
        let record = ModelRecord { model: model.clone(), operations };
        assert_eq!(Model::decode(&*record.encode()), Ok(model.clone()));

        let entry = |value: Vec<u8>| Entry { key: "m".to_owned(), value: value.into(), revision: 3 };
        assert_eq!(ModelRecord::decode(&entry(record.encode())), Ok(record.with_revision(3)));
        let old = ModelRecord::decode(&entry(model.encode_to_vec())).unwrap();
        assert_eq!(old.model, Model { revision: 3, ..model });
        assert_eq!(old.operations, Operations::default());
    }
}
