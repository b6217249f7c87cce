//! natsctl: the operator's tool over a fleet of services on NATS. A library, so that the thin binary has nothing to test.

pub mod fleet;
pub mod nats;
pub mod plan;
