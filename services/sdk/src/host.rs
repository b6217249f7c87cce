//! A task: its worker threads, its signals, its end.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use proto::rpc::{Error, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::fleet::Fleet;
use crate::settings::Settings;
use crate::{health, logging, serve, sockets};

/// The order to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The order, and who gives it: send `true`.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether the task should stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the task should stop.
    pub async fn requested(&self) {
        // When nobody is left to give the order it is as good as given.
        let _ = self.0.clone().wait_for(|requested| *requested).await;
    }
}

/// A service's whole `main`: `build` makes the service on each worker, and this serves it until SIGTERM; then it takes no new
/// request, finishes what it has taken, and exits with 0.
///
/// As `healthcheck` it asks the running task in the same container whether it lives.
pub fn run<S: Server, F>(build: impl Fn(Fleet) -> F + Send + Sync + 'static) -> ExitCode
where
    F: Future<Output = Result<S, Error>>,
{
    host(move |fleet, stop| {
        let built = build(fleet.clone());
        async move { serve::serve(&fleet, built.await?, stop).await }
    })
}

/// Like [`run`], without a server in it: `body` runs on each worker until `stop` is requested and it has finished what it had
/// begun. It calls [`Fleet::takes_requests`] when it is ready.
pub fn host<F>(body: impl Fn(Fleet, Stop) -> F + Send + Sync + 'static) -> ExitCode
where
    F: Future<Output = Result<(), Error>>,
{
    if std::env::args().nth(1).as_deref() == Some("healthcheck") {
        return health::check();
    }
    logging::init();
    let outcome = Settings::from_env().and_then(|settings| run_task(settings, Arc::new(body)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the task cannot run");
            ExitCode::FAILURE
        }
    }
}

fn run_task<B, F>(settings: Settings, body: Arc<B>) -> Result<(), String>
where
    B: Fn(Fleet, Stop) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Error>>,
{
    health::expect(settings.workers);
    let (order, stop) = Stop::new();
    let (ended, mut ends) = mpsc::unbounded_channel();
    for number in 0..settings.workers {
        let (settings, body, stop, ended) = (settings.clone(), Arc::clone(&body), stop.clone(), ended.clone());
        let work = move || {
            let result = to_its_end(|| work(settings, &*body, stop));
            // The task may have given up waiting.
            let _ = ended.send(result);
        };
        let spawned = thread::Builder::new().name(format!("worker-{number}")).spawn(work);
        spawned.map_err(|error| format!("failed to start a worker: {error}"))?;
    }
    drop(ended);
    runtime()?.block_on(async move {
        let listener = sockets::health_listener().map_err(|error| error.to_string())?;
        tokio::spawn(health::serve(listener));
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let first = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            result = ends.recv() => result,
        };
        health::stopping();
        order.send_replace(true);
        tracing::info!("stopping");
        let rest = async {
            let mut outcome = first.unwrap_or(Ok(()));
            while let Some(result) = ends.recv().await {
                outcome = outcome.and(result);
            }
            outcome
        };
        match tokio::time::timeout(settings.stop_timeout, rest).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "requests were still running {} s after the order to stop",
                settings.stop_timeout.as_secs()
            )),
        }
    })
}

/// A worker that panics has failed, and its task with it: what is left of it would serve with fewer workers than it says.
fn to_its_end(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err("a worker panicked".to_owned()))
}

/// One worker from its connection to its end.
fn work<F>(settings: Settings, body: &impl Fn(Fleet, Stop) -> F, stop: Stop) -> Result<(), String>
where
    F: Future<Output = Result<(), Error>>,
{
    runtime()?.block_on(async move {
        let fleet = tokio::select! {
            fleet = Fleet::connect(settings) => fleet.map_err(|error| error.message().to_owned())?,
            () = stop.requested() => return Ok(()),
        };
        fleet.watch_health();
        body(fleet, stop).await.map_err(|error| error.to_string())
    })
}

/// A runtime on this thread alone: around one connection it answers half as many requests again as one that spreads over threads.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| format!("failed to start a runtime: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_has_failed() {
        assert_eq!(to_its_end(|| panic!("no")), Err("a worker panicked".to_owned()));
        assert_eq!(to_its_end(|| Ok(())), Ok(()));
    }
}
