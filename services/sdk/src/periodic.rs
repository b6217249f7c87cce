//! What a service does again and again by itself, without a request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use proto::rpc::Error;

use crate::context::Context;
use crate::fleet::Fleet;
use crate::panics;
use crate::task::Shutdown;

/// The most that one turn takes: it is ended then, and its error is logged.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Work that every worker of every task does again and again: what it does must be safe if several do it at once, as changes
/// by compare-and-set are.
pub trait Periodic: Send + Sync + 'static {
    /// The pause between two turns, apart from jitter.
    const INTERVAL: Duration;

    /// One turn. It is ended after 30 seconds. An error or a panic is logged, and the next turn comes as usual.
    fn turn(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Items that a turn changes at the same time.
const CONCURRENT: usize = 16;

/// Does the same for many items, some of them at the same time. Every item is tried.
///
/// # Errors
/// One of those that occurred.
pub async fn each<T, F>(items: impl IntoIterator<Item = T>, run: impl FnMut(T) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let outcomes: Vec<_> = stream::iter(items.into_iter().map(run)).buffer_unordered(CONCURRENT).collect().await;
    outcomes.into_iter().collect()
}

/// Takes turns until `shutdown` is requested; the turn that is under way is finished.
pub(crate) async fn run<T: Periodic>(fleet: Fleet, service: Arc<T>, shutdown: Shutdown) {
    let mut is_failing = false;
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            // With jitter, so that the workers of a fleet do not all work at once.
            () = tokio::time::sleep(T::INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
        }
        let turn = Context::root(TIMEOUT).scope(AssertUnwindSafe(service.turn()).catch_unwind());
        let outcome = match tokio::time::timeout(TIMEOUT, turn).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(Error::internal(format_args!("the service panicked: {}", panics::message(&*panic)))),
            Err(_) => Err(Error::unavailable(format_args!("it took longer than {TIMEOUT:?}"))),
        };
        // Once, not in every turn, for as long as it lasts.
        if let Some(error) = outcome.as_ref().err().filter(|_| !is_failing) {
            let service = &fleet.settings().service;
            tracing::error!(service, %error, "what the service does periodically failed, trying again");
        }
        is_failing = outcome.is_err();
    }
}
