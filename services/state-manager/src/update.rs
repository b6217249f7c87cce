//! Updates: what a request asks for, and what to do about it with the record as it is now.

use prost::Message as _;
use proto::rpc::{Code, Error};
use proto::state::manager::v1::{UpdateRequest, update_request};
use proto::well_known::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::patch::Change;
use crate::record::{Name, Revision};

/// Field patches in one update.
const MAX_PATCHES: usize = 1000;

/// Names of operations that a record remembers. One that is repeated after so many others is taken for a new one.
const REMEMBERED: usize = 16;

/// A checked request for a change of one record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) name: Name,
    operation: String,
    expected: Option<u64>,
    change: Change,
}

/// What to do next about an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The change is made already, by this revision or an earlier one.
    Done(Revision),
    /// Write this in the place of what was read.
    Write(Revision),
    /// The record is at `current`, not where the caller expects it.
    Conflict { current: u64 },
}

impl Update {
    /// Checks a request. `operation_id` names the logical request that it belongs to.
    pub(crate) fn new(request: UpdateRequest, operation_id: &str) -> Result<Self, Error> {
        let operation = operation(operation_id, &request);
        let change = match request.change {
            Some(update_request::Change::Merge(patch)) => Change::Merge(patch),
            Some(update_request::Change::Fields(fields)) => match fields.patches.len() {
                1..=MAX_PATCHES => Change::Fields(fields.patches),
                count => {
                    return Err(Error::invalid(format_args!(
                        "change has {count} field patches, not 1 to {MAX_PATCHES}"
                    )));
                }
            },
            None => return Err(Error::invalid("change is missing: give `merge` or `fields`")),
        };
        Ok(Self { name: request.key.try_into()?, operation, expected: request.expected_revision, change })
    }

    /// Whether this update wrote that revision.
    pub(crate) fn wrote(&self, revision: &Revision) -> bool {
        revision.operations.first() == Some(&self.operation)
    }

    /// What to do, with the record as it was read.
    pub(crate) fn decide(&self, current: Option<Revision>, now: Timestamp) -> Result<Decision, Error> {
        let number = current.as_ref().map_or(0, |current| current.number);
        Ok(match (self.expected, current) {
            (_, Some(current)) if current.operations.contains(&self.operation) => Decision::Done(current),
            (Some(expected), _) if expected != number => Decision::Conflict { current: number },
            (_, current) => {
                let (data, earlier) = current.map(|it| (it.data, it.operations)).unwrap_or_default();
                let operations = std::iter::once(self.operation.clone()).chain(earlier);
                Decision::Write(Revision {
                    name: self.name.clone(),
                    data: self.change.apply(data)?,
                    updated_at: now,
                    operations: operations.take(REMEMBERED).collect(),
                    replaced: number,
                    number: 0,
                })
            }
        })
    }

    /// The caller must read again and think again.
    pub(crate) fn conflict(&self, current: u64) -> Error {
        let message = match (self.expected, current) {
            (Some(0), _) => format!("{} exists already, at revision {current}", self.name),
            (Some(expected), 0) => format!("{} does not exist, so it is not at revision {expected}", self.name),
            (Some(expected), _) => format!("{} is at revision {current}, not {expected}", self.name),
            (None, _) => format!("{} is being changed by too many others", self.name),
        };
        Error::new(Code::Aborted, message).with_detail("current_revision", current)
    }
}

/// Names what the request does. One logical request may change a record in several ways, so its id alone would not do.
fn operation(id: &str, request: &UpdateRequest) -> String {
    let change = UpdateRequest { meta: None, expected_revision: None, ..request.clone() };
    let digest = Sha256::new().chain_update(id).chain_update([0]).chain_update(change.encode_to_vec()).finalize();
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
