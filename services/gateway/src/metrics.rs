//! What the gateway counts of itself: requests by route and status class, and how long they took.

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From half a millisecond to the longest request, in seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The gateway's metrics. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Outcome, Counter>,
    durations: Family<Place, Histogram, fn() -> Histogram>,
    pub(crate) streams: Gauge,
    pub(crate) connections: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
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
    /// Adds the metrics to the task's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "HTTP requests answered, by route and class of status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "From the head of a request to the head of its answer",
            self.durations.clone(),
        );
        registry.register("http_streams_open", "Streams being sent to clients", self.streams.clone());
        registry.register("http_connections_open", "Connections of clients", self.connections.clone());
    }

    /// What is counted for one route, looked up once.
    pub(crate) fn route(&self, route: &str) -> RouteMetrics {
        let outcome = |status| Outcome { route: route.to_owned(), status };
        let place = Place { route: route.to_owned() };
        RouteMetrics {
            requests: CLASSES.map(|class| self.requests.get_or_create_owned(&outcome(class))),
            duration: self.durations.get_or_create_owned(&place),
        }
    }
}

/// What is counted for one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    requests: [Counter; CLASSES.len()],
    duration: Histogram,
}

impl RouteMetrics {
    pub(crate) fn answered(&self, status: StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.requests[class].inc();
        self.duration.observe(seconds);
    }
}

/// Something that is open until it is dropped.
pub(crate) struct Open(Gauge);

impl Open {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
