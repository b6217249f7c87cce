//! `/livez`, `/readyz` and `/metrics` of the task, and the `healthcheck` command for containers without a shell.
//!
//! Liveness means that no worker thread is blocked. It does not depend on NATS: otherwise an outage of NATS would kill
//! every task.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::fleet::Fleet;
use crate::metrics::metrics_text;
use crate::sockets;

/// A worker thread without a heartbeat for this long is blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(10);
/// The interval of a worker's heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The timeout of `healthcheck`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether every worker accepts requests and is connected.
pub fn is_ready() -> bool {
    state().not_ready().is_none()
}

#[derive(Default)]
struct State {
    expected: OnceLock<usize>,
    workers: Mutex<Vec<Arc<WorkerHealth>>>,
    stopping: AtomicBool,
}

/// The health of one worker.
#[derive(Debug)]
pub(crate) struct WorkerHealth {
    fleet: Fleet,
    ready: AtomicBool,
    heartbeat: Mutex<Instant>,
}

fn state() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(State::default)
}

/// Sets the number of workers that must be ready before the task is.
pub(crate) fn set_worker_count(workers: usize) {
    // A process hosts one task.
    let _ = state().expected.set(workers);
}

/// Marks the task as stopping, and therefore as not ready.
pub(crate) fn set_stopping() {
    state().stopping.store(true, Ordering::Relaxed);
}

/// Registers a connected worker, and starts its heartbeat on its own runtime.
pub(crate) fn register(fleet: Fleet) -> Arc<WorkerHealth> {
    let worker = Arc::new(WorkerHealth { fleet, ready: AtomicBool::new(false), heartbeat: Mutex::new(Instant::now()) });
    state().workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&worker));
    let heart = Arc::clone(&worker);
    tokio::spawn(async move {
        loop {
            *heart.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        }
    });
    worker
}

impl WorkerHealth {
    /// Marks the worker as accepting requests.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping".to_owned());
        }
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = self.expected.get().copied().unwrap_or(1);
        let serving = workers.iter().filter(|worker| worker.ready.load(Ordering::Relaxed)).count();
        let connected = workers.iter().filter(|worker| worker.fleet.is_connected()).count();
        (serving < expected || connected < expected)
            .then(|| format!("{serving} of {expected} workers accept requests, {connected} are connected to NATS"))
    }

    fn blocked(&self) -> Option<String> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = workers
            .iter()
            .map(|worker| worker.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).elapsed())
            .max()?;
        (oldest > BLOCKED_AFTER).then(|| format!("a worker thread has been blocked for {} s", oldest.as_secs()))
    }
}

/// Serves the health endpoints until the process ends.
pub(crate) async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let answer = |problem: Option<String>| match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let router = Router::new()
        .route("/livez", get(async move || answer(state().blocked())))
        .route("/readyz", get(async move || answer(state().not_ready())))
        .route("/metrics", get(async || metrics_text()));
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

/// The container's health check: requests `/livez` on the health address of this task.
pub(crate) fn check() -> ExitCode {
    match probe(&sockets::health_address()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn probe(address: &str) -> std::io::Result<bool> {
    use std::net::ToSocketAddrs as _;
    let address = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, CHECK_TIMEOUT)?;
    connection.set_read_timeout(Some(CHECK_TIMEOUT))?;
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status_line = [0; 12];
    connection.read_exact(&mut status_line)?;
    Ok(&status_line == b"HTTP/1.1 200")
}
