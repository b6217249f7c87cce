//! Sessions: opened, kept alive, and ended.

use std::time::{Duration, SystemTime};

use proto::bodybroker::session::v1::{EndReason, Ended, Opened};
use proto::bodybroker::v1::Session;
use sdk::{Deadlines, Error, Follow, Id, Update, check_range_or, reason};

/// How long a session is known after its end: longer than a repeated request may come.
pub(crate) const KEPT_AFTER_END: Duration = Duration::from_secs(3_600);
/// The reason of an error about a session that has ended.
pub(crate) const SESSION_ENDED: &str = "session_ended";

const MAX_ID: usize = 64;
const MAX_LEASE_SECONDS: u32 = 3_600;
const DEFAULT_LEASE_SECONDS: u32 = 60;

/// The key of a player's session.
pub(crate) fn key(player_id: &str) -> Result<Id, Error> {
    Id::new("player", player_id, MAX_ID)
}

/// A session that begins now.
pub(crate) fn opened(player_id: &str, id: &str, lease_seconds: u32, now: SystemTime) -> Result<Session, Error> {
    let lease_seconds = check_range_or("lease_seconds", lease_seconds, 5..=MAX_LEASE_SECONDS, DEFAULT_LEASE_SECONDS)?;
    let session = Session {
        id: id.to_owned(),
        player_id: player_id.to_owned(),
        lease_seconds,
        opened_at: Some(now.into()),
        ..Session::default()
    };
    Ok(renewed(&session, now))
}

/// The event of a session that was opened.
pub(crate) fn opened_event(session: &Session) -> Opened {
    Opened { meta: None, player_id: session.player_id.clone(), opened_at: session.opened_at }
}

/// The session with a whole lease from now on.
pub(crate) fn renewed(session: &Session, now: SystemTime) -> Session {
    let expires_at = now + Duration::from_secs(session.lease_seconds.into());
    Session { expires_at: Some(expires_at.into()), ..session.clone() }
}

/// The session when it ends now, or has ended before because its lease had run out, with the event of that; `None` if that was
/// noted before.
pub(crate) fn ended(session: &Session, end_reason: EndReason, now: SystemTime) -> Option<(Session, Ended)> {
    if session.ended_at.is_some() {
        return None;
    }
    let expires_at = expires_at(session);
    let (ended_at, end_reason) = match expires_at <= now {
        true => (expires_at, EndReason::Expired),
        false => (now, end_reason),
    };
    let session = Session { ended_at: Some(ended_at.into()), end_reason: end_reason.into(), ..session.clone() };
    let event = Ended {
        meta: None,
        player_id: session.player_id.clone(),
        opened_at: session.opened_at,
        ended_at: session.ended_at,
        reason: end_reason.into(),
    };
    Some((session, event))
}

/// The session when its lease has run out, with the event of that; `None` if it has not, or that was noted before.
pub(crate) fn expired(session: &Session, now: SystemTime) -> Option<(Session, Ended)> {
    ended(session, EndReason::Expired, now).filter(|_| expires_at(session) <= now)
}

/// The session as it is now, whether or not its end has been noted.
pub(crate) fn shown(session: Session, now: SystemTime) -> Session {
    expired(&session, now).map_or(session, |(session, _)| session)
}

/// Rejects a session that is not the player's latest.
pub(crate) fn check_latest<'a>(
    session: Option<&'a Session>,
    player_id: &str,
    session_id: &str,
) -> Result<&'a Session, Error> {
    let latest = session.filter(|session| session.id == session_id);
    latest.ok_or_else(|| Error::not_found(format_args!("this session of player `{player_id}`")))
}

/// Rejects a session that is not the player's latest, or has ended.
pub(crate) fn check_open<'a>(
    session: Option<&'a Session>,
    player_id: &str,
    session_id: &str,
    now: SystemTime,
) -> Result<&'a Session, Error> {
    let session = check_latest(session, player_id, session_id)?;
    match shown(session.clone(), now) {
        now if now.ended_at.is_none() => Ok(session),
        ended => {
            let message = format_args!("the session of player `{player_id}` has ended, open another one");
            Err(Error::failed_precondition(message)
                .with_detail(reason::KEY, SESSION_ENDED)
                .with_detail("end_reason", ended.end_reason().as_str_name()))
        }
    }
}

/// Whether the session ended so long ago that it is deleted.
pub(crate) fn is_over(session: &Session, now: SystemTime) -> bool {
    session.ended_at.is_some() && due_at(session) <= now
}

/// When something is to be done about a session: it expires, or is deleted.
fn due_at(session: &Session) -> SystemTime {
    match session.ended_at.map(SystemTime::try_from) {
        Some(ended_at) => ended_at.unwrap_or(SystemTime::UNIX_EPOCH) + KEPT_AFTER_END,
        None => expires_at(session),
    }
}

fn expires_at(session: &Session) -> SystemTime {
    let expires_at = session.expires_at.unwrap_or_default();
    SystemTime::try_from(expires_at).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When something is to be done about each session, by player.
#[derive(Debug, Default)]
pub(crate) struct Due(pub(crate) Deadlines);

impl Follow<Session> for Due {
    fn apply(&mut self, update: Update<Session>) {
        self.0.set(&update.key, update.record.map(|session| due_at(&session.value)));
    }
}

#[cfg(test)]
mod tests {
    use sdk::Code;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn session() -> Session {
        opened("ada", "s1", 10, at(100)).unwrap()
    }

    /// The session when it is ended for this reason: when it ended, and why.
    #[track_caller]
    fn check_end(reason: EndReason, now: u64, ended_at: u64, because: EndReason) {
        let (session, event) = ended(&session(), reason, at(now)).unwrap();
        assert_eq!((session.ended_at, session.end_reason()), (Some(at(ended_at).into()), because));
        assert_eq!((event.ended_at, event.reason(), event.opened_at), (session.ended_at, because, session.opened_at));
        assert_eq!(ended(&session, reason, at(now + 1)), None);
    }

    #[test]
    fn a_session_ends_once_and_when_its_lease_has_run_out_then() {
        check_end(EndReason::Closed, 105, 105, EndReason::Closed);
        check_end(EndReason::Replaced, 109, 109, EndReason::Replaced);
        check_end(EndReason::Closed, 110, 110, EndReason::Expired);
        check_end(EndReason::Replaced, 500, 110, EndReason::Expired);
        assert_eq!(expired(&session(), at(109)), None);
        assert_eq!(shown(session(), at(109)), session());
        assert_eq!(shown(session(), at(110)).end_reason(), EndReason::Expired);
    }

    #[test]
    fn a_heartbeat_gives_a_whole_lease() {
        let renewed = renewed(&session(), at(109));
        assert_eq!(renewed.expires_at, Some(at(119).into()));
        assert!(expired(&renewed, at(118)).is_none() && expired(&renewed, at(119)).is_some());
        assert_eq!(opened("ada", "s1", 0, at(0)).unwrap().expires_at, Some(at(60).into()));
        let error = opened("ada", "s1", 4, at(0)).unwrap_err();
        assert_eq!(error.message(), "lease_seconds is 4, it must be 5 to 3600");
    }

    #[track_caller]
    fn refused(session: Option<&Session>, session_id: &str, now: u64, code: Code, message: &str) -> Error {
        let error = check_open(session, "ada", session_id, at(now)).unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
        error
    }

    #[test]
    fn only_the_latest_session_is_accepted_and_only_while_it_is_open() {
        let session = session();
        assert_eq!(check_open(Some(&session), "ada", "s1", at(109)), Ok(&session));
        let unknown = "this session of player `ada` does not exist";
        refused(None, "s1", 100, Code::NotFound, unknown);
        refused(Some(&session), "s2", 100, Code::NotFound, unknown);
        refused(Some(&session), "", 100, Code::NotFound, unknown);
        let over = "the session of player `ada` has ended, open another one";
        let error = refused(Some(&session), "s1", 110, Code::FailedPrecondition, over);
        assert_eq!(
            (error.detail("reason"), error.detail("end_reason")),
            (Some("session_ended"), Some("END_REASON_EXPIRED"))
        );
    }

    #[test]
    fn a_session_is_looked_at_when_it_expires_and_deleted_an_hour_after_its_end() {
        let session = session();
        assert_eq!(due_at(&session), at(110));
        let (ended, _) = ended(&session, EndReason::Closed, at(105)).unwrap();
        assert_eq!(due_at(&ended), at(105 + 3_600));
        assert!(!is_over(&session, at(9_999)) && !is_over(&ended, at(3_704)) && is_over(&ended, at(3_705)));
    }
}
