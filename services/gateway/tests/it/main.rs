//! The gateway as its clients see it: real sockets in front, and behind it a fleet that each test makes up.

mod bad_input;
mod calls;
mod client;
mod drain;
mod fleet;
mod nats;
mod slow_clients;
mod streams;
