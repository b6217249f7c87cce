//! Work that goes on when the request that caused it is answered: a worker that stops waits for it.

use std::sync::OnceLock;

use tokio::sync::watch;

use crate::context::context;
use crate::fleet::Fleet;
use crate::task::Shutdown;

/// What a worker does besides requests.
#[derive(Debug)]
pub(crate) struct Background {
    running: watch::Sender<usize>,
    /// Absent in tests, where no task stops.
    shutdown: OnceLock<Shutdown>,
}

impl Default for Background {
    fn default() -> Self {
        Self { running: watch::Sender::new(0), shutdown: OnceLock::new() }
    }
}

impl Background {
    pub(crate) fn end_with(&self, shutdown: Shutdown) {
        self.shutdown.get_or_init(|| shutdown);
    }

    /// Waits until nothing is running.
    pub(crate) async fn finished(&self) {
        // The sender is not dropped while it is borrowed.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Counts work for as long as it exists, also when it panics.
struct Counted(Fleet);

impl Counted {
    fn new(fleet: &Fleet) -> Self {
        fleet.background().running.send_modify(|running| *running += 1);
        Self(fleet.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.background().running.send_modify(|running| *running -= 1);
    }
}

impl Fleet {
    /// Does something in the context of the current request, also when that is answered. A worker that stops waits for it, as
    /// long as for requests: what takes longer has to heed [`Fleet::is_stopping`].
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let counted = Counted::new(self);
        tokio::spawn(context().scope(async move {
            work.await;
            drop(counted);
        }));
    }

    /// Whether the worker was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.background().shutdown.get().is_some_and(Shutdown::is_requested)
    }

    /// Waits until the worker is asked to stop.
    pub async fn stopping(&self) {
        match self.background().shutdown.get() {
            Some(shutdown) => shutdown.requested().await,
            None => std::future::pending().await,
        }
    }
}
