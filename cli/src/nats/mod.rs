//! Operating NATS: users and permissions, certificates, server configuration, the cluster's health, streams and
//! buckets. Requests between services are the SDK's.

pub mod accounts;
pub mod bus;
pub(crate) mod call;
pub(crate) mod check;
pub mod circuits;
pub mod connect;
pub(crate) mod dead_letters;
pub mod discovery;
pub mod health;
pub mod identity;
pub mod jetstream;
mod jwt;
pub(crate) mod leadership;
pub mod locate;
pub mod node;
pub mod permissions;
pub mod pki;
pub(crate) mod private;
pub mod replicas;
pub(crate) mod roll;
pub mod secret;
pub mod server;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
