//! The gateway from the client's side: real sockets, and behind the gateway a fake fleet that each test defines.

mod bad_input;
mod calls;
mod client;
mod drain;
mod fleet;
mod half_closed;
mod nats;
mod public;
mod slow_clients;
mod streams;
mod traces;
