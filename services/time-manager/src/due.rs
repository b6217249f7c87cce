//! Which timers are due: an index of all timers, as each worker keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use proto::time::v1::{Timer, TimerClock, TimerState};
use sdk::{Follow, Update};

use crate::clock::Now;
use crate::timer::{KEPT_AFTER_END, TimerKey, seconds};

/// All timers, by what happens to them next.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// By when they are due.
    game: BTreeSet<(i64, TimerKey)>,
    real: BTreeSet<(i64, TimerKey)>,
    /// By when they ended, in seconds since 1970.
    ended: BTreeSet<(i64, TimerKey)>,
    places: BTreeMap<TimerKey, Place>,
    owners: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Game(i64),
    Real(i64),
    Ended(i64),
}

impl Due {
    /// Whether there are no timers at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Timers that are due, at most `limit` by each clock, the longest first.
    pub(crate) fn keys(&self, now: Now, limit: usize) -> Vec<TimerKey> {
        let game = first(&self.game, now.game_ms, limit);
        game.chain(first(&self.real, now.real_ms, limit)).collect()
    }

    /// Timers that ended so long ago that they are deleted.
    pub(crate) fn over(&self, time: SystemTime, limit: usize) -> Vec<TimerKey> {
        first(&self.ended, seconds(time) - KEPT_AFTER_END.as_secs().cast_signed(), limit).collect()
    }

    /// How many timers an owner has, those included that have ended and are not deleted yet.
    pub(crate) fn count(&self, owner: &str) -> usize {
        self.owners.get(owner).copied().unwrap_or(0)
    }

    fn leave(&mut self, owner: &str) {
        match self.owners.get_mut(owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.owners.remove(owner)),
        }
    }

    fn queue(&mut self, place: Place) -> (&mut BTreeSet<(i64, TimerKey)>, i64) {
        match place {
            Place::Game(at) => (&mut self.game, at),
            Place::Real(at) => (&mut self.real, at),
            Place::Ended(at) => (&mut self.ended, at),
        }
    }
}

impl Follow<Timer> for Due {
    fn apply(&mut self, update: Update<Timer>) {
        let key = TimerKey::stored(update.key);
        if let Some(place) = self.places.remove(&key) {
            let (queue, at) = self.queue(place);
            queue.remove(&(at, key.clone()));
            self.leave(key.owner());
        }
        let Some(timer) = update.record.map(|stored| stored.value) else { return };
        let place = match (timer.state(), timer.clock()) {
            (TimerState::Active, TimerClock::Game) => Place::Game(timer.due_ms),
            (TimerState::Active, _) => Place::Real(timer.due_ms),
            _ => Place::Ended(timer.ended_at.unwrap_or_default().seconds),
        };
        let (queue, at) = self.queue(place);
        queue.insert((at, key.clone()));
        *self.owners.entry(key.owner().to_owned()).or_default() += 1;
        self.places.insert(key, place);
    }
}

/// The keys up to `until`.
fn first(queue: &BTreeSet<(i64, TimerKey)>, until: i64, limit: usize) -> impl Iterator<Item = TimerKey> {
    queue.iter().take_while(move |(at, _)| *at <= until).take(limit).map(|(_, key)| key.clone())
}
