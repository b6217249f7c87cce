//! Prometheus metrics of the task. Counters on the request path are looked up once, not for each request.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use proto::rpc::{Code, Error, Method, Service};

/// Histogram buckets in seconds, from 0.1 ms to the longest deadline.
pub(crate) const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The task's metrics in the Prometheus text format.
pub fn metrics_text() -> String {
    let mut out = String::new();
    let registry = task_metrics().registry.lock().unwrap_or_else(PoisonError::into_inner);
    // Writing to a string does not fail.
    let _ = encode(&mut out, &registry);
    out
}

/// Registers metrics of the service itself.
pub fn register_metrics(register: impl FnOnce(&mut Registry)) {
    register(&mut task_metrics().registry.lock().unwrap_or_else(PoisonError::into_inner));
}

struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    calls: Family<Labels, Counter>,
    in_flight: Gauge,
    circuits: Family<[(&'static str, &'static str); 1], Gauge>,
    unreadable: Family<[(&'static str, String); 1], Counter>,
    refused: Counter,
    renewals: Family<[(&'static str, &'static str); 2], Counter>,
}

/// The label `method` and, where an outcome is counted, `code`: `OK` or the name of the error's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Labels {
    method: &'static str,
    code: Option<&'static str>,
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("method", self.method).encode(encoder.encode_label())?;
        self.code.map_or(Ok(()), |code| ("code", code).encode(encoder.encode_label()))
    }
}

fn task_metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register("requests", "Requests answered, by method and outcome", requests.clone());
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        registry.register("request_duration_seconds", "From receiving a request to its response", durations.clone());
        let calls = Family::default();
        registry.register("calls", "Calls to other services, every attempt, by method and outcome", calls.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests being handled", in_flight.clone());
        let circuits = Family::default();
        registry.register(
            "circuit_open",
            "Workers whose circuit breaker rejects calls, by destination",
            circuits.clone(),
        );
        let unreadable = Family::default();
        registry.register("unreadable_records", "Records that a listing skipped, by bucket", unreadable.clone());
        let refused = Counter::default();
        registry.register(
            "refused_requests",
            "Requests that were not carried out because their reply subject is no inbox of their caller",
            refused.clone(),
        );
        let renewals = Family::default();
        registry.register(
            "connection_renewals",
            "Attempts to replace a connection to NATS before it ends, by cause and outcome",
            renewals.clone(),
        );
        Metrics {
            registry: Mutex::new(registry),
            requests,
            durations,
            calls,
            in_flight,
            circuits,
            unreadable,
            refused,
            renewals,
        }
    })
}

/// The metrics of a server, for each of its methods.
pub(crate) struct ServerMetrics {
    methods: Vec<MethodMetrics>,
    pub(crate) in_flight: Gauge,
    pub(crate) refused: Counter,
}

struct MethodMetrics {
    method: &'static Method,
    ok: Counter,
    duration: Histogram,
    stats: MethodStats,
}

/// What `$SRV.STATS` reports about a method.
#[derive(Debug, Default)]
pub(crate) struct MethodStats {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) nanoseconds: AtomicU64,
    last_error: Mutex<String>,
}

impl MethodStats {
    /// Code and message of the latest error; empty if there was none.
    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerMetrics {
    pub(crate) fn new(service: &'static Service) -> Self {
        let metrics = task_metrics();
        let methods = service.methods.iter().map(|method| {
            let labels = Labels { method: method.subject, code: None };
            let ok = metrics.requests.get_or_create(&Labels { code: Some("OK"), ..labels }).clone();
            let duration = metrics.durations.get_or_create(&labels).clone();
            MethodMetrics { method, ok, duration, stats: MethodStats::default() }
        });
        Self { methods: methods.collect(), in_flight: metrics.in_flight.clone(), refused: metrics.refused.clone() }
    }

    pub(crate) fn record(&self, method: usize, error: Option<&Error>, took: Duration) {
        let Some(metrics) = self.methods.get(method) else {
            return;
        };
        metrics.duration.observe(took.as_secs_f64());
        metrics.stats.requests.fetch_add(1, Ordering::Relaxed);
        metrics.stats.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        match error {
            None => {
                metrics.ok.inc();
            }
            Some(error) => {
                metrics.stats.errors.fetch_add(1, Ordering::Relaxed);
                let text = format!("{}: {}", error.code().as_str_name(), error.message());
                *metrics.stats.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text;
                let labels = Labels { method: metrics.method.subject, code: Some(error.code().as_str_name()) };
                task_metrics().requests.get_or_create(&labels).inc();
            }
        }
    }

    pub(crate) fn stats(&self) -> impl Iterator<Item = (&'static Method, &MethodStats)> {
        self.methods.iter().map(|metrics| (metrics.method, &metrics.stats))
    }
}

/// Counts the attempts to call `method` that were answered.
pub(crate) fn calls_answered(method: &'static str) -> Counter {
    task_metrics().calls.get_or_create(&Labels { method, code: Some("OK") }).clone()
}

/// Counts an attempt that failed.
pub(crate) fn count_failed_call(method: &'static str, error: &Error) {
    task_metrics().calls.get_or_create(&Labels { method, code: Some(error.code().as_str_name()) }).inc();
}

/// The number of this task's workers whose circuit to `destination` is open.
pub(crate) fn circuit_open(destination: &'static str) -> Gauge {
    task_metrics().circuits.get_or_create(&[("destination", destination)]).clone()
}

/// Counts an attempt to replace a connection. `outcome` is `ok` or `failed`.
pub(crate) fn count_renewal(cause: &'static str, outcome: &'static str) {
    task_metrics().renewals.get_or_create(&[("cause", cause), ("outcome", outcome)]).inc();
}

/// Counts a record of `bucket` that a listing skipped.
pub(crate) fn count_unreadable(bucket: &str) {
    task_metrics().unreadable.get_or_create(&[("bucket", bucket.to_owned())]).inc();
}

/// Whether an error is the fault of the service.
pub(crate) fn is_fault(error: &Error) -> bool {
    matches!(error.code(), Code::Internal | Code::Unknown | Code::DataLoss)
}
