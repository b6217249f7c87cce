//! What became of the spans.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::metrics::register_metrics;

/// The metrics of the exporter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    exported: Counter,
    dropped: Family<[(&'static str, &'static str); 1], Counter>,
    failed_exports: Counter,
}

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// They came faster than they could be exported.
    QueueFull,
    /// The collector did not take them.
    ExportFailed,
    /// The collector took their batch, and not them.
    Rejected,
    /// The task ended first.
    Shutdown,
}

impl Metrics {
    /// Adds them to those of the task.
    pub(crate) fn register(&self) {
        register_metrics(|registry| {
            registry.register("spans_exported", "Spans that the collector has accepted", self.exported.clone());
            registry.register("spans_dropped", "Spans that were lost, by reason", self.dropped.clone());
            registry.register(
                "span_export_failures",
                "Requests to the collector that failed, those that were repeated too",
                self.failed_exports.clone(),
            );
        });
        // A series that appears with its first value hides its first increase.
        for reason in [Reason::QueueFull, Reason::ExportFailed, Reason::Rejected, Reason::Shutdown] {
            self.dropped(reason, 0);
        }
    }

    pub(crate) fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    pub(crate) fn dropped(&self, reason: Reason, spans: u64) {
        let reason = match reason {
            Reason::QueueFull => "queue_full",
            Reason::ExportFailed => "export_failed",
            Reason::Rejected => "rejected",
            Reason::Shutdown => "shutdown",
        };
        self.dropped.get_or_create(&[("reason", reason)]).inc_by(spans);
    }

    pub(crate) fn failed_export(&self) {
        self.failed_exports.inc();
    }

    /// How many spans were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        ["queue_full", "export_failed", "rejected", "shutdown"]
            .map(|reason| self.dropped.get_or_create(&[("reason", reason)]).get())
            .iter()
            .sum()
    }
}
