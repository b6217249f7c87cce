//! Rolling a NATS cluster: one server after the other leaves by lame duck and comes back, while the others keep every quorum.
//!
//! The procedure is [`Machine`], a pure state machine: from what the servers say ([`Observation`]) to the next [`Action`]. [`drive`]
//! feeds it and has an [`Executor`] carry out what it decides. An executor is the nodes of one platform, and decides nothing.
//!
//! Nothing but what is observed says how far a roll is: a server is done when it is another process than the roll began with, of
//! the wanted version and configuration. So a roll that was interrupted anywhere goes on from its [`Roll`] alone.

mod drive;
mod machine;
mod observation;
mod obstacle;
mod survey;
mod versions;

pub(crate) use drive::{End, Event, Executor, StopTiming, drive};
pub(crate) use machine::{Accepted, Goal, Machine, NodeGoal, Patience, Roll};
#[cfg(feature = "aws")]
pub(crate) use observation::Traffic;
pub(crate) use observation::{Asset, AssetKind, Observation, Server};
pub(crate) use obstacle::Obstacle;
pub(crate) use survey::Survey;
pub(crate) use versions::{Downgrade, refuse_jump};

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
