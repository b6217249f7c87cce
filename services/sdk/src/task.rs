//! A task: its worker threads, its signals and its shutdown.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use proto::rpc::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::settings::Settings;
use crate::{health, logging, sockets, trace};

/// Tells workers when to shut down. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Creates a shutdown signal and its sender. Sending `true` requests the shutdown.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether a shutdown was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until a shutdown is requested.
    pub async fn requested(&self) {
        // A dropped sender counts as a request.
        let _ = self.0.clone().wait_for(|requested| *requested).await;
    }
}

/// The whole `main` of a task: `body` runs on each worker until SIGTERM. It calls [`Fleet::set_ready`] when it is ready, and
/// returns when the shutdown is requested and its work is finished. Then the task exits with 0.
///
/// With the argument `healthcheck` it checks the liveness of the task in the same container instead.
pub fn run_workers<F>(body: impl Fn(Fleet, Shutdown) -> F + Send + Sync + 'static) -> ExitCode
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
            tracing::error!(error, "the task failed");
            ExitCode::FAILURE
        }
    }
}

fn run_task<B, F>(settings: Settings, body: Arc<B>) -> Result<(), String>
where
    B: Fn(Fleet, Shutdown) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Error>>,
{
    health::set_worker_count(settings.workers);
    trace::start(&|name| std::env::var(name), &settings);
    let (trigger, shutdown) = Shutdown::new();
    let (result_sender, mut results) = mpsc::unbounded_channel();
    for number in 0..settings.workers {
        let (settings, body, shutdown, result_sender) =
            (settings.clone(), Arc::clone(&body), shutdown.clone(), result_sender.clone());
        let work = move || {
            let result = catch_panic(|| run_worker(settings, &*body, shutdown));
            // The task may have stopped waiting for its workers.
            let _ = result_sender.send(result);
        };
        let spawned = thread::Builder::new().name(format!("worker-{number}")).spawn(work);
        spawned.map_err(|error| format!("failed to start a worker: {error}"))?;
    }
    drop(result_sender);
    runtime()?.block_on(async move {
        let listener = sockets::health_listener().map_err(|error| error.to_string())?;
        tokio::spawn(health::serve(listener));
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let first = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            result = results.recv() => result,
        };
        health::set_stopping();
        trigger.send_replace(true);
        tracing::info!("stopping");
        let rest = async {
            let mut outcome = first.unwrap_or(Ok(()));
            while let Some(result) = results.recv().await {
                outcome = outcome.and(result);
            }
            outcome
        };
        let deadline = Instant::now() + settings.stop_timeout;
        let outcome = tokio::time::timeout_at(deadline, rest).await.unwrap_or_else(|_| {
            let seconds = settings.stop_timeout.as_secs();
            Err(format!("requests were still running {seconds} s after the shutdown was requested"))
        });
        trace::stop(deadline.saturating_duration_since(Instant::now())).await;
        outcome
    })
}

/// A panic of one worker fails the task: otherwise it would go on with fewer workers than it reports.
fn catch_panic(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err("a worker panicked".to_owned()))
}

/// Runs one worker: connects, and then runs `body` to its end.
fn run_worker<F>(settings: Settings, body: &impl Fn(Fleet, Shutdown) -> F, shutdown: Shutdown) -> Result<(), String>
where
    F: Future<Output = Result<(), Error>>,
{
    runtime()?.block_on(async move {
        let fleet = tokio::select! {
            fleet = Fleet::connect(settings) => fleet.map_err(|error| error.message().to_owned())?,
            () = shutdown.requested() => return Ok(()),
        };
        fleet.register_health();
        body(fleet, shutdown).await.map_err(|error| error.to_string())
    })
}

/// A current-thread runtime: with one connection, it answers 1.5 times as many requests as a multi-thread runtime.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| format!("failed to start a runtime: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_worker_is_an_error() {
        assert_eq!(catch_panic(|| panic!("no")), Err("a worker panicked".to_owned()));
        assert_eq!(catch_panic(|| Ok(())), Ok(()));
    }
}
