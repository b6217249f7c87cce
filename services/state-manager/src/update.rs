//! Updates: validates a request, and decides what to do with it given the current record.

use prost::Message as _;
use proto::rpc::{Code, Error};
use proto::state::manager::v1::{UpdateRequest, update_request};
use proto::well_known::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::patch::Patch;
use crate::record::{RecordKey, Revision};

/// The maximum number of field patches in one update.
const MAX_PATCHES: usize = 1000;

/// How many operations a record remembers. An operation that is retried after this many others is treated as a new one.
const MAX_OPERATIONS: usize = 16;

/// A validated request to update one record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) key: RecordKey,
    operation: String,
    expected: Option<u64>,
    patch: Patch,
}

/// What to do about an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The update was applied before, by this revision or an earlier one.
    AlreadyApplied(Revision),
    /// Replace the current revision with this one.
    Write(Revision),
    /// The record is at revision `current`, not at the expected one.
    Conflict { current: u64 },
}

impl Update {
    /// Validates a request. `operation_id` identifies the logical request that it belongs to.
    pub(crate) fn new(request: UpdateRequest, operation_id: &str) -> Result<Self, Error> {
        let operation = operation(operation_id, &request);
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
        revision.operations.first() == Some(&self.operation)
    }

    /// Decides what to do, given the record as it was read.
    pub(crate) fn decide(&self, current: Option<Revision>, now: Timestamp) -> Result<Decision, Error> {
        let number = current.as_ref().map_or(0, |current| current.number);
        Ok(match (self.expected, current) {
            (_, Some(current)) if current.operations.contains(&self.operation) => Decision::AlreadyApplied(current),
            (Some(expected), _) if expected != number => Decision::Conflict { current: number },
            (_, current) => {
                let (data, earlier) = current.map(|it| (it.data, it.operations)).unwrap_or_default();
                let operations = std::iter::once(self.operation.clone()).chain(earlier);
                Decision::Write(Revision {
                    key: self.key.clone(),
                    data: self.patch.apply(data)?,
                    updated_at: now,
                    operations: operations.take(MAX_OPERATIONS).collect(),
                    replaced: number,
                    number: 0,
                })
            }
        })
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

/// Identifies the operation. One logical request may change a record several times, so its id alone is not enough.
fn operation(id: &str, request: &UpdateRequest) -> String {
    let change = UpdateRequest { meta: None, expected_revision: None, ..request.clone() };
    let digest = Sha256::new().chain_update(id).chain_update([0]).chain_update(change.encode_to_vec()).finalize();
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
