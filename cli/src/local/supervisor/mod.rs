//! The supervisor: one process per environment that owns all others. It outlives the command that started it; nothing outlives it.

mod backoff;
mod node;
pub(super) mod probe;
mod process;
mod record;
mod requests;
mod service;
mod socket;
mod task;
mod world;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub(super) use record::{Records, at_rest};
use world::{Event, World};

use super::dir::Dir;

/// How often logs are measured.
const LOG_CHECK: Duration = Duration::from_secs(5);

/// Supervises the environment of a state directory until it is told to end. Call it from a thread that has no runtime: the main one.
pub fn main(state_dir: &Path) -> anyhow::Result<ExitCode> {
    // Fails if it was started by hand and leads its process group, and is not needed then.
    let _ = rustix::process::setsid();
    let filter = tracing_subscriber::filter::LevelFilter::INFO;
    let format = tracing_subscriber::fmt().with_ansi(false).with_writer(io::stderr).with_max_level(filter);
    let _ = format.try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(state_dir, shim()?))?;
    Ok(ExitCode::SUCCESS)
}

/// On Linux this very binary, even if its file has been replaced by a build in the meantime.
fn shim() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// The same on the caller's runtime, which must have a single thread. `shim` is a program that calls [`super::shim::main`] when its first
/// argument is `shim`.
pub async fn run(state_dir: &Path, shim: PathBuf) -> anyhow::Result<()> {
    let dir = Dir::new(state_dir)?;
    dir.create().with_context(|| format!("failed to create `{}`", dir.path().display()))?;
    let _lock = lock(&dir)?;
    let records = Records::load(&dir)?;

    let (events, mut happened) = mpsc::unbounded_channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut log_check = interval(LOG_CHECK);
    log_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let socket = socket::Socket::listen(&dir, events.clone())?;
    let mut world = World::new(dir, shim, events, records.unwrap_or_default());
    tracing::info!(pid = std::process::id(), "supervisor started");

    world.reconcile();
    while !world.is_over() {
        let deadline = world.deadline();
        tokio::select! {
            Some(event) = happened.recv() => world.handle(event),
            () = sleep_until(deadline.map_or_else(Instant::now, Instant::from_std)), if deadline.is_some() => {}
            _ = log_check.tick() => world.bound_logs(),
            _ = terminate.recv() => world.handle(Event::Halt),
            _ = interrupt.recv() => world.handle(Event::Halt),
        }
        // After every event, so that no answer describes something half done.
        world.reconcile();
    }
    socket.close().await;
    tracing::info!("supervisor ended");
    Ok(())
}

/// Held until it is dropped, by the system too: a supervisor that was killed leaves no lock.
fn lock(dir: &Dir) -> anyhow::Result<File> {
    let path = dir.lock();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("failed to open `{}`", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another supervisor runs in `{}`", dir.path().display());
    }
    Ok(file)
}
