//! Exposes the fleet over HTTP: every method that is public as a JSON endpoint, without code for each service.
//!
//! Package `quest.v1`, rpc `Generate` is `POST /api/quest/v1/generate`. The request body is the request in JSON, the
//! response body is the response in JSON, or server-sent events for a streaming method. Errors are
//! `application/problem+json`. [`Gateway`] handles requests over any [`sdk::Transport`]; [`serve`] runs it on a socket
//! and drains it at shutdown.

mod body;
mod call;
mod connection;
mod events;
mod gateway;
mod headers;
mod limits;
mod malformed;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod server;
mod trace;
pub mod transcode;

pub use gateway::Gateway;
pub use limits::{Limits, PublicMethods};
pub use metrics::Metrics;
pub use openapi::document as openapi;
pub use routes::path;
pub use server::serve;
