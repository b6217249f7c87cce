//! Updates: validates a request, and applies it to the current record.

use std::time::SystemTime;

use prost::Message as _;
use proto::state::manager::v1::{Record, StoredRecord, UpdateRequest, update_request};
use sdk::{Code, Error, Stored, check_range, required};

use crate::patch::{MAX_SIZE, Patch};
use crate::record::{StateKey, revision};

/// The maximum number of field patches in one update.
const MAX_PATCHES: usize = 1000;

/// The maximum size of an encoded request. Each attempt of a write applies the whole of it.
const MAX_REQUEST_SIZE: usize = 2 * MAX_SIZE;

/// A validated request to update one record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) key: StateKey,
    expected: Option<u64>,
    patch: Patch,
}

impl Update {
    /// Validates a request.
    pub(crate) fn new(request: UpdateRequest) -> Result<Self, Error> {
        match request.encoded_len() {
            size if size > MAX_REQUEST_SIZE => {
                return Err(Error::invalid(format_args!("request has {size} bytes, more than {MAX_REQUEST_SIZE}")));
            }
            _ => {}
        }
        let patch = match required("change: `merge` or `fields`", request.change)? {
            update_request::Change::Merge(patch) => Patch::Merge(patch),
            update_request::Change::Fields(fields) => {
                check_range("the number of field patches", fields.patches.len(), 1..=MAX_PATCHES)?;
                Patch::Fields(fields.patches)
            }
        };
        Ok(Self { key: request.key.try_into()?, expected: request.expected_revision, patch })
    }

    /// The record after the update of the current one.
    pub(crate) fn apply(&self, current: Option<&Stored<StoredRecord>>, now: SystemTime) -> Result<StoredRecord, Error> {
        let revision = current.map_or(0, |current| revision(&current.value));
        if self.expected.is_some_and(|expected| expected != revision) {
            return Err(self.conflict(revision));
        }
        let record = current.and_then(|current| current.value.record.as_ref());
        let data = record.and_then(|record| record.data.clone()).unwrap_or_default();
        let record = Record { data: Some(self.patch.apply(data)?), updated_at: Some(now.into()), ..Record::default() };
        Ok(StoredRecord { record: Some(record), replaced_revision: current.map_or(0, |current| current.revision) })
    }

    /// ABORTED: the caller must read the record again.
    fn conflict(&self, current: u64) -> Error {
        let message = match (self.expected, current) {
            (Some(0), _) => format!("{} exists already, at revision {current}", self.key),
            (Some(expected), 0) => format!("{} does not exist, so it is not at revision {expected}", self.key),
            (expected, _) => format!("{} is at revision {current}, not {}", self.key, expected.unwrap_or_default()),
        };
        Error::new(Code::Aborted, message).with_detail("current_revision", current)
    }
}

#[cfg(test)]
mod tests;
