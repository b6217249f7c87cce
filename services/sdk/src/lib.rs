//! Everything a service needs besides its own logic: the connection to the fleet, serving and calling with deadlines,
//! retries and circuit breakers, streams, events, state, health, metrics and logs. The only crate on the request path
//! that uses NATS.
//!
//! A service's `main` is a [`service`] that is run. Each worker of a task is one thread with its
//! own current-thread runtime and its own NATS connection: no request crosses threads.

mod background;
mod breaker;
mod bucket;
mod cache;
mod callable;
mod caller;
mod client;
mod clock;
mod connection;
mod consume;
mod context;
mod credentials;
mod deadlines;
mod destination;
mod discovery;
mod events;
mod fleet;
mod health;
mod identity;
mod inbox;
mod limits;
mod logging;
mod material;
mod metrics;
mod operations;
mod outbox;
mod panics;
mod periodic;
mod queue_group;
pub mod random;
mod records;
mod renewal;
mod reply;
mod retry;
mod serve;
mod service;
mod settings;
mod sockets;
mod stream;
mod subject;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod wire;

pub use bucket::{Bucket, Change, Entry, WriteError};
pub use cache::{Cache, CacheSettings, Caches, Key, RedisSettings};
pub use clock::Clock;
pub use context::{Context, ExternalRequest, context};
pub use deadlines::Deadlines;
pub use events::{EncodedEvent, digest};
pub use fleet::Fleet;
pub use health::is_ready;
pub use limits::{
    check_count, check_id, check_range, check_range_or, check_revision, check_text, choice, choice_or_unset, required,
};
pub use material::Material;
pub use metrics::{metrics_text, register_metrics};
pub use operations::{MAX_REMEMBERED, Operation, Operations, REMEMBERED_FOR};
pub use periodic::{Periodic, each};
pub use proto::rpc::{Channel, Code, Error, Event, Handler, Record, Reply, Request, Server, Stream, Transport};
pub use records::{Follow, Followed, FollowedGuard, Id, Next, RecordKey, Records, Stored, Update};
pub use serve::serve;
pub use service::{Service, service};
pub use settings::{ConnectionSettings, ConsumerSettings, Delivery, Settings};
pub use sockets::http_listener;
pub use subject::{SubjectPattern, check_subject};
pub use task::{Shutdown, run_workers};
pub use trace::{Span, SpanKind, Value};

/// Keys and values of the error details that say why a request failed.
pub mod reason {
    /// Key of the detail.
    pub const KEY: &str = "reason";
    /// The deadline passed before the answer came.
    pub const TIMEOUT: &str = "timeout";
    /// No service is subscribed to the subject.
    pub const NO_RESPONDERS: &str = "no_responders";
    /// The circuit breaker rejected the call: too many calls to this destination failed in a row. Detail
    /// `retry_after_ms` says when the next call is let through.
    pub const CIRCUIT_OPEN: &str = "circuit_open";
    /// The connection was lost before the response arrived.
    pub const DISCONNECTED: &str = "disconnected";
    /// The worker's queue is full.
    pub const OVERLOADED: &str = "overloaded";
    /// The idempotency key was used for another request. It is passed on from service to service, as the key is.
    pub const IDEMPOTENCY_KEY_REUSED: &str = "idempotency_key_reused";
    /// Key of the detail that holds the reason of an error that a service passes on from another service. `reason`
    /// itself is always about the service that the caller called.
    pub const CAUSE: &str = "cause";
    /// Key of the detail that says after how many milliseconds to retry.
    pub const RETRY_AFTER_MS: &str = "retry_after_ms";
}
