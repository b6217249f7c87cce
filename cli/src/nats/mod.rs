//! NATS as its operators see it: who may connect, what a server is told, whether the cluster is well and what it holds.
//! Requests between services are not its business; they are the SDK's.

pub mod bus;
pub mod connect;
pub mod discovery;
pub mod health;
pub mod identity;
pub mod jetstream;
mod jwt;
pub mod locate;
pub mod permissions;
pub mod pki;
pub(crate) mod private;
pub mod secret;
pub mod server;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
