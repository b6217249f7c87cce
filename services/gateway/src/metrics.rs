//! The metrics of the gateway: requests by route and status class, and their durations.

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Histogram buckets in seconds, from 0.5 ms to the longest request.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The gateway's metrics. Clones share their counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    pub(crate) streams: Gauge,
    pub(crate) connections: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            streams: Gauge::default(),
            connections: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "HTTP requests answered, by route and class of status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "From the head of a request to the head of its response",
            self.durations.clone(),
        );
        registry.register("http_streams_open", "Open streams to clients", self.streams.clone());
        registry.register("http_connections_open", "Open client connections", self.connections.clone());
    }

    /// The metrics of one route, looked up once.
    pub(crate) fn route(&self, route: &str) -> RouteMetrics {
        let labels = |status| RequestLabels { route: route.to_owned(), status };
        let label = RouteLabel { route: route.to_owned() };
        RouteMetrics {
            requests: CLASSES.map(|class| self.requests.get_or_create_owned(&labels(class))),
            duration: self.durations.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    requests: [Counter; CLASSES.len()],
    duration: Histogram,
}

impl RouteMetrics {
    pub(crate) fn record(&self, status: StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.requests[class].inc();
        self.duration.observe(seconds);
    }
}

/// Increments a gauge until it is dropped.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
