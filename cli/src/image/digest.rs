//! Contents by their SHA-256.

use std::fmt;
use std::io::{self, Read, Write};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 256 * 1024;

const SCHEME: &str = "sha256:";

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(&Sha256::digest(bytes))
    }

    /// Of everything that can be read, and how much that was.
    pub(crate) fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hashing = Hashing::new(io::sink());
        let mut chunk = vec![0; CHUNK];
        loop {
            match reader.read(&mut chunk)? {
                0 => break,
                read => hashing.write_all(&chunk[..read])?,
            }
        }
        let (_, digest, size) = hashing.finish();
        Ok((digest, size))
    }

    /// The digest that is written so, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(SCHEME)?;
        let well_formed = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The hexadecimal digits alone.
    pub(crate) fn hex(&self) -> &str {
        &self.0[SCHEME.len()..]
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn from_sha256(sum: &[u8]) -> Self {
        Self(format!("{SCHEME}{}", HEXLOWER.encode(sum)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not `{SCHEME}` and 64 hexadecimal digits"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Hashes and counts what is written through it.
pub(super) struct Hashing<W> {
    inner: W,
    sum: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, sum: Sha256::new(), size: 0 }
    }

    /// What was written into, the digest of it, and how many bytes it was.
    pub(super) fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_sha256(&self.sum.finalize()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_scheme_and_64_lower_case_digits() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::parse(empty).unwrap().hex(), &empty[7..]);
        for wrong in ["", "sha256:", "sha512:e3b0", &empty[7..], &empty[..70], &empty.to_uppercase()] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn reading_and_writing_give_the_same_digest() {
        let bytes = vec![7; 3 * CHUNK + 11];
        let mut hashing = Hashing::new(Vec::new());
        hashing.write_all(&bytes).unwrap();
        let (written, digest, size) = hashing.finish();
        assert_eq!((written.len(), size), (bytes.len(), bytes.len() as u64));
        assert_eq!(Digest::of_reader(bytes.as_slice()).unwrap(), (digest.clone(), size));
        assert_eq!(Digest::of(&bytes), digest);
    }
}
