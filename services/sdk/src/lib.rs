//! Everything a service needs that is not its business: the connection to the fleet, serving and calling with deadlines, retries
//! and circuit breakers, streams, events, state, health, metrics and logs. The only crate that knows NATS on the data path.
//!
//! A service's `main` is [`run`] with a function that builds the service. Each worker of a task is one thread with its own
//! current-thread runtime and its own NATS connection: nothing on the way of a request crosses threads.

mod breaker;
mod bucket;
mod client;
mod context;
mod destination;
mod discovery;
mod events;
mod fleet;
mod health;
mod host;
mod inbox;
mod link;
mod logging;
mod material;
mod metrics;
mod patience;
mod requests;
mod serve;
mod settings;
mod sockets;
mod stream;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use bucket::{Bucket, Change, Entry, WriteError, check_id};
pub use context::{Context, Incoming, context};
pub use events::digest;
pub use fleet::Fleet;
pub use health::is_ready;
pub use host::{Stop, host, run};
pub use material::Material;
pub use metrics::{metrics_text, register_metrics};
pub use proto::rpc::{Channel, Code, Error, Event, Reply, Server, Stream, Transport};
pub use serve::serve;
pub use settings::{Link as LinkSettings, Settings};
pub use sockets::http_listener;

/// Details of an error that name why it is [`Code::Unavailable`] or [`Code::ResourceExhausted`].
pub mod reason {
    /// Key of the detail.
    pub const KEY: &str = "reason";
    /// The deadline passed before the answer came.
    pub const TIMEOUT: &str = "timeout";
    /// Nobody serves the subject.
    pub const NO_RESPONDERS: &str = "no_responders";
    /// Too many calls to this destination failed in a row; detail `retry_after_ms` says when the next is tried.
    pub const CIRCUIT_OPEN: &str = "circuit_open";
    /// The connection broke while the answer was on its way.
    pub const DISCONNECTED: &str = "disconnected";
    /// The worker's queue is full.
    pub const OVERLOADED: &str = "overloaded";
    /// Key of the detail that keeps the reason of an error that a service passes on: the reason itself is about the service
    /// that the caller asked.
    pub const CAUSE: &str = "cause";
    /// Key of the detail that says after how many milliseconds to try again.
    pub const RETRY_AFTER_MS: &str = "retry_after_ms";
}
