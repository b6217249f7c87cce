//! The stored form of a record: the message, and in a field that it reserves, the operations that are remembered with it.

use std::time::SystemTime;

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, message, skip_field};
use proto::common::v1 as common;
use proto::rpc::{Code, Error, Record};

use super::NextRecord;
use crate::bucket::{Entry, ValueChange};
use crate::operations::{Operation, Operations};

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<R> {
    /// Its key in the bucket.
    pub key: String,
    /// The record; its field `revision`, if it has one, is `revision`.
    pub value: R,
    /// The revision of the bucket at which it was written. It grows with every write.
    pub revision: u64,
    /// What is remembered; the last one wrote this revision, unless that was not an operation.
    pub(super) operations: Operations,
}

impl<R: Record> Stored<R> {
    /// A record that is stored at this revision, and was not changed by an operation. For tests of what follows from records.
    pub fn at(key: &str, revision: u64, value: R) -> Self {
        let mut stored = Self::new(key, value);
        stored.set_revision(revision);
        stored
    }

    /// A record that is not written yet.
    pub(super) fn new(key: &str, value: R) -> Self {
        Self { key: key.to_owned(), value, revision: 0, operations: Operations::default() }
    }

    /// A record that is written.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn written(key: &str, revision: u64, value: R) -> Self {
        let mut stored = Self::new(key, value);
        stored.set_revision(revision);
        stored
    }

    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
        self.value.set_revision(revision);
    }

    /// Encodes the record without its revision, which the bucket assigns.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = self.value.clone();
        value.set_revision(0);
        let mut bytes = value.encode_to_vec();
        let operations: Vec<common::Operation> = self.operations.clone().into();
        message::encode_repeated(R::OPERATIONS, &operations, &mut bytes);
        bytes
    }

    /// Decodes what is stored in this bucket.
    pub(super) fn decode(bucket: &str, entry: &Entry) -> Result<Self, Error> {
        let lost = |error: DecodeError| {
            let Entry { key, revision, .. } = entry;
            let message =
                format!("record `{key}` of bucket `{bucket}` is not readable at revision {revision}: {error}");
            Error::new(Code::DataLoss, message)
        };
        let mut value = R::decode(entry.value.clone()).map_err(lost)?;
        value.set_revision(entry.revision);
        let operations = operations(R::OPERATIONS, entry.value.clone()).map_err(lost)?;
        Ok(Self { key: entry.key.clone(), value, revision: entry.revision, operations: operations.into() })
    }

    /// Puts the record that follows in place of the current one, at revision 0, and returns how to store it. An operation that has no key and
    /// changes nothing writes nothing, unless events follow from it.
    pub(super) fn replace(
        current: &mut Option<Self>,
        key: &str,
        next: NextRecord<R>,
        has_events: bool,
        operation: Option<(&Operation, SystemTime)>,
    ) -> Result<ValueChange, Error> {
        let mut record = match next {
            NextRecord::Keep => return Ok(ValueChange::Keep),
            NextRecord::Delete if current.is_none() => return Ok(ValueChange::Keep),
            NextRecord::Delete => return Ok(ValueChange::Delete),
            NextRecord::Write(value) => Self::new(key, value),
        };
        if let Some(current) = current {
            record.set_revision(current.revision);
            let is_remembered = operation.is_some_and(|(operation, _)| operation.has_key());
            if record.value == current.value && !is_remembered && !has_events {
                return Ok(ValueChange::Keep);
            }
            record.operations = std::mem::take(&mut current.operations);
        }
        if let Some((operation, now)) = operation {
            record.operations = record.operations.and(operation, now)?;
        }
        record.set_revision(0);
        let bytes = record.encode();
        *current = Some(record);
        Ok(ValueChange::Write(bytes.into()))
    }
}

/// The operations in field `number` of an encoded message.
fn operations(number: u32, mut bytes: impl Buf) -> Result<Vec<common::Operation>, DecodeError> {
    let mut operations = Vec::new();
    while bytes.has_remaining() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        if tag == number && wire_type == WireType::LengthDelimited {
            message::merge_repeated(wire_type, &mut operations, &mut bytes, DecodeContext::default())?;
        } else {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
        }
    }
    Ok(operations)
}
