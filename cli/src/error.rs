//! Errors that say what to do about them.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

/// What kind of failure an error is, for programs that react to it: a word that stays as it is. Messages may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It failed, for none of the other reasons.
    #[default]
    Failed,
    /// The command line is wrong.
    Usage,
    /// Manifests or contracts have problems; `problems` has all of them.
    InvalidManifest,
    /// Nothing has this name.
    UnknownName,
    /// The command or the option is for environments on the other platform.
    WrongPlatform,
    /// What the command is about is not deployed.
    NotDeployed,
    /// Another process changes the environment.
    Locked,
    /// The plan loses something that was not accepted, is not the one that was reviewed, or was not confirmed. Nothing was changed.
    Refused,
    /// Services did not come up.
    DeploymentFailed,
    /// A service answered a call with an error.
    CallRefused,
    /// Ended by Ctrl-C.
    Interrupted,
    /// natsctl itself is wrong.
    Bug,
}

/// An error with a hint: the message says what is wrong, the hint says how to fix it.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: Option<String>,
    code: Code,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Hinted {
    /// `message` in lower case without a full stop, since errors are joined with `: `.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::with(message, Some(hint.into()))
    }

    /// The same where a hint is not always known.
    pub(crate) fn with(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint, code: Code::Failed, source: None }
    }

    /// How to fix it, if that is known.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same, as this kind of failure.
    #[must_use]
    pub(crate) fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The same with this hint if it has none.
    #[must_use]
    pub(crate) fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The last reason of a failure: those before it say only that there was one.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Makes an error of a file or folder name it: ``failed to open `…` ``. Its kind stays.
pub(crate) fn at(action: &str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let message = format!("failed to {action} `{}`", path.display());
    // All of it is in one text, since much of what shows such an error shows no causes.
    move |error| io::Error::new(error.kind(), format!("{message}: {error}"))
}

/// The hint of an error: that of the outermost error in its chain that has one.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| hinted(cause)?.hint.clone())
}

/// What kind of failure an error is: that of the outermost error in its chain that says more than that it failed.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    let codes = error.chain().filter_map(|cause| Some(hinted(cause)?.code));
    codes.into_iter().find(|code| *code != Code::Failed).unwrap_or_default()
}

/// An [`io::Error`] shows the error that it was made from, but leaves it out of the chain.
fn hinted<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a Hinted> {
    let inside = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
    cause.downcast_ref().or_else(inside)
}
