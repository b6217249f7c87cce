//! What must still be done when a command has ended, also early: by an error, or by Ctrl-C, which drops whatever is under way. Values
//! leave it here when they are dropped, as dropping cannot wait.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

static LEFT: Mutex<Vec<Work>> = Mutex::new(Vec::new());

/// Does it when the command has ended.
pub(crate) fn leave(work: impl Future<Output = ()> + Send + 'static) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
}

/// Does what was left.
pub(crate) async fn finish() {
    let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    if tokio::time::timeout(PATIENCE, join_all(left)).await.is_err() {
        tracing::warn!("what should have been done at the end was not");
    }
}
