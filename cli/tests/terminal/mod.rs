//! What natsctl shows at a terminal: in windows of different sizes, while something moves, and when it is interrupted.

mod changes;
mod notices;
pub(crate) mod pty;
mod screens;
mod status;
