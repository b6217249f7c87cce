//! Hashes and pseudorandom numbers that depend only on their inputs: not on the machine, and not on the version of
//! a crate. What a service makes of a seed stays the same.

use sha2::{Digest as _, Sha256};

/// A hash of the parts and of the boundaries between them.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Pseudorandom numbers by SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator. The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which must not be 0. The bias is one in 2⁶⁴ / `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// The same for `u32`.
    pub fn below_u32(&mut self, end: u32) -> u32 {
        self.below(end as usize) as u32
    }

    /// A number in [0, 1).
    pub fn next_f64(&mut self) -> f64 {
        // The upper 53 bits, because a float holds that many.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of the items, each as likely as the others; `None` if there are none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len())])
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of the reference implementation (<https://prng.di.unimi.it/splitmix64.c>) for the seed 1234567.
    #[test]
    fn numbers_match_the_reference_implementation() {
        let mut rng = Rng::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_are_evenly_distributed() {
        let mut rng = Rng::new(7);
        let mut counts = [0; 6];
        for _ in 0..6000 {
            counts[rng.below(6)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(rng.below(1), 0);
        assert!((0..1000).map(|_| rng.next_f64()).all(|number| (0.0..1.0).contains(&number)));
        assert_eq!((rng.choose(&[5]), rng.choose::<u8>(&[])), (Some(&5), None));
    }

    #[test]
    fn hashes_are_stable_and_depend_on_the_boundaries() {
        assert_eq!(stable_hash(&[b"a", b"b"]), 14_945_958_509_921_182_609);
        assert_ne!(stable_hash(&[b"a", b"b"]), stable_hash(&[b"ab", b""]));
        assert_ne!(stable_hash(&[b"a", b"b"]), stable_hash(&[b"ab"]));
    }
}
