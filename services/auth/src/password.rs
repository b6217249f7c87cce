//! Passwords, hashed with argon2id.

use std::env::VarError;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use sdk::{Code, Error, check_range};
use tokio::sync::Semaphore;

/// Bytes of a password. The upper limit bounds what hashing costs.
const LENGTH: std::ops::RangeInclusive<usize> = 10..=128;
/// Hashes that a task computes at once. Each takes the memory of its settings.
static HASHING: Semaphore = Semaphore::const_new(2);

/// Hashes and verifies passwords, on threads of their own: one takes tens of milliseconds, and the worker goes on with its other
/// requests meanwhile.
#[derive(Clone)]
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    /// Of no user: it is verified in place of that of an unknown one.
    dummy: Arc<str>,
}

impl Passwords {
    /// With the cost in `PASSWORD_MEMORY_KIB` and `PASSWORD_PASSES`.
    pub(crate) async fn new(variable: impl Fn(&str) -> Result<String, VarError>) -> Result<Self, Error> {
        let number = |name: &str, default: u32| match variable(name) {
            Ok(text) => {
                text.parse().map_err(|_| Error::failed_precondition(format_args!("`{name}` is not a number: `{text}`")))
            }
            Err(_) => Ok(default),
        };
        // What OWASP recommends for argon2id with one lane.
        let (memory, passes) = (number("PASSWORD_MEMORY_KIB", 19 * 1_024)?, number("PASSWORD_PASSES", 2)?);
        let params = Params::new(memory, passes, 1, None)
            .map_err(|error| Error::failed_precondition(format_args!("the cost of passwords: {error}")))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let passwords = Self { argon2, dummy: "".into() };
        let dummy = passwords.hash("the password of nobody".to_owned()).await?.into();
        Ok(Self { dummy, ..passwords })
    }

    /// The hash of a password, with a random salt.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let argon2 = self.argon2.clone();
        let hashed = apart(move || argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string()));
        hashed.await?.map_err(|error| Error::internal(format_args!("a password cannot be hashed: {error}")))
    }

    /// Whether the password has this hash. With no hash the answer is no, after the same time.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        let argon2 = self.argon2.clone();
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.to_string());
        let is_right = apart(move || argon2.verify_password(password.as_bytes(), hash.as_str()).is_ok()).await?;
        Ok(is_right && is_known)
    }
}

/// Refuses a new password that is too short or too long.
pub(crate) fn check(password: &str) -> Result<(), Error> {
    check_range("the number of bytes of the password", password.len(), LENGTH).map(drop)
}

/// Computes on a thread apart from the worker's.
async fn apart<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let permit = HASHING.acquire().await.map_err(Error::internal)?;
    let computed = tokio::task::spawn_blocking(move || {
        // Held until it is done, even if its caller no longer waits.
        let _permit = permit;
        compute()
    });
    computed.await.map_err(|error| Error::new(Code::Internal, format!("hashing a password failed: {error}")))
}
