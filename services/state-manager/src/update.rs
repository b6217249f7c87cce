//! Updates: validates a request, and decides what to do with it given the current record.

use std::time::SystemTime;

use prost::Message as _;
use proto::rpc::{Code, Error};
use proto::state::manager::v1::{UpdateRequest, update_request};
use sdk::Operation;

use crate::patch::{MAX_SIZE, Patch};
use crate::record::{RecordKey, Revision};

/// The maximum number of field patches in one update.
const MAX_PATCHES: usize = 1000;

/// The maximum size of an encoded request. Each attempt of a write applies the whole of it.
const MAX_REQUEST_SIZE: usize = 2 * MAX_SIZE;

/// A validated request to update one record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) key: RecordKey,
    operation: Operation,
    expected: Option<u64>,
    patch: Patch,
}

/// What to do about an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The update was applied before, by this revision or an earlier one.
    AlreadyApplied(Revision),
    /// Write this revision after revision `previous`; 0 if there is none.
    Write { next: Revision, previous: u64 },
    /// The record is at revision `current`, not at the expected one.
    Conflict { current: u64 },
}

impl Update {
    /// Validates a request of the current context.
    pub(crate) fn new(request: UpdateRequest) -> Result<Self, Error> {
        match request.encoded_len() {
            size if size > MAX_REQUEST_SIZE => {
                return Err(Error::invalid(format_args!("request has {size} bytes, more than {MAX_REQUEST_SIZE}")));
            }
            _ => {}
        }
        let operation = Operation::current("update", &request);
        let patch = match request.change {
            Some(update_request::Change::Merge(patch)) => Patch::Merge(patch),
            Some(update_request::Change::Fields(fields)) => match fields.patches.len() {
                1..=MAX_PATCHES => Patch::Fields(fields.patches),
                count => {
                    return Err(Error::invalid(format_args!(
                        "change has {count} field patches, 1 to {MAX_PATCHES} are allowed"
                    )));
                }
            },
            None => return Err(Error::invalid("change is missing: set `merge` or `fields`")),
        };
        Ok(Self { key: request.key.try_into()?, operation, expected: request.expected_revision, patch })
    }

    /// Whether this update wrote the revision.
    pub(crate) fn wrote(&self, revision: &Revision) -> bool {
        revision.operations.end_with(&self.operation)
    }

    /// Decides what to do, given the record as it was read.
    pub(crate) fn decide(&self, current: Option<Revision>, now: SystemTime) -> Result<Decision, Error> {
        if let Some(current) = &current
            && current.operations.contain(&self.operation, now)?
        {
            return Ok(Decision::AlreadyApplied(current.clone()));
        }
        let previous = current.as_ref().map_or(0, Revision::number);
        if self.expected.is_some_and(|expected| expected != previous) {
            return Ok(Decision::Conflict { current: previous });
        }
        let replaced = current.as_ref().map_or(0, |current| current.stored_at);
        let (data, earlier) = current.map(|it| (it.data, it.operations)).unwrap_or_default();
        let next = Revision {
            key: self.key.clone(),
            data: self.patch.apply(data)?,
            updated_at: now.into(),
            operations: earlier.and(&self.operation, now)?,
            replaced,
            stored_at: 0,
        };
        Ok(Decision::Write { next, previous })
    }

    /// ABORTED: the caller must read the record again.
    pub(crate) fn conflict(&self, current: u64) -> Error {
        let message = match (self.expected, current) {
            (Some(0), _) => format!("{} exists already, at revision {current}", self.key),
            (Some(expected), 0) => format!("{} does not exist, so it is not at revision {expected}", self.key),
            (Some(expected), _) => format!("{} is at revision {current}, not {expected}", self.key),
            (None, _) => format!("{} is being changed by too many other writers", self.key),
        };
        Error::new(Code::Aborted, message).with_detail("current_revision", current)
    }
}

#[cfg(test)]
mod tests;
