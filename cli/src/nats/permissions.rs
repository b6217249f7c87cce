//! What a NATS user may publish and subscribe to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Subjects that a user may use; what is not named is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Subjects that it may publish to.
    pub publish: BTreeSet<String>,
    /// Subjects that it may subscribe to, each with an optional queue group after a space.
    pub subscribe: BTreeSet<String>,
}
