//! Keys of cached values: digests of what the value is computed from.

use std::fmt;

use prost::Message;
use sha2::{Digest as _, Sha256};

/// The key of a cached value: a digest of the parts that the value depends on, in order.
///
/// `Key::new().part(&model.id).part(&prompt).message(&sampling)`
#[derive(Clone)]
pub struct Key(Sha256);

/// The digest of all parts.
pub(crate) type Digest = [u8; 32];

impl Key {
    /// A key without parts.
    #[expect(clippy::new_without_default, reason = "a key without parts is a beginning, not a default")]
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a text or bytes. Parts are kept apart: `ab`, `c` is another key than `a`, `bc`.
    #[must_use]
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds a message. Its encoding is the same in every build, as maps in messages are ordered.
    #[must_use]
    pub fn message(self, message: &impl Message) -> Self {
        self.part(message.encode_to_vec())
    }

    pub(crate) fn digest(&self) -> Digest {
        self.0.clone().finalize().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", hex(&self.digest()))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proto::ai::llm::v1::Sampling;

    use super::*;

    #[test]
    fn equal_parts_in_equal_order_are_one_key() {
        let sampling = |seed| Sampling { seed: Some(seed), ..Sampling::default() };
        let keys = [
            Key::new(),
            Key::new().part(""),
            Key::new().part("ab").part("c"),
            Key::new().part("a").part("bc"),
            Key::new().part("abc"),
            Key::new().part("abc").message(&sampling(1)),
            Key::new().part("abc").message(&sampling(2)),
        ];
        for (index, key) in keys.iter().enumerate() {
            for (other, another) in keys.iter().enumerate() {
                assert_eq!(key.digest() == another.digest(), index == other, "{index} {other}");
            }
        }
        assert_eq!(Key::new().part("a").digest(), Key::new().part(b"a").digest());
    }

    #[test]
    fn a_key_is_the_same_in_every_build() {
        let digest = Key::new().part("ngram-large").part("The dragon").digest();
        assert_eq!(hex(&digest[..8]), "5e42e8d24d8c168e");
    }
}
