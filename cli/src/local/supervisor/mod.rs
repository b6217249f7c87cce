//! The supervisor: one process per environment, the parent of all others. It outlives the command that started it, and no process outlives
//! the supervisor.

mod backoff;
mod node;
pub(super) mod probe;
mod process;
mod reconcile;
mod requests;
mod saved_state;
mod service;
mod socket;
mod span_receiver;
mod span_store;
mod task;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub(super) use node::LEAVE_TIMEOUT;
use reconcile::{Event, Supervisor};
pub(super) use saved_state::SavedState;

use super::dir::Dir;
use crate::error::Hinted;

/// How often the sizes of logs are checked.
const LOG_ROTATION: Duration = Duration::from_secs(5);

/// How often it is checked whether the socket is still there.
const SOCKET_CHECK: Duration = Duration::from_secs(1);

/// Supervises the environment of a state directory until it is shut down. Must be called on the main thread, outside of a runtime.
pub fn main(state_dir: &Path) -> anyhow::Result<ExitCode> {
    // Fails when the process already leads its process group, as under a shell, and is not needed then.
    let _ = rustix::process::setsid();
    let filter = tracing_subscriber::filter::LevelFilter::INFO;
    // A line that cannot be written, because the disk is full, must not become a panic: it would end everything that runs.
    let format = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
    let _ = format.with_writer(io::stderr).with_max_level(filter).try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(state_dir, shim()?))?;
    Ok(ExitCode::SUCCESS)
}

/// The running binary. On Linux that holds even when a build has replaced its file.
fn shim() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Like [`main`], on the caller's runtime, which must be single-threaded. `shim` is a program that calls [`super::shim::main`] when its first
/// argument is `shim`.
pub async fn run(state_dir: &Path, shim: PathBuf) -> anyhow::Result<()> {
    let dir = Dir::new(state_dir)?;
    dir.create()?;
    let _lock = lock(&dir)?;
    let state = SavedState::load(&dir)?;

    let (events, mut receiver) = mpsc::unbounded_channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut log_rotation = interval(LOG_ROTATION);
    log_rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut socket_check = interval(SOCKET_CHECK);
    socket_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut socket = socket::Socket::listen(&dir, events.clone())?;
    let mut supervisor = Supervisor::new(dir.clone(), shim, events.clone(), state.unwrap_or_default());
    tracing::info!(pid = std::process::id(), "supervisor started");

    supervisor.reconcile();
    while !supervisor.has_ended() {
        let deadline = supervisor.deadline();
        tokio::select! {
            Some(event) = receiver.recv() => supervisor.handle(event),
            () = sleep_until(deadline.map_or_else(Instant::now, Instant::from_std)), if deadline.is_some() => {}
            _ = log_rotation.tick() => supervisor.rotate_logs(),
            _ = socket_check.tick() => socket.restore(&dir, &events),
            _ = terminate.recv() => supervisor.handle(Event::Terminated),
            _ = interrupt.recv() => supervisor.handle(Event::Terminated),
        }
        // After every event, so that a client never sees an event without its effects.
        supervisor.reconcile();
    }
    socket.close().await;
    tracing::info!("supervisor ended");
    Ok(())
}

/// The lock lasts as long as the file is open: a supervisor that was killed leaves none.
fn lock(dir: &Dir) -> anyhow::Result<File> {
    let path = dir.lock();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| {
        let message = format!("failed to open `{}`", path.display());
        Hinted::new(message, "if it is no file, remove it: it holds nothing").because(error)
    })?;
    if file.try_lock().is_err() {
        bail!("another supervisor runs in `{}`", dir.path().display());
    }
    Ok(file)
}
