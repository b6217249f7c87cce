//! The values that natsctl works with: what should run, what runs, and what must be done. No I/O.

pub mod change;
pub mod desired;
pub mod ecs;
pub(crate) mod listed;
pub mod log;
pub mod observed;
pub mod plan;
pub mod rollout;
pub mod secret;
pub(crate) mod status;
pub mod step;
pub mod task;
pub(crate) mod top;
pub mod trace;
pub mod units;
