//! By when something is to be done about records: what a worker looks through again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// The keys of records, by the time at which something is to be done about them.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    order: BTreeSet<(SystemTime, String)>,
    times: BTreeMap<String, SystemTime>,
}

impl Deadlines {
    /// Sets the time of a key, in place of the one that it had; `None` if nothing is to be done.
    pub fn set(&mut self, key: &str, at: Option<SystemTime>) {
        if let Some(earlier) = self.times.remove(key) {
            self.order.remove(&(earlier, key.to_owned()));
        }
        if let Some(at) = at {
            self.times.insert(key.to_owned(), at);
            self.order.insert((at, key.to_owned()));
        }
    }

    /// The keys whose time has come, at most `limit`, the longest overdue first.
    pub fn passed(&self, now: SystemTime, limit: usize) -> Vec<String> {
        self.order.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, key)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_comes_when_its_time_has_come_and_has_one_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        for (key, seconds) in [("a", 9), ("b", 2), ("c", 3), ("a", 1)] {
            deadlines.set(key, Some(at(seconds)));
        }
        assert_eq!(deadlines.passed(at(0), 9), [""; 0]);
        assert_eq!(deadlines.passed(at(9), 9), ["a", "b", "c"]);
        assert_eq!(deadlines.passed(at(2), 1), ["a"]);
        deadlines.set("a", None);
        deadlines.set("d", None);
        assert_eq!(deadlines.passed(at(9), 9), ["b", "c"]);
    }
}
