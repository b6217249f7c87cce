//! The commands: each parses what it means, asks the library, and returns what is to be printed.

#[cfg(feature = "aws")]
pub(crate) mod aws;
pub(crate) mod change;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod env;
#[cfg(feature = "aws")]
pub(crate) mod history;
pub(crate) mod invocation;
pub(crate) mod logs;
pub(crate) mod nats;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod platform;
pub(crate) mod proof;
pub(crate) mod proto;
pub(crate) mod remote_task;
pub(crate) mod rollout;
pub(crate) mod schema;
pub(crate) mod status;
#[cfg(feature = "aws")]
pub(crate) mod stop;
pub(crate) mod validate;
#[cfg(not(feature = "aws"))]
pub(crate) mod without_aws;
