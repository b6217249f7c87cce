//! Finds the nats-server binary on this machine.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::error::Hinted;

/// Overrides the search.
pub const VARIABLE: &str = "NATSCTL_NATS_SERVER";

/// The oldest server that has what the fleet needs: atomic batches.
pub const MINIMUM: Version = Version { major: 2, minor: 12, patch: 0 };

/// A binary that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsServer {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

impl NatsServer {
    /// Lets the server read a configuration file, with everything that it names, without starting.
    pub fn check(&self, config: &Path) -> anyhow::Result<()> {
        let output = Command::new(&self.path).arg("-t").arg("-c").arg(config).output();
        let output = output.with_context(|| format!("failed to run `{}`", self.path.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(());
        }
        let message = format!("`{}` is refused: {}", config.display(), said.trim());
        let hint =
            "no server was restarted with it; what it says comes from `nats` in the manifests of fleet and environment";
        Err(Hinted::new(message, hint).into())
    }
}

/// Version of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// Incompatible changes.
    pub major: u64,
    /// Additions.
    pub minor: u64,
    /// Corrections.
    pub patch: u64,
}

/// Why there is no usable binary. No [`std::error::Error`]: it becomes one together with its hint.
#[derive(Debug)]
pub enum LocateError {
    /// None was found.
    Missing,
    /// The best one found is too old.
    TooOld {
        /// Where it is.
        path: PathBuf,
        /// What it says it is.
        version: Version,
    },
    /// It does not start, or does not say its version.
    CannotRun {
        /// Where it is.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("`nats-server` is not installed"),
            Self::TooOld { path, version } => {
                write!(f, "`{}` is version {version}, and at least {MINIMUM} is needed", path.display())
            }
            Self::CannotRun { path, reason } => write!(f, "failed to run `{}`: {reason}", path.display()),
        }
    }
}

impl From<LocateError> for anyhow::Error {
    fn from(error: LocateError) -> Self {
        Hinted::new(error.to_string(), error.hint()).into()
    }
}

impl LocateError {
    /// How to get a usable binary.
    pub fn hint(&self) -> String {
        let install = if cfg!(target_os = "macos") {
            "`./scripts/up` installs it; so does `brew install nats-server`"
        } else {
            "`./scripts/up` installs it; or take a release from https://github.com/nats-io/nats-server/releases, \
             since those of Debian and Ubuntu are older"
        };
        match self {
            Self::Missing | Self::TooOld { .. } => format!("{install}; `{VARIABLE}` names one elsewhere"),
            Self::CannotRun { .. } => format!("replace it: {install}"),
        }
    }
}

/// The binary that `NATSCTL_NATS_SERVER` names, or else the first on `PATH` that is new enough, or else the one
/// that `scripts/up` put into `.tools/bin` of the workspace.
pub fn locate(workspace: &Path) -> Result<NatsServer, LocateError> {
    search(std::env::var_os(VARIABLE), std::env::var_os("PATH"), workspace)
}

/// The binary of exactly this version: the one that [`locate`] finds, or one in `.tools/nats-server/VERSION` of the workspace.
///
/// # Errors
/// There is none, or what is there is something else.
pub(crate) fn of_version(workspace: &Path, wanted: Version) -> anyhow::Result<NatsServer> {
    if let Ok(server) = locate(workspace)
        && server.version == wanted
    {
        return Ok(server);
    }
    let path = workspace.join(".tools/nats-server").join(wanted.to_string()).join("nats-server");
    if !path.is_file() {
        let message = format!("there is no nats-server {wanted} on this machine");
        let hint = format!(
            "`./scripts/nats-server {wanted}` installs a release that it knows; or put it at `{}`",
            path.display()
        );
        return Err(Hinted::new(message, hint).into());
    }
    let server = examine(path)?;
    if server.version != wanted {
        let message = format!("`{}` is version {} and not {wanted}", server.path.display(), server.version);
        return Err(Hinted::new(message, format!("replace it by a release of {wanted}")).into());
    }
    Ok(server)
}

fn search(named: Option<OsString>, path: Option<OsString>, workspace: &Path) -> Result<NatsServer, LocateError> {
    if let Some(named) = named {
        return examine(named.into());
    }
    let mut folders: Vec<PathBuf> =
        path.as_deref().map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    folders.push(workspace.join(".tools/bin"));
    let mut problem = LocateError::Missing;
    for candidate in folders.into_iter().map(|folder| folder.join("nats-server")).filter(|path| path.is_file()) {
        match examine(candidate) {
            Ok(server) => return Ok(server),
            // The first on `PATH` is the one that its owner would name.
            Err(error) if matches!(problem, LocateError::Missing) => problem = error,
            Err(_) => (),
        }
    }
    Err(problem)
}

fn examine(path: PathBuf) -> Result<NatsServer, LocateError> {
    match version(&path) {
        Ok(version) if version >= MINIMUM => Ok(NatsServer { path, version }),
        Ok(version) => Err(LocateError::TooOld { path, version }),
        Err(reason) => Err(LocateError::CannotRun { path, reason }),
    }
}

fn version(path: &Path) -> Result<Version, String> {
    let output = Command::new(path).arg("--version").output().map_err(|error: io::Error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().rsplit(' ').next().and_then(|word| word.strip_prefix('v')?.parse().ok());
    version.ok_or_else(|| match said.trim() {
        "" => format!("it ended with {} and said no version", output.status),
        said => format!("`{said}` is not a version"),
    })
}

impl FromStr for Version {
    type Err = ();

    /// Reads `2.15.1`, with or without something after a hyphen.
    fn from_str(text: &str) -> Result<Self, ()> {
        let release = text.split('-').next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = release.split('.').map(str::parse).collect();
        match numbers.map_err(|_| ())?[..] {
            [major, minor, patch] => Ok(Self { major, minor, patch }),
            _ => Err(()),
        }
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|()| format!("`{text}` is not a version"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(folder: &Path, script: &str) {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join("nats-server");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Searches a machine with these scripts on `PATH` and in `.tools/bin`.
    fn check(on_path: Option<&str>, in_tools: Option<&str>, expected: &str) {
        let home = tempfile::tempdir().unwrap();
        let (bin, tools) = (home.path().join("bin"), home.path().join(".tools/bin"));
        for (folder, script) in [(&bin, on_path), (&tools, in_tools)] {
            if let Some(script) = script {
                fake(folder, script);
            }
        }
        let found = match search(None, Some(bin.into()), home.path()) {
            Ok(server) => format!("{} {}", server.path.display(), server.version),
            Err(error) => error.to_string(),
        };
        assert_eq!(found.replace(&home.path().display().to_string(), "~"), expected);
    }

    #[test]
    fn path_comes_first_if_it_is_new_enough() {
        let [old, new, newer] = ["v2.9.10", "v2.15.1", "v2.16.0-RC.1"].map(|v| format!("echo nats-server: {v}"));
        check(Some(&new), Some(&newer), "~/bin/nats-server 2.15.1");
        check(Some(&old), Some(&newer), "~/.tools/bin/nats-server 2.16.0");
        check(None, Some(&new), "~/.tools/bin/nats-server 2.15.1");
        check(Some("exit 1"), Some(&new), "~/.tools/bin/nats-server 2.15.1");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(None, None, "`nats-server` is not installed");
        check(
            Some("echo nats-server: v2.9.10"),
            None,
            "`~/bin/nats-server` is version 2.9.10, and at least 2.12.0 is needed",
        );
        check(
            Some("exit 3"),
            None,
            "failed to run `~/bin/nats-server`: it ended with exit status: 3 and said no version",
        );
        check(Some("echo hello"), None, "failed to run `~/bin/nats-server`: `hello` is not a version");
    }

    #[test]
    fn the_variable_is_never_passed_over() {
        let home = tempfile::tempdir().unwrap();
        fake(&home.path().join(".tools/bin"), "echo nats-server: v2.15.1");
        let error = search(Some("/nowhere/nats-server".into()), None, home.path()).unwrap_err();
        assert!(matches!(error, LocateError::CannotRun { .. }), "{error}");
        assert!(error.hint().contains("./scripts/up"));
    }
}
