//! Metrics of consumed events.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::delivery::Outcome;
use crate::metrics::{BUCKETS, register_metrics};

type Labels<const COUNT: usize> = [(&'static str, String); COUNT];

struct Families {
    events: Family<Labels<2>, Counter>,
    durations: Family<Labels<1>, Histogram>,
    interrupted: Family<Labels<1>, Gauge>,
}

fn families() -> &'static Families {
    static FAMILIES: OnceLock<Families> = OnceLock::new();
    FAMILIES.get_or_init(|| {
        let families = Families {
            events: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            interrupted: Family::default(),
        };
        register_metrics(|registry| {
            registry.register(
                "events",
                "Events that were delivered, by event and outcome: handled, retried, dead_letter",
                families.events.clone(),
            );
            registry.register(
                "event_duration_seconds",
                "From the delivery of an event to its acknowledgement",
                families.durations.clone(),
            );
            registry.register(
                "consumers_interrupted",
                "Workers whose consumer or stream of an event cannot be used",
                families.interrupted.clone(),
            );
        });
        families
    })
}

/// The metrics of one event in one worker.
pub(super) struct ConsumerMetrics {
    handled: Counter,
    retried: Counter,
    dead_letters: Counter,
    duration: Histogram,
    interrupted: Gauge,
    is_interrupted: AtomicBool,
}

impl ConsumerMetrics {
    pub(super) fn new(event: &str) -> Self {
        let label = || ("event", event.to_owned());
        let events =
            |outcome: &str| families().events.get_or_create(&[label(), ("outcome", outcome.to_owned())]).clone();
        Self {
            handled: events("handled"),
            retried: events("retried"),
            dead_letters: events("dead_letter"),
            duration: families().durations.get_or_create(&[label()]).clone(),
            interrupted: families().interrupted.get_or_create(&[label()]).clone(),
            is_interrupted: AtomicBool::new(false),
        }
    }

    pub(super) fn record(&self, outcome: Outcome, took: Duration) {
        let counter = match outcome {
            Outcome::Handled => &self.handled,
            Outcome::Retried => &self.retried,
            Outcome::DeadLetter => &self.dead_letters,
        };
        counter.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Notes whether the consumer or the stream can be used.
    pub(super) fn set_interrupted(&self, interrupted: bool) {
        if self.is_interrupted.swap(interrupted, Ordering::Relaxed) != interrupted {
            if interrupted {
                self.interrupted.inc()
            } else {
                self.interrupted.dec()
            };
        }
    }
}
