//! What a service keeps of what it has computed.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::EventSubject;
use crate::model::units::{Size, Span};

/// A cache of values that the service computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CacheSettings {
    /// How long a value may be used at most.
    #[schemars(extend("x-minimum" = "30 s", "x-maximum" = "5 min"))]
    pub ttl: Span,
    /// How much of the memory of each task its values may take.
    #[serde(default = "CacheSettings::default_size")]
    #[schemars(extend("x-minimum" = "64 KiB", "x-maximum" = "4 GiB"))]
    pub max_size: Size,
    /// Events after which values may be wrong. Every task of the service consumes them, and decides what it invalidates.
    #[serde(default)]
    pub invalidated_by: BTreeSet<EventSubject>,
}

impl CacheSettings {
    /// What a cache may take if its manifest says nothing else.
    pub(super) fn default_size() -> Size {
        Size::from_mebibytes(16)
    }
}
