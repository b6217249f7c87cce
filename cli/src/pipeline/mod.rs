//! The one way in which natsctl changes an environment: load, observe, plan, apply, verify. Every verb, on every platform.

mod activities;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod lock;
pub(crate) mod logs;
pub(crate) mod options;
mod recorded;
pub(crate) mod roll;
mod run;
pub(crate) mod saved;
pub(crate) mod step_down;

pub(crate) use run::{Done, Platform, Progress, Purpose, interrupted, plan, run};
