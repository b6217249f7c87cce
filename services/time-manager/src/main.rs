//! Keeps the game's clock and calendar, and fires timers: exactly once, however many tasks there are.
//!
//! A timer is a record with the time at which it is due next. Every worker looks for timers that are due, and moves them on by
//! compare-and-set together with their event: only one of them succeeds.

mod calendar;
mod clock;
mod due;
mod timer;

use std::time::{Duration, SystemTime};

use proto::time::v1::{
    AdvanceRequest, AdvanceResponse, CancelTimerRequest, CancelTimerResponse, CreateTimerRequest, CreateTimerResponse,
    FromDateRequest, FromDateResponse, GetCalendarRequest, GetCalendarResponse, GetTimerRequest, GetTimerResponse,
    ListTimersRequest, ListTimersResponse, NowRequest, NowResponse, PauseRequest, PauseResponse, ResumeRequest,
    ResumeResponse, SeasonsRequest, SeasonsResponse, SetCalendarRequest, SetCalendarResponse, SetScaleRequest,
    SetScaleResponse, StoredClock, TimeManager, TimeManagerServer, Timer, TimerState, ToDateRequest, ToDateResponse,
};
use sdk::{
    Error, Fleet, Followed, Id, Next, Operation, Periodic, Records, Request, Stored, check_range, check_range_or,
    choice_or_unset, required,
};

use crate::clock::Now;
use crate::due::Due;
use crate::timer::TimerKey;

/// Timers of one owner.
const MAX_TIMERS: usize = 1_000;
/// Timers that a worker fires in one turn, by each clock.
const FIRED_PER_TURN: usize = 500;
const MAX_PAGE: u32 = 100;
const MAX_SEASONS_MS: u64 = 10_000_000_000_000;

fn main() -> std::process::ExitCode {
    sdk::service(Service::new).serve(TimeManagerServer).periodically().run()
}

struct Service {
    fleet: Fleet,
    clock: Records<StoredClock>,
    /// There is one clock.
    clock_key: Id,
    timers: Records<Timer>,
    due: Followed<Due>,
}

impl Service {
    async fn new(fleet: Fleet) -> Result<Self, Error> {
        let (clock, timers) = (fleet.records("game_clock").await?, fleet.records("timers").await?);
        let clock_key = Id::new("game clock", "clock", 64)?;
        clock.create(&clock_key, &clock::new(fleet.clock().now())).await?;
        let due = timers.follow(Due::default()).await?;
        Ok(Self { fleet, clock, clock_key, timers, due })
    }

    fn time(&self) -> SystemTime {
        self.fleet.clock().now()
    }

    async fn stored_clock(&self) -> Result<Stored<StoredClock>, Error> {
        self.clock.get(&self.clock_key).await
    }

    async fn now(&self) -> Result<Now, Error> {
        Ok(Now::new(&self.stored_clock().await?.value, self.time()))
    }

    async fn calendar(&self) -> Result<proto::time::v1::Calendar, Error> {
        required("calendar", self.stored_clock().await?.value.calendar)
    }

    async fn change_clock<R: Request>(
        &self,
        request: &R,
        change: impl Fn(&StoredClock, SystemTime) -> Result<StoredClock, Error>,
    ) -> Result<Stored<StoredClock>, Error> {
        let next = |current: &Stored<StoredClock>| Ok(Next::write(change(&current.value, self.time())?));
        let changed = self.clock.change_existing(&self.clock_key, &Operation::of(request), next).await?;
        changed.ok_or_else(|| Error::not_found(&self.clock_key))
    }

    /// Fires a timer, unless it is not due because another worker was faster.
    async fn fire(&self, key: &TimerKey, now: Now) -> Result<(), Error> {
        let fired = |current: &Stored<Timer>| {
            Ok(match timer::fired(&current.value, now, self.time()) {
                Some((timer, event)) => Next::write(timer).and_publish(event),
                None => Next::keep(),
            })
        };
        if let Some(timer) = self.timers.update(key, fired).await? {
            self.due.wrote(timer.into());
        }
        Ok(())
    }

    /// Deletes a timer that ended long ago, unless there is a new one in its place.
    async fn forget(&self, key: &TimerKey) -> Result<(), Error> {
        let over = |current: &Stored<Timer>| {
            Ok(match timer::is_over(&current.value, self.time()) {
                true => Next::delete(),
                false => Next::keep(),
            })
        };
        self.timers.update(key, over).await.map(drop)
    }
}

impl TimeManager for Service {
    async fn now(&self, _: NowRequest) -> Result<NowResponse, Error> {
        Ok(clock::shown(&self.stored_clock().await?, self.time()).into())
    }

    async fn set_scale(&self, request: SetScaleRequest) -> Result<SetScaleResponse, Error> {
        let changed = self.change_clock(&request, |clock, time| clock::with_scale(clock, request.scale, time)).await?;
        Ok(clock::shown(&changed, self.time()).into())
    }

    async fn pause(&self, request: PauseRequest) -> Result<PauseResponse, Error> {
        let changed = self.change_clock(&request, |clock, time| Ok(clock::paused(clock, time))).await?;
        Ok(clock::shown(&changed, self.time()).into())
    }

    async fn resume(&self, request: ResumeRequest) -> Result<ResumeResponse, Error> {
        let changed = self.change_clock(&request, |clock, time| Ok(clock::resumed(clock, time))).await?;
        Ok(clock::shown(&changed, self.time()).into())
    }

    async fn advance(&self, request: AdvanceRequest) -> Result<AdvanceResponse, Error> {
        let advance = |clock: &StoredClock, time| clock::advanced(clock, request.duration_ms, time);
        Ok(clock::shown(&self.change_clock(&request, advance).await?, self.time()).into())
    }

    async fn get_calendar(&self, _: GetCalendarRequest) -> Result<GetCalendarResponse, Error> {
        Ok(self.calendar().await?.into())
    }

    async fn set_calendar(&self, request: SetCalendarRequest) -> Result<SetCalendarResponse, Error> {
        let calendar = calendar::checked(request.calendar.clone())?;
        let set = |clock: &StoredClock, _| Ok(StoredClock { calendar: Some(calendar.clone()), ..clock.clone() });
        self.change_clock(&request, set).await?;
        Ok(calendar.into())
    }

    async fn to_date(&self, request: ToDateRequest) -> Result<ToDateResponse, Error> {
        let game_ms = check_range("game_ms", request.game_ms, 0..=calendar::MAX_GAME_MS)?;
        Ok(calendar::date(&self.calendar().await?, game_ms).into())
    }

    async fn from_date(&self, request: FromDateRequest) -> Result<FromDateResponse, Error> {
        let date = required("date", request.date)?;
        Ok(FromDateResponse { error: None, game_ms: calendar::game_ms(&self.calendar().await?, &date)? })
    }

    async fn seasons(&self, request: SeasonsRequest) -> Result<SeasonsResponse, Error> {
        let before = check_range("before_ms", request.before_ms, 0..=MAX_SEASONS_MS)?.cast_signed();
        let after = check_range("after_ms", request.after_ms, 0..=MAX_SEASONS_MS)?.cast_signed();
        let clock = self.stored_clock().await?;
        let now = clock::shown(&clock, self.time());
        let calendar = required("calendar", clock.value.calendar)?;
        let spans = calendar::seasons(&calendar, now.game_ms - before, now.game_ms + after + 1)?;
        Ok(SeasonsResponse { error: None, now: Some(now), spans })
    }

    async fn create_timer(&self, request: CreateTimerRequest) -> Result<CreateTimerResponse, Error> {
        let operation = Operation::of(&request);
        let key = TimerKey::new(&request.owner, &request.id)?;
        let timer = timer::new(request, self.now().await?, self.time())?;
        let timers_of_owner = self.due.read().count(key.owner());
        let create = |current: Option<&Stored<Timer>>| {
            timer::check_replaceable(current.map(|timer| &timer.value), &key)?;
            match timers_of_owner {
                MAX_TIMERS.. => Err(Error::failed_precondition(format_args!(
                    "`{}` has {timers_of_owner} timers, at most {MAX_TIMERS} are allowed",
                    key.owner()
                ))),
                _ => Ok(Next::write(timer.clone())),
            }
        };
        let created = self.timers.change(&key, &operation, create).await?;
        self.due.wrote(created.clone().into());
        Ok(created.value.into())
    }

    async fn get_timer(&self, request: GetTimerRequest) -> Result<GetTimerResponse, Error> {
        let key = TimerKey::new(&request.owner, &request.id)?;
        Ok(self.timers.get(&key).await?.value.into())
    }

    async fn list_timers(&self, request: ListTimersRequest) -> Result<ListTimersResponse, Error> {
        timer::check_owner(&request.owner)?;
        let state: Option<TimerState> = choice_or_unset("state", request.state)?;
        let limit = check_range_or("limit", request.limit, 1..=MAX_PAGE, MAX_PAGE)?;
        let timers = self.timers.list(&format!("{}.*", request.owner)).await?.into_iter().map(|timer| timer.value);
        let page = timers
            .filter(|timer| timer.id > request.after_id && state.is_none_or(|state| timer.state() == state))
            .take(limit as usize);
        Ok(page.collect::<Vec<_>>().into())
    }

    async fn cancel_timer(&self, request: CancelTimerRequest) -> Result<CancelTimerResponse, Error> {
        let key = TimerKey::new(&request.owner, &request.id)?;
        let cancel = |current: &Stored<Timer>| Ok(Next::write(timer::cancelled(&current.value, &key, self.time())?));
        let cancelled = self.timers.change_existing(&key, &Operation::of(&request), cancel).await?;
        let cancelled = cancelled.ok_or_else(|| Error::not_found(&key))?;
        self.due.wrote(cancelled.clone().into());
        Ok(cancelled.value.into())
    }
}

impl Periodic for Service {
    const INTERVAL: Duration = Duration::from_millis(250);

    async fn turn(&self) -> Result<(), Error> {
        if self.due.read().is_empty() {
            return Ok(());
        }
        let now = self.now().await?;
        let mut due = self.due.read().keys(now, FIRED_PER_TURN);
        // Workers that begin at different timers do not all try to change the same one.
        fastrand::shuffle(&mut due);
        let over = self.due.read().over(self.time(), FIRED_PER_TURN);
        let fired = sdk::each(due, |key| async move { self.fire(&key, now).await }).await;
        let forgotten = sdk::each(over, |key| async move { self.forget(&key).await }).await;
        fired.and(forgotten)
    }
}

#[cfg(test)]
mod tests;
