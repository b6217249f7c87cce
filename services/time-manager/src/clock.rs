//! The game's clock: a point at which game time and real time are known, and how fast game time passes from there.

use std::time::{Duration, SystemTime};

use proto::time::v1::{GameTime, StoredClock, TimerClock};
use sdk::{Code, Error, Stored, check_range};

use crate::calendar::{self, MAX_GAME_MS};

/// Of a new game: a minute of game time in a second.
const FIRST_SCALE: f64 = 60.0;
/// 366 days of 24 hours.
const MAX_ADVANCE_MS: u64 = 366 * 24 * 3_600_000;

/// The same moment by both clocks, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) game_ms: i64,
    /// Since 1970.
    pub(crate) real_ms: i64,
}

impl Now {
    pub(crate) fn new(clock: &StoredClock, time: SystemTime) -> Self {
        let real_ms = real_ms(time);
        Self { game_ms: game_ms(clock, real_ms), real_ms }
    }

    pub(crate) fn by(self, clock: TimerClock) -> i64 {
        match clock {
            TimerClock::Game => self.game_ms,
            TimerClock::Real | TimerClock::Unspecified => self.real_ms,
        }
    }
}

/// The clock of a game that begins now.
pub(crate) fn new(time: SystemTime) -> StoredClock {
    let calendar = Some(calendar::standard());
    StoredClock { game_ms: 0, real_ms: real_ms(time), scale: FIRST_SCALE, paused: false, calendar }
}

/// The clock after a change of its scale.
pub(crate) fn with_scale(clock: &StoredClock, scale: f64, time: SystemTime) -> Result<StoredClock, Error> {
    check_range("scale", scale, 0.001..=100_000.0)?;
    Ok(StoredClock { scale, ..as_of(clock, time) })
}

/// The clock, stopped.
pub(crate) fn paused(clock: &StoredClock, time: SystemTime) -> StoredClock {
    match clock.paused {
        true => clock.clone(),
        false => StoredClock { paused: true, ..as_of(clock, time) },
    }
}

/// The clock, going on from where it was stopped.
pub(crate) fn resumed(clock: &StoredClock, time: SystemTime) -> StoredClock {
    match clock.paused {
        true => StoredClock { paused: false, ..as_of(clock, time) },
        false => clock.clone(),
    }
}

/// The clock, set forward by so many milliseconds of game time.
pub(crate) fn advanced(clock: &StoredClock, duration_ms: u64, time: SystemTime) -> Result<StoredClock, Error> {
    let duration_ms = check_range("duration_ms", duration_ms, 1..=MAX_ADVANCE_MS)?.cast_signed();
    let clock = as_of(clock, time);
    match clock.game_ms + duration_ms {
        later if later <= MAX_GAME_MS => Ok(StoredClock { game_ms: later, ..clock }),
        _ => Err(Error::new(Code::OutOfRange, "game time ends at 10^15 milliseconds")),
    }
}

/// What is shown of the clock.
pub(crate) fn shown(clock: &Stored<StoredClock>, time: SystemTime) -> GameTime {
    let Now { game_ms, .. } = Now::new(&clock.value, time);
    GameTime {
        game_ms,
        date: clock.value.calendar.as_ref().map(|calendar| calendar::date(calendar, game_ms)),
        scale: clock.value.scale,
        paused: clock.value.paused,
        real_time: Some(time.into()),
        revision: clock.revision,
    }
}

/// The clock, known at this time. A task whose system clock is behind does not turn it back.
fn as_of(clock: &StoredClock, time: SystemTime) -> StoredClock {
    let real_ms = real_ms(time).max(clock.real_ms);
    StoredClock { game_ms: game_ms(clock, real_ms), real_ms, ..clock.clone() }
}

fn game_ms(clock: &StoredClock, real_ms: i64) -> i64 {
    if clock.paused {
        return clock.game_ms;
    }
    let passed = real_ms.saturating_sub(clock.real_ms).max(0);
    // Exact: what has passed is below 2^53 for longer than game time lasts.
    let passed = (passed as f64 * clock.scale).floor() as i64;
    clock.game_ms.saturating_add(passed).min(MAX_GAME_MS)
}

fn real_ms(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(ms)
    }

    #[track_caller]
    fn check(clock: &StoredClock, ms: u64, expected_game_ms: i64) {
        assert_eq!(Now::new(clock, at(ms)).game_ms, expected_game_ms);
    }

    #[test]
    fn game_time_passes_as_fast_as_the_scale_says() {
        let clock = new(at(0));
        check(&clock, 0, 0);
        check(&clock, 1_500, 90_000);
        let slow = with_scale(&clock, 0.5, at(1_000)).unwrap();
        check(&slow, 1_000, 60_000);
        check(&slow, 2_001, 60_500);
        for scale in [0.0, -1.0, 100_001.0, f64::NAN, f64::INFINITY] {
            assert_eq!(with_scale(&clock, scale, at(0)).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn a_paused_clock_stands_still_and_goes_on_from_there() {
        let stopped = paused(&new(at(0)), at(1_000));
        check(&stopped, 9_000, 60_000);
        assert_eq!(paused(&stopped, at(5_000)), stopped);
        let goes_on = resumed(&stopped, at(10_000));
        check(&goes_on, 10_000, 60_000);
        check(&goes_on, 11_000, 120_000);
        assert_eq!(resumed(&goes_on, at(12_000)), goes_on);
    }

    #[test]
    fn game_time_moves_forward_up_to_its_end() {
        let clock = new(at(0));
        check(&advanced(&clock, 3_600_000, at(1_000)).unwrap(), 1_000, 3_660_000);
        for duration in [0, MAX_ADVANCE_MS + 1, u64::MAX] {
            assert_eq!(advanced(&clock, duration, at(0)).unwrap_err().code(), Code::InvalidArgument);
        }
        let late = StoredClock { game_ms: MAX_GAME_MS - 10, ..clock };
        assert_eq!(advanced(&late, 11, at(0)).unwrap_err().code(), Code::OutOfRange);
        check(&late, 1_000_000, MAX_GAME_MS);
    }

    proptest! {
        #[test]
        fn game_time_never_goes_back(changes in proptest::collection::vec((0_u8..4, 0_u64..100_000, 1_u64..1_000), 1..30)) {
            let mut clock = new(at(50_000));
            let mut latest = 0;
            // Tasks' system clocks differ.
            for (kind, ms, amount) in changes {
                let before = Now::new(&clock, at(ms)).game_ms;
                clock = match kind {
                    0 => paused(&clock, at(ms)),
                    1 => resumed(&clock, at(ms)),
                    2 => with_scale(&clock, amount as f64, at(ms)).unwrap(),
                    _ => advanced(&clock, amount, at(ms)).unwrap(),
                };
                prop_assert!(clock.game_ms >= latest);
                prop_assert!(Now::new(&clock, at(ms)).game_ms >= before);
                latest = clock.game_ms;
            }
        }
    }
}
