//! One change of an environment at a time: what both platforms say of the lock that sees to it.

use crate::error::{Code, Hinted};
use crate::screen;

/// What to do when another process holds the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IfHeld {
    /// Wait until it is free.
    #[default]
    Wait,
    /// Fail.
    Fail,
}

/// Waiting for a lock: says once who holds it.
#[derive(Debug)]
pub(crate) struct Waiting {
    if_held: IfHeld,
    said: bool,
}

impl Waiting {
    pub(crate) fn new(if_held: IfHeld) -> Self {
        Self { if_held, said: false }
    }

    /// The lock is held by `holder`.
    ///
    /// # Errors
    /// If it is not to be waited for.
    pub(crate) fn held_by(&mut self, holder: &str) -> Result<(), Hinted> {
        let message = format!("the environment is being changed by {holder}");
        if self.if_held == IfHeld::Fail {
            return Err(
                Hinted::new(message, "wait until it has ended, or leave out `--no-wait-lock`").code(Code::Locked)
            );
        }
        if !self.said {
            screen::note(&format!("waiting: {message}"));
            self.said = true;
        }
        Ok(())
    }
}
