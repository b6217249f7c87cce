//! Keys of records.

use std::borrow::Cow;
use std::fmt;

use proto::rpc::Error;

use crate::limits::check_id;

/// Identifies a record. It is displayed as people call the record, for example ``quest `q1` of player `p1` ``.
pub trait RecordKey: fmt::Display + Send + Sync {
    /// The key in the bucket: tokens of letters, digits, `-`, `_`, `=` and `/`, with `.` between them.
    fn bucket_key(&self) -> Cow<'_, str>;
}

/// A key of one token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    kind: &'static str,
    id: String,
}

impl Id {
    /// The key of a record of this kind, for example `model`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT unless `id` consists of 1 to `max_length` letters, digits, `_` and `-`.
    pub fn new(kind: &'static str, id: impl Into<String>, max_length: usize) -> Result<Self, Error> {
        let id = id.into();
        check_id(&format!("{kind} id"), &id, max_length)?;
        Ok(Self { kind, id })
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.id)
    }
}

impl RecordKey for Id {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}
