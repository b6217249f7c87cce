//! The fleet's contract: the methods of its services and the events that they publish, generated from the `.proto`
//! files here.
//!
//! Each package is a module (`proto::quest::v1`). It contains a trait for each service, a server that wraps an
//! implementation of it, and a client that implements the same trait; and the subject of each event. The transport is
//! provided separately: see [`rpc::Transport`].

#[path = "../naming.rs"]
pub mod naming;
pub mod rpc;

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}
#[allow(clippy::needless_update, reason = "a response may have no payload")]
mod contract {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

pub use contract::{EVENTS, SERVICES};
pub use generated::{
    ai, audit, auth, capability, common, event, knowledge, language, narrative, npc, payment, performance, quest,
    router, settings, state, story, time, weather, world,
};
pub use prost_types as well_known;

/// The encoded `google.protobuf.FileDescriptorSet` of all packages, imports included.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
