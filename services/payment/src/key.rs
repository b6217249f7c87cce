//! Keys of the ledger's bucket, in which accounts and entries are side by side so that they change together.

use std::borrow::Cow;
use std::fmt;

use sdk::{Error, Operation, RecordKey, check_id};

/// Bytes of an account's id.
const MAX_ID: usize = 64;
/// Hexadecimal digits of an entry's id.
const ENTRY_DIGITS: usize = 24;

/// The key of an account or an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Account(String),
    Entry(String),
}

impl Key {
    /// The key of an account; `what` names the field.
    pub(crate) fn account(what: &str, id: &str) -> Result<Self, Error> {
        check_id(what, id, MAX_ID)?;
        Ok(Self::Account(id.to_owned()))
    }

    /// The key of an entry; `what` names the field.
    pub(crate) fn entry(what: &str, id: &str) -> Result<Self, Error> {
        if id.len() == ENTRY_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self::Entry(id.to_owned()));
        }
        Err(Error::invalid(format_args!("{what} must be the id of an entry, {ENTRY_DIGITS} hexadecimal digits")))
    }

    /// The key of the one entry that this operation posts, whenever it is repeated.
    pub(crate) fn of_operation(operation: &Operation) -> Self {
        Self::Entry(operation.digits())
    }

    /// The id without what kind of key it is.
    pub(crate) fn id(&self) -> &str {
        let (Self::Account(id) | Self::Entry(id)) = self;
        id
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => write!(f, "account `{id}`"),
            Self::Entry(id) => write!(f, "entry `{id}`"),
        }
    }
}

impl RecordKey for Key {
    fn bucket_key(&self) -> Cow<'_, str> {
        match self {
            Self::Account(id) => format!("account.{id}").into(),
            Self::Entry(id) => format!("entry.{id}").into(),
        }
    }
}
