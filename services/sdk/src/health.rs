//! `/livez`, `/readyz` and `/metrics` of the task, and the `healthcheck` that a container without a shell can run.
//!
//! Liveness says that the worker threads turn; it does not depend on NATS, or one outage of NATS would kill every task.

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

/// A worker thread that did not turn for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// How often a worker shows that it turns.
const BEAT: Duration = Duration::from_secs(1);
/// How long `healthcheck` waits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether every worker takes requests and has its connection.
pub fn is_ready() -> bool {
    state().not_ready().is_none()
}

#[derive(Default)]
struct State {
    expected: OnceLock<usize>,
    workers: Mutex<Vec<Arc<WorkerHealth>>>,
    stopping: AtomicBool,
}

/// What one worker tells of itself.
#[derive(Debug)]
pub(crate) struct WorkerHealth {
    fleet: Fleet,
    takes_requests: AtomicBool,
    beat: Mutex<Instant>,
}

fn state() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(State::default)
}

/// The task is ready when this many workers are.
pub(crate) fn expect(workers: usize) {
    // A process hosts one task.
    let _ = state().expected.set(workers);
}

/// The task finishes what it has begun, and takes nothing new.
pub(crate) fn stopping() {
    state().stopping.store(true, Ordering::Relaxed);
}

/// Registers a worker that is connected, and keeps its heart beating on its own runtime.
pub(crate) fn watch(fleet: Fleet) -> Arc<WorkerHealth> {
    let worker =
        Arc::new(WorkerHealth { fleet, takes_requests: AtomicBool::new(false), beat: Mutex::new(Instant::now()) });
    state().workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&worker));
    let beating = Arc::clone(&worker);
    tokio::spawn(async move {
        loop {
            *beating.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tokio::time::sleep(BEAT).await;
        }
    });
    worker
}

impl WorkerHealth {
    /// The worker takes requests from now on.
    pub(crate) fn takes_requests(&self) {
        self.takes_requests.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping".to_owned());
        }
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = self.expected.get().copied().unwrap_or(1);
        let serving = workers.iter().filter(|worker| worker.takes_requests.load(Ordering::Relaxed)).count();
        let connected = workers.iter().filter(|worker| worker.fleet.is_connected()).count();
        (serving < expected || connected < expected)
            .then(|| format!("{serving} of {expected} workers take requests, {connected} are connected to NATS"))
    }

    fn stuck(&self) -> Option<String> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest =
            workers.iter().map(|worker| worker.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed()).max()?;
        (oldest > STUCK).then(|| format!("a worker has not turned for {} s", oldest.as_secs()))
    }
}

/// Answers until the process ends.
pub(crate) async fn serve(listener: std::net::TcpListener) -> std::io::Result<()> {
    let answer = |problem: Option<String>| match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let router = Router::new()
        .route("/livez", get(async move || answer(state().stuck())))
        .route("/readyz", get(async move || answer(state().not_ready())))
        .route("/metrics", get(async || metrics_text()));
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

/// What the container runs to learn whether its task lives: asks `/livez` of this task's health address.
pub(crate) fn check() -> ExitCode {
    match ask(&sockets::health_address()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn ask(address: &str) -> std::io::Result<bool> {
    use std::net::ToSocketAddrs as _;
    let address = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, CHECK_TIMEOUT)?;
    connection.set_read_timeout(Some(CHECK_TIMEOUT))?;
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status_line = [0; 12];
    connection.read_exact(&mut status_line)?;
    Ok(&status_line == b"HTTP/1.1 200")
}
