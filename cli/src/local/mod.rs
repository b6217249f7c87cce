//! The local platform: the processes of a fleet on this machine. A supervisor that outlives the command owns them and does what ECS does
//! on AWS: it keeps the desired number of tasks, replaces them one by one, and goes back when a deployment fails.

pub(crate) mod apply;
pub mod artifacts;
pub(crate) mod build;
pub mod client;
pub(crate) mod cluster_files;
pub(crate) mod doctor;
pub(crate) mod environment;
pub(crate) mod history;
mod lists;
pub(crate) mod lock;
pub mod logs;
mod nodes;
mod owner;
mod platform;
pub mod ports;
pub mod protocol;
pub(crate) mod roll;
mod secrets;
pub mod shim;
mod status;
pub mod supervisor;
mod taken_ports;
mod top;
mod verify;

mod dir;
mod state_file;

pub(crate) use dir::create_private;
