//! The states of a search, interned: each is stored once, contiguously, and numbered in order of insertion.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// The number of a state.
pub(crate) type Id = u32;

const NONE: Id = Id::MAX;

#[derive(Debug)]
pub(crate) struct States {
    /// The number of facts in a state.
    width: usize,
    values: Vec<u16>,
    hasher: RandomState,
    /// The newest state of each hash; `older` links to the others.
    newest: HashMap<u64, Id>,
    older: Vec<Id>,
}

impl States {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, values: Vec::new(), hasher: RandomState::new(), newest: HashMap::new(), older: Vec::new() }
    }

    pub(crate) fn get(&self, id: Id) -> &[u16] {
        let start = id as usize * self.width;
        &self.values[start..start + self.width]
    }

    /// The number of a state. A new state is added.
    pub(crate) fn intern(&mut self, state: &[u16]) -> Id {
        let hash = self.hasher.hash_one(state);
        let newest = self.newest.get(&hash).copied().unwrap_or(NONE);
        let mut id = newest;
        while id != NONE {
            if self.get(id) == state {
                return id;
            }
            id = self.older[id as usize];
        }
        // The memory limit is reached long before the numbers run out.
        let id = Id::try_from(self.older.len()).unwrap_or(NONE - 1);
        self.values.extend_from_slice(state);
        self.older.push(newest);
        self.newest.insert(hash, id);
        id
    }

    /// The approximate memory use.
    pub(crate) fn bytes(&self) -> usize {
        self.values.len() * size_of::<u16>() + self.older.len() * 28
    }
}
