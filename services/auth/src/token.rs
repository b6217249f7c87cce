//! Tokens: JSON Web Tokens that are signed with EdDSA.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use proto::auth::v1::{Claims, StoredKey, StoredSession, Tokens};
use proto::well_known::Timestamp;
use sdk::Error;
use serde::{Deserialize, Serialize};

use crate::session::denied;

/// How long an access token is valid, in seconds.
pub(crate) const ACCESS_SECONDS: i64 = 300;
/// Longer than any token of ours.
const MAX_TOKEN: usize = 4_096;

/// Signs tokens and reads signed ones.
pub(crate) struct Signer {
    private: EncodingKey,
    public: DecodingKey,
    validation: Validation,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) sub: String,
    pub(crate) sid: String,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    #[serde(flatten)]
    pub(crate) usage: Usage,
}

/// What a token is good for: neither is taken for the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(crate) enum Usage {
    Access { roles: Vec<String> },
    Refresh { generation: u64 },
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// A new key.
pub(crate) fn new_key() -> Result<StoredKey, Error> {
    let failed = |error: aws_lc_rs::error::Unspecified| Error::internal(format_args!("no key was made: {error}"));
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    let public = pair.public_key().as_ref().to_vec();
    Ok(StoredKey { private_key: private.as_ref().to_vec().into(), public_key: public.into() })
}

impl Signer {
    pub(crate) fn new(key: &StoredKey) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The service's own clock decides whether a token has expired.
        validation.validate_exp = false;
        let private = EncodingKey::from_ed_der(&key.private_key);
        Self { private, public: DecodingKey::from_ed_der(&key.public_key), validation }
    }

    /// The tokens of a session as it is. The same session gives the same tokens.
    pub(crate) fn issue(&self, session: &StoredSession, roles: &[String]) -> Result<Tokens, Error> {
        let access_exp = (session.issued_at + ACCESS_SECONDS).min(session.expires_at);
        let token = |exp, usage| {
            let (sub, sid) = (session.username.clone(), session.id.clone());
            let token = Token { sub, sid, iat: session.issued_at, exp, usage };
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &token, &self.private)
                .map_err(|error| Error::internal(format_args!("a token cannot be signed: {error}")))
        };
        Ok(Tokens {
            access_token: token(access_exp, Usage::Access { roles: roles.to_vec() })?,
            access_expires_at: Some(timestamp(access_exp)),
            refresh_token: token(session.expires_at, Usage::Refresh { generation: session.generation })?,
            refresh_expires_at: Some(timestamp(session.expires_at)),
        })
    }

    /// What a token says that is ours, valid at `now` (in seconds since 1970) or not.
    fn read(&self, token: &str) -> Result<Token, Error> {
        if token.len() > MAX_TOKEN {
            return Err(denied("invalid_token", "the token is not valid"));
        }
        let token = jsonwebtoken::decode::<Token>(token, &self.public, &self.validation);
        token.map(|token| token.claims).map_err(|_| denied("invalid_token", "the token is not valid"))
    }

    /// What an access token says.
    pub(crate) fn access(&self, token: &str, now: i64) -> Result<Claims, Error> {
        let Token { sub, sid, exp, usage, .. } = self.read(token)?;
        let Usage::Access { roles } = usage else {
            return Err(denied("invalid_token", "the token is no access token"));
        };
        if exp <= now {
            return Err(denied("expired", "the access token has expired: exchange the refresh token"));
        }
        Ok(Claims { username: sub, roles, session_id: sid, expires_at: Some(timestamp(exp)) })
    }

    /// The session of a refresh token, expired or not, and the number of the token in it.
    pub(crate) fn refresh(&self, token: &str) -> Result<(Token, u64), Error> {
        let token = self.read(token)?;
        match token.usage {
            Usage::Refresh { generation } => Ok((token, generation)),
            Usage::Access { .. } => Err(denied("invalid_token", "the token is no refresh token")),
        }
    }
}

pub(crate) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> StoredSession {
        let (id, username) = ("s1".to_owned(), "alice".to_owned());
        StoredSession { id, username, generation: 3, issued_at: 1_000, expires_at: 2_000, is_revoked: false }
    }

    #[test]
    fn a_token_is_read_as_what_it_was_issued_for_until_it_expires() {
        let signer = Signer::new(&new_key().unwrap());
        let tokens = signer.issue(&session(), &["admin".to_owned()]).unwrap();
        let claims = signer.access(&tokens.access_token, 1_299).unwrap();
        assert_eq!(
            (claims.username, claims.roles, claims.session_id),
            ("alice".into(), vec!["admin".into()], "s1".into())
        );
        assert_eq!(signer.refresh(&tokens.refresh_token).unwrap().1, 3);
        assert_eq!(signer.issue(&session(), &["admin".to_owned()]), Ok(tokens.clone()));

        let reason = |error: Error| error.detail(sdk::reason::KEY).unwrap().to_owned();
        assert_eq!(reason(signer.access(&tokens.access_token, 1_300).unwrap_err()), "expired");
        assert_eq!(reason(signer.access(&tokens.refresh_token, 1_000).unwrap_err()), "invalid_token");
        assert_eq!(reason(signer.refresh(&tokens.access_token).unwrap_err()), "invalid_token");
    }

    #[test]
    fn forged_tokens_are_refused() {
        let signer = Signer::new(&new_key().unwrap());
        let tokens = signer.issue(&session(), &[]).unwrap();
        let [header, payload, signature] = tokens.access_token.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let other = Signer::new(&new_key().unwrap()).issue(&session(), &[]).unwrap().access_token;
        // {"alg":"none"}
        let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
        let changed = format!("{header}.{}.{signature}", payload.replacen('e', "f", 1));
        for token in [other, unsigned, changed, String::new(), "a.b.c".to_owned(), "x".repeat(MAX_TOKEN + 1)] {
            let error = signer.access(&token, 1_000).unwrap_err();
            assert_eq!(error.detail(sdk::reason::KEY), Some("invalid_token"), "{token}");
        }
    }
}
