//! The states that a search has met, each kept once: numbered in the order of their coming, packed side by side.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// Number of a state.
pub(crate) type Id = u32;

const NONE: Id = Id::MAX;

#[derive(Debug)]
pub(crate) struct States {
    /// Facts of one state.
    width: usize,
    values: Vec<u16>,
    hasher: RandomState,
    /// The newest state of each hash; `older` leads to the others.
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

    /// The state's number, new if it was not met before.
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
        // The memory ends long before the numbers do.
        let id = Id::try_from(self.older.len()).unwrap_or(NONE - 1);
        self.values.extend_from_slice(state);
        self.older.push(newest);
        self.newest.insert(hash, id);
        id
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.values.len() * size_of::<u16>() + self.older.len() * 28
    }
}
