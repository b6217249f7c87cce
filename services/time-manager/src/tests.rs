//! The service against a real nats-server.

use futures::future::join_all;
use prost::Message as _;
use proto::time::timer::v1::Fired;
use proto::time::v1::create_timer_request::Due as DueField;
use proto::time::v1::{GameDate, TimerClock};
use sdk::testing::{NatsServer, Time, as_request};
use sdk::{Code, Event as _};

use super::*;

async fn server() -> NatsServer {
    let server = NatsServer::start();
    server.bucket("game_clock", 1).await;
    server.bucket("timers", 1).await;
    server.stream("EVENTS", &[Fired::SUBJECT]).await;
    server.outboxes(&["timers"], "EVENTS").await;
    server
}

async fn service(server: &NatsServer, time: &Time) -> Service {
    Service::new(server.fleet_at("time-manager", time).await).await.unwrap()
}

async fn fired(server: &NatsServer) -> Vec<Fired> {
    let stored = server.stored_from(&["timers"], "EVENTS").await;
    stored.into_iter().map(|stored| Fired::decode(stored.payload).unwrap()).collect()
}

fn timer(id: &str, clock: TimerClock, after_ms: u64) -> CreateTimerRequest {
    CreateTimerRequest {
        owner: "quests".to_owned(),
        id: id.to_owned(),
        clock: clock.into(),
        due: Some(DueField::AfterMs(after_ms)),
        payload: format!("payload of {id}"),
        ..CreateTimerRequest::default()
    }
}

impl Service {
    async fn created(&self, idempotency_key: Option<&str>, request: CreateTimerRequest) -> Result<Timer, Error> {
        Ok(as_request(idempotency_key, self.create_timer(request)).await?.timer.unwrap())
    }

    async fn cancelled(&self, id: &str) -> Result<Timer, Error> {
        let request = CancelTimerRequest { owner: "quests".to_owned(), id: id.to_owned(), ..Default::default() };
        Ok(as_request(None, self.cancel_timer(request)).await?.timer.unwrap())
    }

    async fn got(&self, id: &str) -> Result<Timer, Error> {
        let request = GetTimerRequest { owner: "quests".to_owned(), id: id.to_owned(), ..Default::default() };
        Ok(self.get_timer(request).await?.timer.unwrap())
    }

    async fn listed(&self, request: ListTimersRequest) -> Vec<String> {
        let request = ListTimersRequest { owner: "quests".to_owned(), ..request };
        self.list_timers(request).await.unwrap().timers.into_iter().map(|timer| timer.id).collect()
    }

    async fn game_ms(&self) -> i64 {
        TimeManager::now(self, NowRequest::default()).await.unwrap().time.unwrap().game_ms
    }
}

#[tokio::test]
async fn game_time_is_the_same_for_all_tasks() {
    let (server, time) = (server().await, Time::default());
    let services = [service(&server, &time).await, service(&server, &time).await];
    time.pass(Duration::from_secs(10));
    assert_eq!((services[0].game_ms().await, services[1].game_ms().await), (600_000, 600_000));

    as_request(None, services[0].pause(PauseRequest::default())).await.unwrap();
    time.pass(Duration::from_secs(10));
    let scale = SetScaleRequest { scale: 1_000.0, ..Default::default() };
    let paused = as_request(None, services[1].set_scale(scale)).await.unwrap().time.unwrap();
    assert_eq!((paused.game_ms, paused.paused, paused.scale), (600_000, true, 1_000.0));
    as_request(None, services[1].resume(ResumeRequest::default())).await.unwrap();
    time.pass(Duration::from_secs(1));
    assert_eq!(services[0].game_ms().await, 1_600_000);

    let wrong = SetScaleRequest { scale: 0.0, ..Default::default() };
    let error = as_request(None, services[0].set_scale(wrong)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "scale is 0, it must be 0.001 to 100000"));
}

#[tokio::test]
async fn a_repeated_advance_moves_time_once() {
    let (server, time) = (server().await, Time::default());
    let services = [service(&server, &time).await, service(&server, &time).await];
    let advance = |number: usize| {
        let request = AdvanceRequest { duration_ms: 5_000, ..Default::default() };
        as_request(Some("k"), services[number % 2].advance(request))
    };
    for outcome in join_all((0..6).map(advance)).await {
        assert_eq!(outcome.unwrap().time.unwrap().game_ms, 5_000);
    }
    let other = AdvanceRequest { duration_ms: 6_000, ..Default::default() };
    let error = as_request(Some("k"), services[0].advance(other)).await.unwrap_err();
    assert_eq!(error.detail("reason"), Some("idempotency_key_reused"));
    assert_eq!(services[0].game_ms().await, 5_000);
}

#[tokio::test]
async fn dates_and_seasons_follow_the_calendar() {
    let (server, time) = (server().await, Time::default());
    let service = service(&server, &time).await;
    let mut calendar = service.get_calendar(GetCalendarRequest::default()).await.unwrap().calendar.unwrap();
    calendar.hours_per_day = 10;
    let set = SetCalendarRequest { calendar: Some(calendar.clone()), ..Default::default() };
    as_request(None, service.set_calendar(set)).await.unwrap();

    let day = 10 * calendar::HOUR_MS;
    let to = ToDateRequest { game_ms: 31 * day + 1_000, ..Default::default() };
    let date = service.to_date(to).await.unwrap().date.unwrap();
    assert_eq!((date.month, date.day, date.second), (2, 2, 1));
    let from = FromDateRequest { date: Some(date), ..Default::default() };
    assert_eq!(service.from_date(from).await.unwrap().game_ms, 31 * day + 1_000);
    let absent = FromDateRequest { date: Some(GameDate { month: 13, ..GameDate::default() }), ..Default::default() };
    assert_eq!(service.from_date(absent).await.unwrap_err().code(), Code::OutOfRange);

    let around = SeasonsRequest { before_ms: 1, after_ms: 100 * day.unsigned_abs(), ..Default::default() };
    let seasons = service.seasons(around).await.unwrap();
    assert_eq!(seasons.spans.iter().map(|span| span.from_ms).collect::<Vec<_>>(), [0, 90 * day]);
    calendar.months.clear();
    let refused = SetCalendarRequest { calendar: Some(calendar), ..Default::default() };
    let error = as_request(None, service.set_calendar(refused)).await.unwrap_err();
    assert_eq!(error.message(), "number of months is 0, it must be 1 to 40");
}

#[tokio::test]
async fn a_timer_fires_once_whichever_task_looks_first() {
    let (server, time) = (server().await, Time::default());
    let services = [service(&server, &time).await, service(&server, &time).await];
    // In real seconds, both are due after 10.
    for number in 0..10 {
        let (clock, after) = [(TimerClock::Real, 10_000), (TimerClock::Game, 600_000)][number % 2];
        services[number % 2].created(None, timer(&format!("t{number}"), clock, after)).await.unwrap();
    }
    let turns = async || {
        for outcome in join_all((0..6).map(|number| services[number % 2].turn())).await {
            outcome.unwrap();
        }
    };
    turns().await;
    time.pass(Duration::from_millis(9_999));
    turns().await;
    assert_eq!(fired(&server).await, []);
    time.pass(Duration::from_millis(1));
    // Each task knows its own timers at once; the other's after about a second.
    turns().await;
    turns().await;
    let events = fired(&server).await;
    let mut ids: Vec<&str> = events.iter().map(|event| &*event.timer_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..10).map(|number| format!("t{number}")).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event.last && event.payload == format!("payload of {}", event.timer_id)));
    let timer = services[0].got("t1").await.unwrap();
    assert_eq!((timer.state(), timer.passed), (TimerState::Finished, 1));
}

#[tokio::test]
async fn a_recurring_timer_tells_what_it_missed_and_stops_when_it_is_cancelled() {
    let (server, time) = (server().await, Time::default());
    let service = service(&server, &time).await;
    let every_minute = CreateTimerRequest { interval_ms: 60_000, ..timer("t", TimerClock::Real, 60_000) };
    service.created(None, every_minute).await.unwrap();
    for minutes in [1, 1, 4] {
        time.pass(Duration::from_secs(60 * minutes));
        service.turn().await.unwrap();
    }
    let events = fired(&server).await;
    assert_eq!(
        events.iter().map(|event| (event.occurrence, event.missed)).collect::<Vec<_>>(),
        [(1, 0), (2, 0), (6, 3)]
    );

    let cancelled = service.cancelled("t").await.unwrap();
    assert_eq!((service.cancelled("t").await.unwrap(), cancelled.state()), (cancelled.clone(), TimerState::Cancelled));
    time.pass(Duration::from_secs(600));
    service.turn().await.unwrap();
    assert_eq!(fired(&server).await.len(), 3);
    // An hour after its end it is forgotten.
    time.pass(Duration::from_secs(3_000));
    service.turn().await.unwrap();
    assert_eq!(service.got("t").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_paused_game_fires_no_timers_of_game_time() {
    let (server, time) = (server().await, Time::default());
    let service = service(&server, &time).await;
    service.created(None, timer("t", TimerClock::Game, 60_000)).await.unwrap();
    as_request(None, service.pause(PauseRequest::default())).await.unwrap();
    time.pass(Duration::from_secs(100));
    service.turn().await.unwrap();
    assert_eq!(fired(&server).await, []);
    let advance = AdvanceRequest { duration_ms: 60_000, ..Default::default() };
    as_request(None, service.advance(advance)).await.unwrap();
    service.turn().await.unwrap();
    assert_eq!(fired(&server).await.len(), 1);
}

#[tokio::test]
async fn a_repeated_creation_makes_one_timer_and_another_of_its_id_is_refused() {
    let (server, time) = (server().await, Time::default());
    let services = [service(&server, &time).await, service(&server, &time).await];
    let create = |number: usize| services[number % 2].created(Some("k"), timer("t", TimerClock::Real, 1_000));
    let created: Vec<_> = join_all((0..6).map(create)).await.into_iter().map(Result::unwrap).collect();
    assert!(created.iter().all(|timer| *timer == created[0]));
    let error = services[0].created(None, timer("t", TimerClock::Real, 1_000)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::AlreadyExists, "timer `t` of `quests` is active, cancel it first")
    );

    // A repeat that comes when the timer has fired does not start it again.
    time.pass(Duration::from_secs(2));
    services[0].turn().await.unwrap();
    services[1].created(Some("k"), timer("t", TimerClock::Real, 1_000)).await.unwrap();
    assert_eq!(services[0].got("t").await.unwrap().state(), TimerState::Finished);
    let error = services[0].cancelled("t").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "timer `t` of `quests` is finished"));
    // Then its id is free.
    services[0].created(None, timer("t", TimerClock::Real, 1_000)).await.unwrap();
    assert_eq!(services[0].got("t").await.unwrap().state(), TimerState::Active);
}

#[tokio::test]
async fn timers_are_listed_by_page_and_state() {
    let (server, time) = (server().await, Time::default());
    let service = service(&server, &time).await;
    for id in ["c", "a", "b"] {
        service.created(None, timer(id, TimerClock::Real, 1_000)).await.unwrap();
    }
    service.cancelled("a").await.unwrap();
    assert_eq!(service.listed(ListTimersRequest::default()).await, ["a", "b", "c"]);
    let page = ListTimersRequest { after_id: "a".to_owned(), limit: 1, ..Default::default() };
    assert_eq!(service.listed(page).await, ["b"]);
    let cancelled = ListTimersRequest { state: TimerState::Cancelled.into(), ..Default::default() };
    assert_eq!(service.listed(cancelled).await, ["a"]);
    let error =
        service.list_timers(ListTimersRequest { owner: "*".to_owned(), ..Default::default() }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(service.cancelled("none").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_owner_has_a_thousand_timers_at_most() {
    let (server, time) = (server().await, Time::default());
    let service = service(&server, &time).await;
    let active = Timer { state: TimerState::Active.into(), ..Timer::default() };
    for number in 0..MAX_TIMERS {
        service.due.wrote(sdk::testing::written(&format!("quests.t{number}"), 1, active.clone()));
    }
    let error = service.created(None, timer("one-more", TimerClock::Real, 1)).await.unwrap_err();
    assert_eq!(error.message(), "`quests` has 1000 timers, at most 1000 are allowed");
    let other = CreateTimerRequest { owner: "npcs".to_owned(), ..timer("one-more", TimerClock::Real, 1) };
    service.created(None, other).await.unwrap();
}
