//! What is done to an environment besides plans is in its history, too.

use super::history::Record;
use super::run::Platform;
use crate::screen::note;

/// Does something whose beginning and end the history shows. The lock must be held.
///
/// # Errors
/// It failed, or the history cannot be written.
pub(super) async fn run<P: Platform, T>(
    platform: &P,
    record: &mut Record,
    work: impl AsyncFnOnce(&mut Record) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    platform.put_record(record).await?;
    let outcome = work(record).await;
    if let Some(step) = record.steps.last_mut().filter(|step| outcome.is_err() && step.result == "started") {
        "failed".clone_into(&mut step.result);
    }
    record.end(&outcome);
    let recorded = platform.put_record(record).await;
    // Why it failed is worth more than that it could not be recorded, which often has the same reason.
    if let (Err(_), Err(error)) = (&outcome, &recorded) {
        note(&format!("the history will not show how this ended: {error:#}"));
    }
    let done = outcome?;
    recorded?;
    Ok(done)
}
