//! Credentials of a NATS user: a JWT, and the seed of the key that it names, in the format of `nats` and `nsc`.

use async_nats::Auth;
use nkeys::{KeyPair, KeyPairType};

use crate::material::Material;

/// A user's JWT and its key.
pub(crate) struct Credentials {
    jwt: String,
    key: KeyPair,
}

impl Credentials {
    /// # Errors
    /// A sentence that names the material, and does not show it.
    pub(crate) fn read(material: &Material) -> Result<Self, String> {
        Self::parse(&material.read()?).ok_or_else(|| format!("{material} holds no NATS credentials"))
    }

    /// `None` if the text is not complete: a file may be read while it is written.
    fn parse(text: &str) -> Option<Self> {
        let mut blocks = blocks(text);
        let (jwt, seed) = (blocks.next()?, blocks.next()?);
        let key = KeyPair::from_seed(seed).ok().filter(|key| key.key_pair_type() == KeyPairType::User)?;
        Some(Self { jwt: jwt.to_owned(), key })
    }

    /// Proves to the server that sent `nonce` that the user holds the key.
    pub(crate) fn prove(self, nonce: &[u8]) -> Result<Auth, String> {
        let signature =
            self.key.sign(nonce).map_err(|error| format!("failed to sign with the key of a user: {error}"))?;
        let mut auth = Auth::new();
        auth.jwt = Some(self.jwt);
        auth.signature = Some(signature);
        Ok(auth)
    }
}

/// The lines that stand between a line of dashes that begins a block and one that ends it.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let block = |at: usize| match lines.get(at..at + 3) {
        Some([begin, content, end]) if begin.starts_with("-----BEGIN") && end.starts_with("---") => Some(*content),
        _ => None,
    };
    let found: Vec<&str> = (0..lines.len()).filter_map(block).collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_complete_or_none() {
        let seed = KeyPair::new_user().seed().unwrap();
        let jwt = "-----BEGIN NATS USER JWT-----\ney.J0.eX\n------END NATS USER JWT------\n";
        let key = format!("\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n");
        #[track_caller]
        fn check(text: &str, complete: bool) {
            let jwt = Credentials::parse(text).map(|credentials| credentials.jwt);
            assert_eq!(jwt.as_deref(), complete.then_some("ey.J0.eX"), "{text}");
        }
        let whole = format!("{jwt}\n*** IMPORTANT ***\nKeep it secret.\n{key}");
        check(&whole, true);
        check(&whole.replace('\n', "\r\n"), true);
        for end in ["------END USER", &seed[20..], "-----BEGIN USER", "-----END NATS"] {
            check(whole.split_once(end).unwrap().0, false);
        }
        check(&format!("{jwt}{}", key.replace(&seed, &KeyPair::new_account().seed().unwrap())), false);
        check("", false);
    }
}
