//! A nats-server that knows its users by JWTs, which expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::NatsServer;

/// Signs the JWTs of the users of one server, who are in one account and may do everything.
#[derive(Debug)]
pub struct Operator {
    account: KeyPair,
}

impl NatsServer {
    /// A server without JetStream that accepts users with credentials of this operator.
    ///
    /// # Panics
    /// If there is no nats-server or it does not start.
    pub fn with_operator() -> (Self, Operator) {
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1,
            "imports": -1, "exports": -1, "wildcards": true,
        });
        let account_claims = json!({ "type": "account", "version": 2, "limits": unlimited });
        let config = format!(
            "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
            jwt("operator", &operator, &operator, None, json!({ "type": "operator", "version": 2 })),
            account.public_key(),
            jwt("account", &account, &operator, None, account_claims),
        );
        (Self::with(&config, false), Operator { account })
    }
}

impl Operator {
    /// Credentials of a new user, which the server accepts for this long. It counts in whole seconds.
    pub fn credentials(&self, valid_for: Duration) -> String {
        let user = KeyPair::new_user();
        let claims =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let jwt = jwt("user", &user, &self.account, Some(now() + valid_for.as_secs()), claims);
        let seed = user.seed().expect("the key has a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn jwt(name: &str, subject: &KeyPair, issuer: &KeyPair, expires: Option<u64>, nats: Value) -> String {
    let mut claims = json!({
        "jti": subject.public_key(),
        "iat": now(),
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject.public_key(),
        "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let encode = |json: &str| BASE64URL_NOPAD.encode(json.as_bytes());
    let signed = format!("{}.{}", encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#), encode(&claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).expect("the key can sign");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}
