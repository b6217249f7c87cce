//! Clients that ask the gateway all the time, about a hundred times per second together, and count what fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::fleet::eventually;
use super::http::Http;

const CLIENTS: usize = 10;
const EVERY: Duration = Duration::from_millis(100);

/// More failures than these say nothing more.
const MOST_SHOWN: usize = 10;

pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Tally>>,
    answered: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Tally {
    /// When, and why.
    failed: Vec<(Duration, String)>,
    /// How long each answer took.
    waits: Vec<Duration>,
}

/// How long answers took.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) longest: Duration,
    /// 99.9 % came within this time.
    pub(crate) p999: Duration,
}

/// What the clients ask, each time.
pub(crate) type Questions = fn(usize) -> (&'static str, Value);

/// Requests that may be sent again when it is not known what became of them.
pub(crate) fn idempotent(number: usize) -> (&'static str, Value) {
    let player = format!("player{}", number % 50);
    match number % 4 {
        0 => ("/api/quest/v1/generate", json!({ "playerId": player, "level": 7 })),
        1 => ("/api/quest/v1/list", json!({ "playerId": player })),
        2 => ("/api/ai/model/v1/list", json!({})),
        _ => ("/api/state/manager/v1/update", json!({ "key": { "kind": "KIND_PLAYER", "id": player }, "merge": {} })),
    }
}

/// Requests that can go on for any time: of quests, a player may have only so many.
pub(crate) fn lasting(number: usize) -> (&'static str, Value) {
    idempotent(if number.is_multiple_of(4) { number + 3 } else { number })
}

/// These, and the others too.
pub(crate) fn everything(number: usize) -> (&'static str, Value) {
    let chore = json!({ "name": "work", "cost": 1, "effects": { "done": 1 } });
    match number % 6 {
        4 => ("/api/ai/llm/v1/infer", json!({ "prompt": "the king", "sampling": { "maxTokens": 8 } })),
        5 => ("/api/npc/behavior/v1/plan", json!({ "npcId": "smith", "goal": { "done": 1 }, "actions": [chore] })),
        _ => idempotent(number),
    }
}

impl Load {
    pub(crate) fn start(gateway: &Http, questions: Questions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicUsize::new(0));
        let client = |first: usize| {
            let client = ask(gateway.another(), questions, first, Arc::clone(&answered), stopped.clone());
            tokio::spawn(client)
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop, answered }
    }

    /// Ends it when so many requests have come to an end, and expects that none has failed.
    pub(crate) async fn ends_without_a_failure(self, at_least: usize) -> Waits {
        let enough = || async { (self.answered.load(Ordering::Relaxed) >= at_least).then_some(()) };
        eventually("enough requests have come to an end", enough).await;
        self.stop.send_replace(true);
        let (mut failed, mut waits) = (Vec::new(), Vec::new());
        for client in self.clients {
            let tally = client.await.unwrap();
            failed.extend(tally.failed);
            waits.extend(tally.waits);
        }
        failed.sort();
        waits.sort();
        let p999 = waits.get(waits.len() * 999 / 1000).copied().unwrap_or_default();
        let longest = waits.last().copied().unwrap_or_default();
        let (count, all) = (failed.len(), self.answered.load(Ordering::Relaxed));
        failed.truncate(MOST_SHOWN);
        assert!(count == 0, "{count} of {all} failed, the longest took {longest:?}; the first: {failed:#?}");
        Waits { longest, p999 }
    }
}

async fn ask(
    mut gateway: Http,
    questions: Questions,
    first: usize,
    answered: Arc<AtomicUsize>,
    stopped: watch::Receiver<bool>,
) -> Tally {
    let mut tally = Tally::default();
    let start = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0.. {
        ticks.tick().await;
        if *stopped.borrow() {
            break;
        }
        let (path, body) = questions(first + turn * (CLIENTS + 1));
        let began = Instant::now();
        match gateway.post(path, &body).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => tally.failed.push((began - start, format!("{path}: {} {}", answer.status, answer.body))),
            Err(error) => tally.failed.push((began - start, format!("{path}: {error}"))),
        }
        answered.fetch_add(1, Ordering::Relaxed);
        tally.waits.push(began.elapsed());
    }
    tally
}
