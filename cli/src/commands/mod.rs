//! The commands: each parses what it means, asks the library, and returns what is to be printed.

pub(crate) mod change;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod logs;
pub(crate) mod nats;
pub(crate) mod plan;
pub(crate) mod proto;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod validate;
