//! The fleet over HTTP: every method of every contract as a JSON endpoint, without code per service.
//!
//! Package `quest.v1`, rpc `Generate` is `POST /api/quest/v1/generate`. The body is the request in JSON, the answer the response in
//! JSON, or, for a streaming method, server-sent events. Failures are `application/problem+json`. [`Gateway`] answers
//! requests over any [`sdk::Transport`]; [`serve`] puts it behind a socket and drains it.

mod body;
mod call;
mod caller;
mod connection;
mod events;
mod gateway;
mod limits;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod server;
pub mod transcode;

pub use gateway::Gateway;
pub use limits::Limits;
pub use metrics::Metrics;
pub use openapi::document as openapi;
pub use routes::path;
pub use server::serve;
