//! The fleet's contract: what services can be asked and what they emit, generated from the `.proto` files beside this crate.
//!
//! A package is a module (`proto::quest::v1`). For each service it holds the trait, a server around an implementation of
//! it, and a client that implements the same trait; for each event the subject. Transport is somebody else's business:
//! see [`rpc::Transport`].

#[path = "../naming.rs"]
pub mod naming;
pub mod rpc;

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}
mod contract {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

pub use contract::{EVENTS, SERVICES};
pub use generated::{ai, common, npc, quest, state};
pub use prost_types as well_known;

/// The encoded `google.protobuf.FileDescriptorSet` of all packages, imports included.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
