//! Passwords for ECR, which are good for twelve hours.

use std::sync::Arc;

use anyhow::Context as _;
use data_encoding::BASE64;

use super::Aws;
use super::error::failed;
use crate::image::registry::{Credentials, Login, Renew, saved};

/// Credentials for a registry: for that of the account from ECR, for another one from Docker's configuration.
pub(crate) fn credentials(aws: &Aws, host: &str) -> anyhow::Result<Credentials> {
    if host == aws.handover.registry { Ok(of_account(aws.clients.ecr())) } else { saved(host) }
}

/// Credentials for the registry of the account; a password is asked for when it is first needed.
fn of_account(ecr: &aws_sdk_ecr::Client) -> Credentials {
    let ecr = ecr.clone();
    let renew: Renew = Arc::new(move || {
        let ecr = ecr.clone();
        Box::pin(async move {
            let answer = ecr.get_authorization_token().send().await;
            let answer = answer.map_err(|error| failed("get a password for the registry", error))?;
            let data = answer.authorization_data().first().and_then(|data| data.authorization_token());
            login(data.unwrap_or_default()).context("ECR gave a password that cannot be read")
        })
    });
    Credentials::Renewed(renew)
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
