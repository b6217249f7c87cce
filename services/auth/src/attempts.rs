//! Limits of failed logins, for a user and from an address.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use proto::auth::v1::StoredAttempts;
use sdk::{Code, Error, RecordKey, reason};

/// How long a failed attempt counts, in seconds.
pub(crate) const WINDOW_SECONDS: i64 = 15 * 60;

/// Whose attempts they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    User(String),
    /// An IPv4 address, or the first half of an IPv6 address: whoever has one of those has all with the same first half.
    Address(String),
}

impl Source {
    /// From this address; `None` if it is unknown.
    pub(crate) fn address(text: &str) -> Result<Option<Self>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        let address: IpAddr = text.parse().map_err(|_| {
            Error::invalid("client_address must be an IPv4 or IPv6 address, or empty if it is not known")
        })?;
        Ok(Some(Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}-{b:x}-{c:x}-{d:x}")
            }
        })))
    }

    /// How many attempts may fail within the window.
    fn limit(&self) -> usize {
        match self {
            Self::User(_) => 5,
            Self::Address(_) => 30,
        }
    }

    /// The attempts with one more, which counts as failed until it is known to have succeeded.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with `retry_after_ms` if there are too many.
    pub(crate) fn reserve(&self, attempts: Option<&StoredAttempts>, now: i64) -> Result<StoredAttempts, Error> {
        let mut failed_at: Vec<i64> =
            attempts.iter().flat_map(|it| &it.failed_at).copied().filter(|at| at + WINDOW_SECONDS > now).collect();
        if failed_at.len() >= self.limit() {
            let seconds = failed_at.first().map_or(1, |oldest| oldest + WINDOW_SECONDS - now);
            return Err(Error::new(Code::ResourceExhausted, format!("too many failed attempts for {self}"))
                .with_detail(reason::RETRY_AFTER_MS, seconds * 1_000));
        }
        failed_at.push(now);
        Ok(StoredAttempts { failed_at })
    }

    /// The attempts after one that was reserved at `at` has succeeded: a user's earlier failures are forgiven.
    pub(crate) fn succeeded(&self, attempts: &StoredAttempts, at: i64) -> StoredAttempts {
        let mut failed_at = attempts.failed_at.clone();
        match self {
            Self::User(_) => failed_at.clear(),
            Self::Address(_) => {
                if let Some(index) = failed_at.iter().rposition(|failed| *failed == at) {
                    failed_at.remove(index);
                }
            }
        }
        StoredAttempts { failed_at }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(_) => f.write_str("this user"),
            Self::Address(_) => f.write_str("this address"),
        }
    }
}

impl RecordKey for Source {
    fn bucket_key(&self) -> Cow<'_, str> {
        match self {
            Self::User(name) => format!("user.{name}").into(),
            Self::Address(address) => format!("address.{address}").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_limited_until_they_are_old() {
        let user = Source::User("alice".to_owned());
        let mut attempts = None;
        for now in 0..5 {
            attempts = Some(user.reserve(attempts.as_ref(), now).unwrap());
        }
        let error = user.reserve(attempts.as_ref(), 10).unwrap_err();
        assert_eq!((error.code(), error.detail(reason::RETRY_AFTER_MS)), (Code::ResourceExhausted, Some("890000")));
        assert!(user.reserve(attempts.as_ref(), WINDOW_SECONDS - 1).is_err());
        assert_eq!(user.reserve(attempts.as_ref(), WINDOW_SECONDS).unwrap().failed_at.len(), 5);
        assert_eq!(user.succeeded(&attempts.unwrap(), 4).failed_at, [0; 0]);
    }

    #[test]
    fn a_success_gives_an_address_back_the_attempt_it_took() {
        let address = Source::address("10.0.0.1").unwrap().unwrap();
        let attempts = StoredAttempts { failed_at: vec![1, 2, 2, 3] };
        assert_eq!(address.succeeded(&attempts, 2).failed_at, [1, 2, 3]);
        assert_eq!(address.succeeded(&attempts, 9).failed_at, attempts.failed_at);
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let key = |text: &str| Source::address(text).map(|it| it.map(|it| it.bucket_key().into_owned()));
        assert_eq!(key("::ffff:10.0.0.1"), Ok(Some("address.10.0.0.1".to_owned())));
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:0db8:1:2::"));
        assert_eq!(key(""), Ok(None));
        assert_eq!(key("localhost").unwrap_err().code(), Code::InvalidArgument);
    }
}
