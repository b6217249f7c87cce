//! NATS as its operators see it: who may connect, what a server is told, whether the cluster is well and what it holds.
//! Requests between services are not its business; they are the SDK's.

pub mod bus;
pub mod connect;
pub mod discovery;
pub mod health;
pub mod identity;
pub mod jetstream;
mod jwt;
pub mod locate;
pub mod permissions;
pub mod pki;
pub(crate) mod private;
pub mod secret;
pub mod server;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;

/// An error that knows what to do about it.
#[derive(Debug)]
pub struct Advised {
    message: String,
    hint: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Advised {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), source: None }
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do, to be printed after `hint:`.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Advised {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The advice in an error's chain, the outermost first.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let advised = cause.downcast_ref::<Advised>().map(|advised| advised.hint.clone());
        advised.or_else(|| cause.downcast_ref::<locate::LocateError>().map(locate::LocateError::hint))
    })
}
