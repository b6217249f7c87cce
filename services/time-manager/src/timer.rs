//! Timers: when they are due, and what happens then.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use proto::time::timer::v1::Fired;
use proto::time::v1::create_timer_request::Due;
use proto::time::v1::{CreateTimerRequest, Timer, TimerClock, TimerState};
use sdk::{Code, Error, RecordKey, check_id, check_range, check_text, choice, required};

use crate::calendar::MAX_GAME_MS;
use crate::clock::Now;

/// How long a timer is kept after its end: longer than a repeated request may come.
pub(crate) const KEPT_AFTER_END: Duration = Duration::from_secs(3_600);

const MAX_ID: usize = 64;
const MAX_PAYLOAD: usize = 4_096;
/// About 30 years.
const MAX_DURATION_MS: u64 = 1_000_000_000_000;
const MIN_REAL_INTERVAL_MS: u64 = 1_000;
const MIN_GAME_INTERVAL_MS: u64 = 60_000;
const MAX_OCCURRENCES: u64 = 1_000_000_000;

/// Identifies a timer among all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(String);

impl TimerKey {
    pub(crate) fn new(owner: &str, id: &str) -> Result<Self, Error> {
        check_owner(owner)?;
        check_id("timer id", id, MAX_ID)?;
        Ok(Self(format!("{owner}.{id}")))
    }

    /// The key of a timer that is stored.
    pub(crate) fn stored(key: String) -> Self {
        Self(key)
    }

    pub(crate) fn owner(&self) -> &str {
        self.0.split_once('.').map_or("", |(owner, _)| owner)
    }
}

impl fmt::Display for TimerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, id) = self.0.split_once('.').unwrap_or_default();
        write!(f, "timer `{id}` of `{owner}`")
    }
}

impl RecordKey for TimerKey {
    fn bucket_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }
}

pub(crate) fn check_owner(owner: &str) -> Result<(), Error> {
    check_id("owner", owner, MAX_ID)
}

/// The timer that a request asks for.
pub(crate) fn new(request: CreateTimerRequest, now: Now, time: SystemTime) -> Result<Timer, Error> {
    let clock: TimerClock = choice("clock", request.clock)?;
    let due_ms = match required("after_ms or at_ms", request.due)? {
        Due::AfterMs(after) => now.by(clock) + check_range("after_ms", after, 0..=MAX_DURATION_MS)?.cast_signed(),
        Due::AtMs(at) => check_range("at_ms", at, 0..=MAX_GAME_MS)?,
    };
    if request.interval_ms != 0 {
        let shortest = if clock == TimerClock::Game { MIN_GAME_INTERVAL_MS } else { MIN_REAL_INTERVAL_MS };
        check_range("interval_ms", request.interval_ms, shortest..=MAX_DURATION_MS)?;
    } else if request.occurrences > 1 {
        return Err(Error::invalid("occurrences needs interval_ms"));
    }
    check_range("occurrences", request.occurrences, 0..=MAX_OCCURRENCES)?;
    if !request.payload.is_empty() {
        check_text("payload", &request.payload, MAX_PAYLOAD)?;
    }
    Ok(Timer {
        owner: request.owner,
        id: request.id,
        clock: clock.into(),
        due_ms,
        interval_ms: request.interval_ms,
        occurrences: if request.interval_ms == 0 { 1 } else { request.occurrences },
        passed: 0,
        payload: request.payload,
        state: TimerState::Active.into(),
        created_at: Some(time.into()),
        ended_at: None,
        revision: 0,
    })
}

/// Rejects a new timer in the place of one that is active.
pub(crate) fn check_replaceable(current: Option<&Timer>, key: &TimerKey) -> Result<(), Error> {
    match current {
        Some(timer) if timer.state() == TimerState::Active => {
            Err(Error::new(Code::AlreadyExists, format!("{key} is active, cancel it first")))
        }
        _ => Ok(()),
    }
}

/// The timer as it is when it has fired, and the event of that; `None` if it is not due.
pub(crate) fn fired(timer: &Timer, now: Now, time: SystemTime) -> Option<(Timer, Fired)> {
    let late = now.by(timer.clock()) - timer.due_ms;
    if timer.state() != TimerState::Active || late < 0 {
        return None;
    }
    let left = if timer.occurrences == 0 { u64::MAX } else { timer.occurrences.saturating_sub(timer.passed).max(1) };
    let came_due = late.unsigned_abs().checked_div(timer.interval_ms).unwrap_or(0).saturating_add(1).min(left);
    let due_ms = timer.due_ms + ((came_due - 1) * timer.interval_ms).cast_signed();
    let last = came_due == left;
    let mut next = Timer { passed: timer.passed + came_due, ..timer.clone() };
    if last {
        next.due_ms = due_ms;
        end(&mut next, TimerState::Finished, time);
    } else {
        next.due_ms = due_ms + timer.interval_ms.cast_signed();
    }
    let fired = Fired {
        meta: None,
        owner: timer.owner.clone(),
        timer_id: timer.id.clone(),
        occurrence: next.passed,
        missed: came_due - 1,
        due_ms,
        clock: timer.clock,
        payload: timer.payload.clone(),
        last,
    };
    Some((next, fired))
}

/// The timer, cancelled.
pub(crate) fn cancelled(timer: &Timer, key: &TimerKey, time: SystemTime) -> Result<Timer, Error> {
    let mut timer = timer.clone();
    match timer.state() {
        TimerState::Finished => return Err(Error::failed_precondition(format_args!("{key} is finished"))),
        TimerState::Active => end(&mut timer, TimerState::Cancelled, time),
        TimerState::Cancelled | TimerState::Unspecified => {}
    }
    Ok(timer)
}

/// Whether the timer ended so long ago that it is deleted.
pub(crate) fn is_over(timer: &Timer, time: SystemTime) -> bool {
    timer.ended_at.is_some_and(|ended| ended.seconds + KEPT_AFTER_END.as_secs().cast_signed() <= seconds(time))
}

pub(crate) fn seconds(time: SystemTime) -> i64 {
    proto::well_known::Timestamp::from(time).seconds
}

fn end(timer: &mut Timer, state: TimerState, time: SystemTime) {
    timer.set_state(state);
    timer.ended_at = Some(time.into());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: SystemTime = SystemTime::UNIX_EPOCH;

    fn now(ms: i64) -> Now {
        Now { game_ms: ms, real_ms: ms + 7 }
    }

    fn request(interval_ms: u64, occurrences: u64) -> CreateTimerRequest {
        CreateTimerRequest {
            owner: "o".to_owned(),
            id: "t".to_owned(),
            clock: TimerClock::Game.into(),
            due: Some(Due::AtMs(100)),
            interval_ms,
            occurrences,
            ..CreateTimerRequest::default()
        }
    }

    fn timer(interval_ms: u64, occurrences: u64) -> Timer {
        new(request(interval_ms, occurrences), now(0), TIME).unwrap()
    }

    /// What fires at these times: the occurrence, how many were missed, and when it was due.
    #[track_caller]
    fn check(mut timer: Timer, times: &[i64], expected: &[(u64, u64, i64)], end: TimerState) {
        let mut events = Vec::new();
        for time in times {
            if let Some((next, event)) = fired(&timer, now(*time), TIME) {
                timer = next;
                events.push((event.occurrence, event.missed, event.due_ms));
            }
        }
        assert_eq!((&events[..], timer.state()), (expected, end));
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        check(timer(0, 0), &[0, 99], &[], TimerState::Active);
        check(timer(0, 0), &[100, 101, 9_000], &[(1, 0, 100)], TimerState::Finished);
        check(timer(0, 1), &[9_000], &[(1, 0, 100)], TimerState::Finished);
    }

    #[test]
    fn a_recurring_timer_fires_at_each_interval_and_counts_what_it_missed() {
        let hour = 3_600_000;
        let (first, second) = (100, 100 + hour);
        check(
            timer(3_600_000, 0),
            &[first, first + 1, second, second + 3 * hour],
            &[(1, 0, first), (2, 0, second), (5, 2, second + 3 * hour)],
            TimerState::Active,
        );
        check(timer(3_600_000, 3), &[first, 90 * hour], &[(1, 0, first), (3, 1, second + hour)], TimerState::Finished);
    }

    #[test]
    fn a_timer_is_due_by_its_clock() {
        let real = |after| CreateTimerRequest {
            clock: TimerClock::Real.into(),
            due: Some(Due::AfterMs(after)),
            ..request(0, 0)
        };
        let timer = new(real(10), now(0), TIME).unwrap();
        assert_eq!(timer.due_ms, 17);
        assert!(fired(&timer, Now { game_ms: 100, real_ms: 16 }, TIME).is_none());
        assert!(fired(&timer, Now { game_ms: 0, real_ms: 17 }, TIME).is_some());
    }

    #[track_caller]
    fn refused(request: CreateTimerRequest, message: &str) {
        let error = new(request, now(0), TIME).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, message));
    }

    #[test]
    fn a_timer_out_of_bounds_is_refused() {
        let clocks = "clock is missing, it must be one of TIMER_CLOCK_GAME, TIMER_CLOCK_REAL";
        refused(CreateTimerRequest { clock: 0, ..request(0, 0) }, clocks);
        refused(CreateTimerRequest { due: None, ..request(0, 0) }, "after_ms or at_ms is missing");
        let at = CreateTimerRequest { due: Some(Due::AtMs(-1)), ..request(0, 0) };
        refused(at, "at_ms is -1, it must be 0 to 1000000000000000");
        refused(request(59_999, 0), "interval_ms is 59999, it must be 60000 to 1000000000000");
        refused(request(0, 2), "occurrences needs interval_ms");
        let payload = CreateTimerRequest { payload: "x".repeat(4_097), ..request(0, 0) };
        refused(payload, "payload has 4097 bytes, at most 4096 are allowed");
        let error = TimerKey::new("a.b", "t").unwrap_err();
        assert_eq!(error.message(), "owner must be 1 to 64 letters, digits, `_` and `-`");
    }

    #[test]
    fn only_a_timer_that_goes_on_is_cancelled() {
        let key = TimerKey::new("o", "t").unwrap();
        let active = timer(0, 0);
        let once = cancelled(&active, &key, TIME).unwrap();
        assert_eq!(once.state(), TimerState::Cancelled);
        assert_eq!(cancelled(&once, &key, TIME + Duration::from_secs(9)), Ok(once.clone()));
        assert!(fired(&once, now(1_000), TIME).is_none());
        let (finished, _) = fired(&active, now(1_000), TIME).unwrap();
        assert_eq!(cancelled(&finished, &key, TIME).unwrap_err().message(), "timer `t` of `o` is finished");

        assert_eq!(check_replaceable(Some(&once), &key), Ok(()));
        assert_eq!(check_replaceable(Some(&active), &key).unwrap_err().code(), Code::AlreadyExists);
        assert!(!is_over(&active, TIME + KEPT_AFTER_END));
        assert!(is_over(&once, TIME + KEPT_AFTER_END) && !is_over(&once, TIME + Duration::from_secs(3_599)));
    }

    proptest! {
        #[test]
        fn every_occurrence_is_in_one_event(
            interval in 60_000_u64..1_000_000, occurrences in 0_u64..50, steps in proptest::collection::vec(0_i64..5_000_000, 1..40),
        ) {
            let mut timer = timer(interval, occurrences);
            let (mut time, mut told) = (0, 0);
            for step in steps {
                time += step;
                if let Some((next, event)) = fired(&timer, now(time), TIME) {
                    prop_assert_eq!(event.occurrence - event.missed, told + 1);
                    prop_assert!(event.due_ms <= time);
                    prop_assert_eq!(event.due_ms, 100 + ((event.occurrence - 1) * interval) as i64);
                    told = event.occurrence;
                    timer = next;
                }
            }
            let due = if time < 100 { 0 } else { (time - 100) as u64 / interval + 1 };
            prop_assert_eq!(told, if occurrences == 0 { due } else { due.min(occurrences) });
        }
    }
}
