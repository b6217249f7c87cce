//! The local platform with real processes: a supervisor and tasks that behave as their environment says.

mod deployments;
mod processes;
mod requests;
mod sockets;
mod stage;
