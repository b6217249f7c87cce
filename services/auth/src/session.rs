//! Sessions: families of refresh tokens, of which one at a time is valid.

use proto::auth::v1::StoredSession;
use sdk::{Code, Error, reason};

/// How long a session lasts, in seconds.
pub(crate) const SESSION_SECONDS: i64 = 30 * 24 * 3_600;

/// What exchanging a refresh token does to its session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Exchange {
    /// The session goes on with the next token.
    Rotated(StoredSession),
    /// The token was used before: another client has it, too.
    Reused(StoredSession),
}

/// A session that begins at `now`, in seconds since 1970.
pub(crate) fn begun(id: &str, username: &str, now: i64) -> StoredSession {
    StoredSession {
        id: id.to_owned(),
        username: username.to_owned(),
        generation: 0,
        issued_at: now,
        expires_at: now + SESSION_SECONDS,
        is_revoked: false,
    }
}

/// The session, if it is neither revoked nor over.
///
/// # Errors
/// PERMISSION_DENIED with the reason `revoked` or `expired`.
pub(crate) fn valid(session: Option<&StoredSession>, now: i64) -> Result<StoredSession, Error> {
    match session {
        Some(session) if session.expires_at <= now => Err(denied("expired", "the session has expired: log in again")),
        Some(session) if !session.is_revoked => Ok(session.clone()),
        _ => Err(denied("revoked", "the session is revoked: log in again")),
    }
}

/// Exchanges the refresh token of this number.
///
/// # Errors
/// Those of [`valid`]; PERMISSION_DENIED for a number that the session has not come to.
pub(crate) fn exchange(session: Option<&StoredSession>, generation: u64, now: i64) -> Result<Exchange, Error> {
    let session = valid(session, now)?;
    match session.generation.cmp(&generation) {
        std::cmp::Ordering::Equal => {
            Ok(Exchange::Rotated(StoredSession { generation: generation + 1, issued_at: now, ..session }))
        }
        std::cmp::Ordering::Greater => Ok(Exchange::Reused(StoredSession { is_revoked: true, ..session })),
        std::cmp::Ordering::Less => Err(denied("invalid_token", "the token is not valid")),
    }
}

/// PERMISSION_DENIED, because of this.
pub(crate) fn denied(because: &str, message: &'static str) -> Error {
    Error::new(Code::PermissionDenied, message).with_detail(reason::KEY, because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(session: Option<&StoredSession>, generation: u64, now: i64, expected: Result<(u64, bool), &str>) {
        let outcome = exchange(session, generation, now);
        let seen =
            outcome.as_ref().map_err(|error| error.detail(reason::KEY).unwrap()).map(|exchange| match exchange {
                Exchange::Rotated(session) | Exchange::Reused(session) => (session.generation, session.is_revoked),
            });
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_refresh_token_is_exchanged_once_and_its_second_use_ends_the_session() {
        let session = StoredSession { generation: 2, ..begun("s", "alice", 100) };
        let end = 100 + SESSION_SECONDS;
        check(Some(&session), 2, 200, Ok((3, false)));
        check(Some(&session), 1, 200, Ok((2, true)));
        check(Some(&session), 3, 200, Err("invalid_token"));
        check(Some(&session), 2, end - 1, Ok((3, false)));
        check(Some(&session), 2, end, Err("expired"));
        check(Some(&StoredSession { is_revoked: true, ..session }), 2, 200, Err("revoked"));
        check(None, 2, 200, Err("revoked"));
    }
}
