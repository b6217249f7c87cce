//! Tracing of this task: started once, before its workers, and stopped after them.

use std::env::VarError;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::encoding::Origin;
use super::exporter::Exporter;
use super::http::CollectorClient;
use super::queue::Queue;
use super::sampler::Sampler;
use super::settings::{self, ExportSettings};
use super::span::Record;
use crate::settings::Settings;

/// The longest time that the last spans may take, however much of the stop timeout is left.
const LAST_EXPORTS: Duration = Duration::from_secs(3);
/// Beyond the deadline of the last exports, which the exporter keeps by itself.
const GRACE: Duration = Duration::from_millis(200);

static TRACING: OnceLock<Tracing> = OnceLock::new();

#[derive(Debug)]
struct Tracing {
    sampler: Sampler,
    queue: Arc<Queue>,
    /// Resolves when the exporter has ended.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Starts to export the spans of this task if the variables of OpenTelemetry say so. What is wrong with them is logged.
pub(crate) fn start(variable: &dyn Fn(&str) -> Result<String, VarError>, task: &Settings) {
    let (settings, problems) = settings::read(variable, task);
    for problem in problems {
        tracing::warn!(problem, "tracing");
    }
    if let Some(Err(problem)) = settings.map(export) {
        tracing::error!(problem, "no spans are exported");
    }
}

fn export(settings: ExportSettings) -> Result<(), String> {
    let ExportSettings { collector, sampler, batches, resource } = settings;
    let client = CollectorClient::new(collector)?;
    let queue = Arc::new(Queue::new(batches.queue, batches.size));
    let exporter = Exporter::new(Arc::clone(&queue), client, Origin::new(resource), batches);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("failed to start a runtime: {error}"))?;
    let (end, ended) = oneshot::channel();
    let metrics = queue.metrics.clone();
    let tracing = Tracing { sampler, queue, ended: Mutex::new(Some(ended)) };
    if TRACING.set(tracing).is_err() {
        return Err("they are exported already".to_owned());
    }
    metrics.register();
    let work = move || {
        runtime.block_on(exporter.run());
        // Nobody may be waiting.
        let _ = end.send(());
    };
    let spawned = thread::Builder::new().name("spans".to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| format!("failed to start a thread: {error}"))
}

/// Exports the spans that are left, for at most `time` and 3 s.
pub(crate) async fn stop(time: Duration) {
    let Some(tracing) = TRACING.get() else { return };
    let deadline = Instant::now() + time.min(LAST_EXPORTS);
    let lost_before = tracing.queue.metrics.lost();
    tracing.queue.close(deadline);
    let ended = tracing.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(ended) = ended
        && tokio::time::timeout_at(deadline + GRACE, ended).await.is_err()
    {
        tracing::warn!("the last spans were not exported in time");
    }
    let lost = tracing.queue.metrics.lost() - lost_before;
    if lost > 0 {
        tracing::warn!(lost, "spans were lost at the end");
    }
}

/// The sampler of this task.
pub(super) fn sampler() -> Sampler {
    TRACING.get().map_or(Sampler::WITHOUT_EXPORTER, |tracing| tracing.sampler)
}

/// Whether there is an exporter for what is recorded.
pub(super) fn is_exporting() -> bool {
    TRACING.get().is_some()
}

/// Hands a span to the exporter.
pub(super) fn record(span: Box<Record>) {
    if let Some(tracing) = TRACING.get() {
        tracing.queue.push(span);
    }
}
