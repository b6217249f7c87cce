//! Authentication at a registry: anonymous, with a user name and a password, or with a password that expires and is
//! renewed. A registry may want the password with every request (`Basic`), or exchange it for a token (`Bearer`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64;
use futures::future::BoxFuture;
use http::HeaderValue;
use tokio::sync::Mutex;

use crate::error::Hinted;

/// Gets a password that has not expired.
pub(crate) type Renew = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<Login>> + Send + Sync>;

/// How natsctl authenticates.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// Not at all.
    Anonymous,
    /// By a name and a password.
    Basic(Login),
    /// By a name and a password that expire; asked for when first needed, and again when the registry refuses them.
    Renewed(Renew),
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    user: String,
    password: String,
}

impl Login {
    pub(crate) fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    fn header(&self) -> anyhow::Result<HeaderValue> {
        let encoded = BASE64.encode(format!("{}:{}", self.user, self.password).as_bytes());
        sensitive(&format!("Basic {encoded}"))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Credentials that are refused, or that cannot be had, are not better a second later.
#[derive(Debug)]
pub(super) struct Refused(pub(super) anyhow::Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {}

/// The authentication at one registry, with what it has led to so far.
pub(super) struct Auth {
    host: String,
    credentials: Credentials,
    cache: Mutex<AuthCache>,
}

#[derive(Default)]
struct AuthCache {
    login: Option<Login>,
    /// Tokens by repository.
    tokens: HashMap<String, HeaderValue>,
}

/// Asks the address for a token, with the login if there is one. `None` if the login was refused.
pub(super) trait TokenSource {
    async fn token(&self, address: &str, login: Option<HeaderValue>) -> anyhow::Result<Option<String>>;
}

impl Auth {
    pub(super) fn new(host: &str, credentials: Credentials) -> Self {
        Self { host: host.to_owned(), credentials, cache: Mutex::default() }
    }

    /// What to send with a request about a repository.
    pub(super) async fn header(&self, repository: &str) -> anyhow::Result<Option<HeaderValue>> {
        self.cached_header(&mut *self.cache.lock().await, repository).await
    }

    /// After the registry has refused what was sent: finds something else to send, as the registry's challenge says.
    ///
    /// # Errors
    /// There is nothing else.
    pub(super) async fn renew(
        &self,
        repository: &str,
        refused: Option<&HeaderValue>,
        challenge: &Challenge,
        tokens: &impl TokenSource,
    ) -> anyhow::Result<()> {
        let mut cache = self.cache.lock().await;
        if self.cached_header(&mut cache, repository).await?.as_ref() != refused {
            // Another request has renewed it already.
            return Ok(());
        }
        match challenge {
            Challenge::Basic => {
                cache.tokens.remove(repository);
                self.renew_login(&mut cache).await
            }
            Challenge::Bearer { .. } => {
                let address = challenge.address(repository);
                let mut token = tokens.token(&address, self.login_header(&mut cache).await?).await?;
                if token.is_none() {
                    self.renew_login(&mut cache).await?;
                    token = tokens.token(&address, self.login_header(&mut cache).await?).await?;
                }
                let token = token.ok_or_else(|| self.refused())?;
                cache.tokens.insert(repository.to_owned(), sensitive(&format!("Bearer {token}"))?);
                Ok(())
            }
        }
    }

    /// The registry takes nothing that we have.
    pub(super) fn refused(&self) -> anyhow::Error {
        let host = &self.host;
        let advised = match self.credentials {
            Credentials::Anonymous => Hinted::new(
                format!("registry `{host}` requires authentication"),
                format!("`docker login {host}` or `skopeo login {host}` stores a user name and a password for it"),
            ),
            Credentials::Basic(_) | Credentials::Renewed(_) => Hinted::new(
                format!("registry `{host}` refuses the name or the password"),
                format!("log in again: `docker login {host}`; for ECR see who you are on AWS"),
            ),
        };
        Refused(advised.into()).into()
    }

    async fn cached_header(&self, cache: &mut AuthCache, repository: &str) -> anyhow::Result<Option<HeaderValue>> {
        match cache.tokens.get(repository) {
            Some(token) => Ok(Some(token.clone())),
            None => self.login_header(cache).await,
        }
    }

    async fn login_header(&self, cache: &mut AuthCache) -> anyhow::Result<Option<HeaderValue>> {
        if cache.login.is_none() {
            cache.login = match &self.credentials {
                Credentials::Anonymous => None,
                Credentials::Basic(login) => Some(login.clone()),
                Credentials::Renewed(renew) => Some(renew().await.map_err(Refused)?),
            };
        }
        cache.login.as_ref().map(Login::header).transpose()
    }

    async fn renew_login(&self, cache: &mut AuthCache) -> anyhow::Result<()> {
        let Credentials::Renewed(renew) = &self.credentials else { return Err(self.refused()) };
        cache.login = Some(renew().await.map_err(Refused)?);
        Ok(())
    }
}

fn sensitive(value: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a registry wants to be shown: the header `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// `None` if it is of another kind.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let mut parameters = parameters(rest);
                let realm = parameters.remove("realm")?;
                Some(Self::Bearer { realm, service: parameters.remove("service"), scope: parameters.remove("scope") })
            }
            _ => None,
        }
    }

    /// Where the token is to be had.
    fn address(&self, repository: &str) -> String {
        let Self::Bearer { realm, service, scope } = self else { return String::new() };
        let default = format!("repository:{repository}:pull,push");
        let scopes = scope.as_deref().unwrap_or(&default).split_whitespace().map(|scope| ("scope", scope));
        let query: Vec<String> = service
            .iter()
            .map(|service| ("service", service.as_str()))
            .chain(scopes)
            .map(|(key, value)| format!("{key}={}", super::http::encoded(value)))
            .collect();
        let sign = if realm.contains('?') { '&' } else { '?' };
        format!("{realm}{sign}{}", query.join("&"))
    }
}

/// `key="value, with a comma",other=value`
fn parameters(mut text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while let Some((key, rest)) = text.split_once('=') {
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        let key = key.trim_matches(|letter: char| letter == ',' || letter.is_whitespace());
        found.insert(key.to_ascii_lowercase(), value.trim().to_owned());
        text = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_understood_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        let check = |header: &str, expected: Option<Challenge>| assert_eq!(Challenge::parse(header), expected);
        check(r#"Basic realm="basic-realm""#, Some(Challenge::Basic));
        check(
            r#"Basic realm="https://1.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com""#,
            Some(Challenge::Basic),
        );
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            Some(bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"))),
        );
        check(r#"bearer Realm="https://r/t", scope=x"#, Some(bearer("https://r/t", None, Some("x"))));
        check(r#"Bearer service="x""#, None);
        check("Negotiate", None);
        check("", None);
    }

    #[test]
    fn a_token_is_asked_for_what_the_registry_wants_or_else_for_the_repository() {
        let check = |header: &str, expected: &str| {
            assert_eq!(Challenge::parse(header).unwrap().address("team/quest"), expected);
        };
        check(
            r#"Bearer realm="https://r/t",service="a b",scope="repository:x:pull repository:y:push""#,
            "https://r/t?service=a%20b&scope=repository%3Ax%3Apull&scope=repository%3Ay%3Apush",
        );
        check(r#"Bearer realm="https://r/t?k=v""#, "https://r/t?k=v&scope=repository%3Ateam%2Fquest%3Apull%2Cpush");
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", Login::new("AWS", "eyJwYXlsb2FkIjo"));
        assert!(shown.contains("AWS") && !shown.contains("eyJ"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "(Bearer |Basic )?[ -~]{0,80}") {
            let _ = Challenge::parse(&header);
        }
    }
}
