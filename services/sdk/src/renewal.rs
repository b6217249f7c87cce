//! Replaces a worker's connection before it ends: when its server is about to stop, and when the files change that it was
//! made with. The new connection is established before the old one is dropped, so no message in flight is lost.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::connection::{ConnectError, Connection, ConnectionEvent};
use crate::fleet::WeakFleet;
use crate::material::FilesDigest;
use crate::metrics;

/// Clients move off a server within this time after its lame-duck notice; the server's grace period is longer.
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// The delay between two attempts to move off a server.
const MOVE_RETRY_DELAY: Duration = Duration::from_millis(500);
/// How often files with credentials and certificates are read, on average.
const FILES_INTERVAL: Duration = Duration::from_secs(2);
/// The longest time between two attempts to connect with the same files. The first are [`FILES_INTERVAL`] apart.
const MAX_FILES_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Watches over the connection of one worker.
pub(crate) struct Renewal {
    fleet: WeakFleet,
    events: mpsc::UnboundedReceiver<ConnectionEvent>,
    /// The files that the connection was made with; `None` if it was made with none.
    used: Option<FilesDigest>,
    /// The files with which no connection could be made.
    failed: Option<FailedFiles>,
}

#[derive(Clone, Copy)]
struct FailedFiles {
    digest: FilesDigest,
    delay: Duration,
    retry_at: Instant,
}

/// Why a connection is replaced.
#[derive(Clone, Copy)]
enum Cause {
    /// Its server asked its clients to leave.
    LameDuck,
    /// There are other files now.
    Files(FilesDigest),
}

impl Renewal {
    /// `events` are those of the current connection, `used` are the files that it was made with.
    pub(crate) fn new(
        fleet: WeakFleet,
        events: mpsc::UnboundedReceiver<ConnectionEvent>,
        used: Option<FilesDigest>,
    ) -> Self {
        Self { fleet, events, used, failed: None }
    }

    /// Runs until the worker ends.
    pub(crate) async fn run(mut self) {
        while let Some(cause) = self.next_cause().await {
            match cause {
                Cause::LameDuck => {
                    sleep(MOVE_WITHIN.mul_f64(fastrand::f64())).await;
                    while let Err(error) = self.renew(cause).await {
                        tracing::warn!(%error, "no other NATS server is available yet");
                        sleep(MOVE_RETRY_DELAY).await;
                    }
                }
                Cause::Files(digest) => match self.renew(cause).await {
                    Ok(()) => self.failed = None,
                    Err(error) => self.note_failure(digest, &error),
                },
            }
        }
    }

    /// `None` when the worker has ended.
    async fn next_cause(&mut self) -> Option<Cause> {
        let files = changed_files(self.fleet.clone(), self.used, self.failed);
        tokio::select! {
            event = self.events.recv() => match event? {
                ConnectionEvent::LameDuck => Some(Cause::LameDuck),
            },
            files = files => files.map(Cause::Files),
        }
    }

    /// Connects anew. Without success, the connection stays as it is.
    async fn renew(&mut self, cause: Cause) -> Result<(), ConnectError> {
        let Some(fleet) = self.fleet.upgrade() else { return Ok(()) };
        // Before they are read: so a change in between is not overlooked.
        let files = match cause {
            Cause::Files(digest) => Some(digest),
            Cause::LameDuck => fleet.settings().connection.files_digest(),
        };
        let (sender, events) = mpsc::unbounded_channel();
        let connected = Connection::connect(fleet.settings(), sender).await;
        metrics::count_renewal(cause.label(), if connected.is_ok() { "ok" } else { "failed" });
        let connection = connected?;
        match cause {
            Cause::LameDuck => tracing::info!("moved off a NATS server in lame-duck mode"),
            Cause::Files(_) => tracing::info!("connected to NATS with new credentials or certificates"),
        }
        fleet.replace_connection(connection);
        (self.events, self.used) = (events, files);
        Ok(())
    }

    /// Logs the first failure with these files: a file may stay damaged for long.
    fn note_failure(&mut self, digest: FilesDigest, error: &ConnectError) {
        let again = self.failed.filter(|failed| failed.digest == digest);
        if again.is_none() {
            tracing::error!(
                %error,
                "failed to connect to NATS with new credentials or certificates: staying with the old connection, trying again"
            );
        }
        let delay = again.map_or(FILES_INTERVAL, |failed| (failed.delay * 2).min(MAX_FILES_RETRY_DELAY));
        self.failed = Some(FailedFiles { digest, delay, retry_at: Instant::now() + delay });
    }
}

impl Cause {
    /// For the metric.
    fn label(self) -> &'static str {
        match self {
            Self::LameDuck => "lame_duck",
            Self::Files(_) => "files",
        }
    }
}

/// Waits until the files are other ones than those that were used, and than those that failed until these are to be tried
/// again. Pending if a connection needs no files; `None` when the worker has ended.
async fn changed_files(
    fleet: WeakFleet,
    used: Option<FilesDigest>,
    failed: Option<FailedFiles>,
) -> Option<FilesDigest> {
    if used.is_none() {
        return std::future::pending().await;
    }
    loop {
        // Not in all tasks at the same time: they would all connect anew at once.
        sleep(FILES_INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
        let settings = fleet.upgrade()?.settings().connection.clone();
        // Not on the thread that serves requests. A read that is cancelled belongs to a runtime that ends.
        let digest = tokio::task::spawn_blocking(move || settings.files_digest()).await.ok()??;
        let is_waiting = failed.is_some_and(|failed| failed.digest == digest && Instant::now() < failed.retry_at);
        if used != Some(digest) && !is_waiting {
            return Some(digest);
        }
    }
}
