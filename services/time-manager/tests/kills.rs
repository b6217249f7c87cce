//! Tasks that are killed at any moment while they create and fire timers. `KILLS=200` for the long run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use prost::Message as _;
use proto::time::timer::v1::Fired;
use proto::time::v1::create_timer_request::Due;
use proto::time::v1::{
    CreateTimerRequest, ListTimersRequest, TimeManager as _, TimeManagerClient, TimerClock, TimerState,
};
use sdk::Event as _;
use sdk::testing::{NatsServer, Program, as_request, kills};

/// How often tasks are killed, unless `KILLS` says another number.
const KILLS: usize = 8;
const TIMERS_PER_KILL: usize = 10;
/// How many times a recurring timer becomes due.
const OCCURRENCES: u64 = 3;
/// The time within which a request is answered, and within which every timer has fired after the last kill.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// A task of the service.
fn task(server: &NatsServer) -> Program {
    Program::start(env!("CARGO_BIN_EXE_time-manager"), "time-manager", server)
}

/// The timers of one kill: by both clocks, once and three times, due within about three seconds.
fn timers(kill: usize) -> impl Iterator<Item = CreateTimerRequest> {
    (0..TIMERS_PER_KILL).map(move |number| {
        // A second of real time is a minute of game time.
        let (clock, second) = [(TimerClock::Real, 1_000), (TimerClock::Game, 60_000)][number % 2];
        let is_recurring = number % 3 == 0;
        CreateTimerRequest {
            owner: format!("kill-{kill}"),
            id: format!("t{number}"),
            clock: clock.into(),
            due: Some(Due::AfterMs(fastrand::u64(0..second))),
            interval_ms: if is_recurring { second } else { 0 },
            occurrences: if is_recurring { OCCURRENCES } else { 0 },
            ..CreateTimerRequest::default()
        }
    })
}

/// Repeats a request with its key until it is answered.
async fn created(client: &TimeManagerClient, request: CreateTimerRequest) {
    let key = format!("{}/{}", request.owner, request.id);
    let deadline = Instant::now() + SETTLED_WITHIN;
    while let Err(error) = as_request(Some(&key), client.create_timer(request.clone())).await {
        assert!(Instant::now() < deadline, "timer {key} was not created: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no timer is active.
async fn settled(client: &TimeManagerClient, kills: usize) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    for kill in 0..kills {
        let active = ListTimersRequest {
            owner: format!("kill-{kill}"),
            state: TimerState::Active.into(),
            ..ListTimersRequest::default()
        };
        while !as_request(None, client.list_timers(active.clone())).await.is_ok_and(|answer| answer.timers.is_empty()) {
            assert!(Instant::now() < deadline, "timers of kill {kill} have not fired");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How many occurrences no event tells of, and how many are told of twice.
fn lost_and_doubled(occurrences: u64, events: &[Fired]) -> (u64, u64) {
    let (mut lost, mut doubled, mut next) = (0, 0, 1);
    for event in events {
        let first = event.occurrence - event.missed;
        lost += first.saturating_sub(next);
        doubled += next.saturating_sub(first);
        next = event.occurrence + 1;
    }
    (lost + (occurrences + 1).saturating_sub(next), doubled)
}

#[test]
fn occurrences_that_are_lost_or_doubled_are_counted() {
    let check = |occurrences: u64, events: &[(u64, u64)], expected: (u64, u64)| {
        let event = |&(occurrence, missed): &(u64, u64)| Fired { occurrence, missed, ..Fired::default() };
        let events: Vec<_> = events.iter().map(event).collect();
        assert_eq!(lost_and_doubled(occurrences, &events), expected, "{events:?}");
    };
    check(1, &[(1, 0)], (0, 0));
    check(3, &[(1, 0), (3, 1)], (0, 0));
    check(1, &[], (1, 0));
    check(3, &[(1, 0), (3, 0)], (1, 0));
    check(3, &[(2, 1)], (1, 0));
    check(1, &[(1, 0), (1, 0)], (0, 1));
    check(3, &[(2, 1), (3, 1)], (0, 1));
}

#[tokio::test]
async fn no_timer_is_lost_or_fires_twice_however_often_tasks_are_killed() {
    let kills = kills(KILLS);
    let server = NatsServer::start();
    server.bucket("game_clock", 1).await;
    server.bucket("timers", 1).await;
    server.stream("EVENTS", &[Fired::SUBJECT]).await;
    server.outboxes(&["timers"], "EVENTS").await;
    let client: TimeManagerClient = server.fleet("caller").await.client();

    let mut tasks = [task(&server), task(&server)];
    let mut expected = BTreeMap::new();
    for kill in 0..kills {
        let requests: Vec<_> = timers(kill).collect();
        let timers = requests.iter().map(|timer| ((timer.owner.clone(), timer.id.clone()), timer.occurrences.max(1)));
        expected.extend(timers);
        let create = join_all(requests.into_iter().map(|request| created(&client, request)));
        let kill = async {
            // From before it has connected until it has been firing timers for a while.
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..600_000))).await;
            tasks[fastrand::usize(..2)] = task(&server);
        };
        futures::join!(create, kill);
    }
    settled(&client, kills).await;

    let mut told: BTreeMap<(String, String), Vec<Fired>> = BTreeMap::new();
    for stored in server.stored_from(&["timers"], "EVENTS").await {
        let event = Fired::decode(stored.payload).unwrap();
        told.entry((event.owner.clone(), event.timer_id.clone())).or_default().push(event);
    }
    assert_eq!(told.len(), kills * TIMERS_PER_KILL);
    let (mut lost, mut doubled) = (0, 0);
    for (timer, occurrences) in &expected {
        let (missing, repeated) = lost_and_doubled(*occurrences, told.get(timer).map_or(&[], Vec::as_slice));
        (lost, doubled) = (lost + missing, doubled + repeated);
    }
    assert_eq!((lost, doubled), (0, 0), "occurrences lost and doubled of {} timers", expected.len());
}
