//! A cached value with what is known about it, and its form in the shared tier.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::key::Digest;

/// Bytes before the value in the shared tier: checksum, time of computation, time of expiry, cost.
const HEADER: usize = 8 + 8 + 8 + 8;
/// How much an entry takes in the process besides its value: key, header, and the tables of the in-process tier.
const OVERHEAD: usize = 256;
/// A lifetime is shortened by up to this part of it, so that entries that were computed together do not expire together.
const JITTER: f64 = 0.1;

/// A cached value, encoded. Times are milliseconds since 1970, as entries are read by other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Bytes,
    computed_at_ms: u64,
    expires_at_ms: u64,
    /// How long the computation took.
    cost_us: u64,
}

impl Entry {
    /// A value that was just computed in `cost` and lives for at most `ttl`.
    pub(crate) fn new(value: Bytes, cost: Duration, ttl: Duration) -> Self {
        let lifetime = ttl.mul_f64(1.0 - JITTER * fastrand::f64());
        let computed_at_ms = now_ms();
        let cost_us = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        Self { value, computed_at_ms, expires_at_ms: computed_at_ms.saturating_add(millis(lifetime)), cost_us }
    }

    /// The time since the computation; zero if it was made by a clock that is ahead.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.computed_at_ms))
    }

    /// How much longer the entry may be used.
    pub(crate) fn remaining(&self) -> Duration {
        Duration::from_millis(self.expires_at_ms.saturating_sub(now_ms()))
    }

    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        self.computed_at_ms > other.computed_at_ms
    }

    /// Whether this reader should compute the value again although it has not expired yet. The closer the expiry and the
    /// longer the computation, the likelier: so one of many readers does it in time, and an entry that is in demand never
    /// expires for all of them at once (XFetch: Vattani, Chierichetti, Lowenstein, *Optimal Probabilistic Cache Stampede
    /// Prevention*).
    pub(crate) fn is_due(&self) -> bool {
        // From above 0 to 1, of which the logarithm is finite.
        self.is_due_at(1.0 - fastrand::f64())
    }

    fn is_due_at(&self, chance: f64) -> bool {
        let ahead = Duration::from_micros(self.cost_us).as_secs_f64() * -chance.ln();
        self.remaining().as_secs_f64() <= ahead
    }

    /// How much of the in-process tier the entry takes, in bytes.
    pub(crate) fn weight(&self) -> u32 {
        u32::try_from(self.value.len() + OVERHEAD).unwrap_or(u32::MAX)
    }

    /// The form in the shared tier.
    pub(crate) fn encode(&self, message: &str, key: &Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.value.len());
        out.extend([0; 8]);
        for number in [self.computed_at_ms, self.expires_at_ms, self.cost_us] {
            out.extend(number.to_le_bytes());
        }
        out.extend_from_slice(&self.value);
        let checksum = checksum(message, key, &out[8..]);
        out[..8].copy_from_slice(&checksum);
        out
    }

    /// The entry of `message` under `key`; `None` if something else is there: another type, another key, or not an entry.
    pub(crate) fn decode(bytes: Vec<u8>, message: &str, key: &Digest) -> Option<Self> {
        let bytes = Bytes::from(bytes);
        let (found, rest) = bytes.split_first_chunk::<8>()?;
        if *found != checksum(message, key, rest) {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
        let (computed_at_ms, expires_at_ms, cost_us) = (number(8)?, number(16)?, number(24)?);
        let value = (bytes.len() >= HEADER).then(|| bytes.slice(HEADER..))?;
        Some(Self { value, computed_at_ms, expires_at_ms, cost_us })
    }
}

fn checksum(message: &str, key: &Digest, rest: &[u8]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::new().chain_update(message).chain_update(key).chain_update(rest).finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Digest = [7; 32];

    fn entry(cost: Duration, ttl: Duration) -> Entry {
        Entry::new(Bytes::from_static(b"value"), cost, ttl)
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let written = entry(Duration::from_millis(3), Duration::from_secs(60));
        assert_eq!(Entry::decode(written.encode("A", &KEY), "A", &KEY), Some(written.clone()));
        let empty = Entry { value: Bytes::new(), ..written };
        assert_eq!(Entry::decode(empty.encode("A", &KEY), "A", &KEY), Some(empty));
    }

    #[test]
    fn what_is_not_the_entry_is_not_read() {
        let written = entry(Duration::from_millis(3), Duration::from_secs(60)).encode("A", &KEY);
        let refused = |bytes: &[u8], message: &str, key: &Digest| {
            assert_eq!(Entry::decode(bytes.to_vec(), message, key), None);
        };
        refused(&written, "B", &KEY);
        refused(&written, "A", &[8; 32]);
        refused(b"", "A", &KEY);
        refused(b"foreign text of somebody else, long enough", "A", &KEY);
        for length in 0..written.len() {
            refused(&written[..length], "A", &KEY);
        }
        for at in 0..written.len() {
            let mut changed = written.clone();
            changed[at] ^= 1;
            refused(&changed, "A", &KEY);
        }
    }

    #[test]
    fn a_lifetime_is_never_longer_than_the_ttl_and_rarely_equal_to_another() {
        let ttl = Duration::from_secs(100);
        let lifetimes: Vec<u64> = (0..100)
            .map(|_| {
                let entry = entry(Duration::ZERO, ttl);
                entry.expires_at_ms - entry.computed_at_ms
            })
            .collect();
        assert!(lifetimes.iter().all(|lifetime| (90_000..=100_000).contains(lifetime)), "{lifetimes:?}");
        let different: std::collections::HashSet<&u64> = lifetimes.iter().collect();
        assert!(different.len() > 50, "{lifetimes:?}");
    }

    #[test]
    fn a_value_is_due_early_in_proportion_to_its_cost() {
        let due = |cost_s: u64, remaining_s: u64, chance: f64| {
            let now = now_ms();
            let entry = Entry {
                value: Bytes::new(),
                computed_at_ms: now,
                expires_at_ms: now + remaining_s * 1000,
                cost_us: cost_s * 1_000_000,
            };
            entry.is_due_at(chance)
        };
        // ln(1/e) = -1: one computation before the expiry.
        let chance = 1.0 / std::f64::consts::E;
        assert!(!due(2, 60, chance));
        assert!(!due(2, 3, chance));
        assert!(due(2, 1, chance));
        assert!(due(10, 3, chance));
        assert!(!due(10, 3, 1.0), "no reader is early with the greatest chance");
    }
}
