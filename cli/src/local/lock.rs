//! The lock of a local environment: a file lock, so it is free as soon as the process that holds it has ended.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::create_private;
use crate::error::Hinted;
use crate::pipeline::lock::{IfHeld, Waiting};

/// Between two tries while another process holds the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Who holds the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    user: String,
    command: String,
    since: jiff::Timestamp,
}

impl Lock {
    /// Whether the lock can be taken at all.
    pub(crate) fn check(dir: &Path) -> anyhow::Result<()> {
        let path = path_in(dir);
        if path.try_exists().unwrap_or(true) { open(&path).map(drop) } else { Ok(()) }
    }

    /// Whether a process that took the lock still runs. It does not touch the lock, since another process that wants it would find it taken.
    pub(crate) fn has_holder(dir: &Path) -> bool {
        let pid = read_holder(&path_in(dir)).and_then(|holder| Pid::from_raw(i32::try_from(holder.pid).ok()?));
        pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
    }

    /// Takes the lock of the environment whose state directory this is.
    pub(crate) async fn take(dir: &Path, user: &str, command: &str, if_held: IfHeld) -> anyhow::Result<Self> {
        let path = path_in(dir);
        create_private(dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        let mut file = open(&path)?;
        let mut waiting = Waiting::new(if_held);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("failed to lock `{}`", path.display()));
                }
                Err(TryLockError::WouldBlock) => {
                    waiting.held_by(&holder(&path))?;
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
        let holder = Holder {
            pid: std::process::id(),
            user: user.to_owned(),
            command: command.to_owned(),
            since: jiff::Timestamp::now(),
        };
        // Only who waits for the lock reads this: on a full disk it is locked all the same.
        let written = file.set_len(0).and_then(|()| file.write_all(&serde_json::to_vec(&holder).unwrap_or_default()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "who holds the lock cannot be written");
        }
        Ok(Self { _file: file })
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    file.map_err(|error| {
        let hint = "if it is no file, remove it: it holds nothing that is needed";
        Hinted::new(format!("failed to open `{}`", path.display()), hint).because(error).into()
    })
}

fn read_holder(path: &Path) -> Option<Holder> {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

fn holder(path: &Path) -> String {
    read_holder(path).map_or_else(
        || "another process".to_owned(),
        |Holder { pid, user, command, since }| format!("`{command}` of {user} (pid {pid}, since {since:.0})"),
    )
}
