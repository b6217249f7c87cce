//! NATS JWTs: ordinary claims, signed with an NKey.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha512_256};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// What a JWT says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    jti: String,
    iat: u64,
    iss: String,
    name: String,
    sub: String,
    nats: Value,
}

impl Claims {
    /// Issued now.
    pub(super) fn new(name: &str, subject: &KeyPair, issuer: &KeyPair, nats: Value) -> Self {
        Self::issued_at(now(), name, subject, issuer, nats)
    }

    /// Issued at a time in seconds since 1970: the same claims, signed again, are then the same JWT.
    pub(super) fn issued_at(iat: u64, name: &str, subject: &KeyPair, issuer: &KeyPair, nats: Value) -> Self {
        Self {
            jti: String::new(),
            iat,
            iss: issuer.public_key(),
            name: name.to_owned(),
            sub: subject.public_key(),
            nats,
        }
    }

    /// Whether the JWT says the same, whenever it was issued, and its signature holds.
    pub(super) fn are_those_of(&self, jwt: &str) -> bool {
        let said = Self::read(jwt).map(|said| Self { jti: String::new(), iat: self.iat, ..said });
        said.as_ref() == Some(self)
    }

    fn read(jwt: &str) -> Option<Self> {
        let (signed, signature) = jwt.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Self = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?).ok()?;
        let issuer = KeyPair::from_public_key(&claims.iss).ok()?;
        issuer.verify(signed.as_bytes(), &BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?).ok()?;
        Some(claims)
    }

    /// The JWT. Its id is the digest of what it says.
    pub(super) fn sign(mut self, issuer: &KeyPair) -> anyhow::Result<String> {
        self.jti = BASE32_NOPAD.encode(&Sha512_256::digest(serde_json::to_vec(&self)?));
        let claims = BASE64URL_NOPAD.encode(&serde_json::to_vec(&self)?);
        let signed = format!("{}.{claims}", BASE64URL_NOPAD.encode(HEADER.as_bytes()));
        let signature = issuer.sign(signed.as_bytes()).with_context(|| format!("failed to sign `{}`", self.name))?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When a JWT was issued, if it is one and its signature holds.
pub(super) fn issued(jwt: &str) -> Option<u64> {
    Claims::read(jwt).map(|claims| claims.iat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_recognised_by_what_they_say() {
        let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
        let claims = |name: &str| Claims::new(name, &user, &account, serde_json::json!({ "type": "user" }));
        let jwt = claims("quest").sign(&account).unwrap();
        assert!(Claims { iat: 1, ..claims("quest") }.are_those_of(&jwt));
        assert!(!claims("weather").are_those_of(&jwt));
        assert!(!claims("quest").are_those_of(&claims("quest").sign(&KeyPair::new_account()).unwrap()));
        assert!(!claims("quest").are_those_of("damaged"));
    }
}
