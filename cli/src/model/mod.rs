//! The values that natsctl works with: what should run, what runs, and what must be done. No I/O.

pub mod desired;
pub mod log;
pub mod plan;
pub(crate) mod status;
pub mod task;
pub mod units;
