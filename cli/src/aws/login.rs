//! The password of ECR, which is good for twelve hours.

use std::sync::Arc;

use anyhow::Context as _;
use data_encoding::BASE64;

use super::Aws;
use super::error::failed;
use crate::image::registry::{Credentials, Login, Renew, saved};

impl Aws {
    /// How to get into a registry: that of the account by its own means, another one as Docker was told.
    pub(crate) fn credentials(&self, host: &str) -> anyhow::Result<Credentials> {
        if host == self.handover.registry { Ok(self.login()) } else { saved(host) }
    }

    /// How to get into the registry of the account; asks for the password when it is first needed.
    fn login(&self) -> Credentials {
        let ecr = self.clients.ecr().clone();
        let renew: Renew = Arc::new(move || {
            let ecr = ecr.clone();
            Box::pin(async move {
                let answer = ecr.get_authorization_token().send().await;
                let answer = answer.map_err(|error| failed("get a password for the registry", error))?;
                let data = answer.authorization_data().first().and_then(|data| data.authorization_token());
                login(data.unwrap_or_default()).context("the password of the registry is none")
            })
        });
        Credentials::Renewed(renew)
    }
}

/// `user:password` in Base64.
fn login(token: &str) -> Option<Login> {
    let text = String::from_utf8(BASE64.decode(token.as_bytes()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login::new(user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_ecr_is_a_name_and_a_password() {
        assert_eq!(login("QVdTOnBhc3M6d29yZA=="), Some(Login::new("AWS", "pass:word")));
        for wrong in ["", "AWS:password", "QVdT"] {
            assert_eq!(login(wrong), None);
        }
    }
}
