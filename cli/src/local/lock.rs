//! One change of an environment at a time: a lock that says who holds it and since when, and is free when its holder has ended.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::error::Hinted;
use crate::local::create_private;
use crate::screen;

/// Between two looks whether the other one has finished.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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

/// What to do when somebody else holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfTaken {
    /// Wait until it is free.
    Wait,
    /// Fail.
    Fail,
}

impl Lock {
    /// Takes the lock of the environment whose state directory this is.
    pub(crate) async fn take(dir: &Path, command: &str, if_taken: IfTaken) -> anyhow::Result<Self> {
        let path = dir.join("lock");
        let open = || OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        create_private(dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        let mut file = open().with_context(|| format!("failed to open `{}`", path.display()))?;
        let mut waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("failed to lock `{}`", path.display()));
                }
                Err(TryLockError::WouldBlock) if if_taken == IfTaken::Fail => {
                    let hint = "wait until it has ended, or leave out `--no-wait-lock`";
                    return Err(
                        Hinted::new(format!("the environment is being changed by {}", holder(&path)), hint).into()
                    );
                }
                Err(TryLockError::WouldBlock) => {
                    if !waiting {
                        screen::note(&format!("waiting: the environment is being changed by {}", holder(&path)));
                        waiting = true;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
        let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let holder =
            Holder { pid: std::process::id(), user, command: command.to_owned(), since: jiff::Timestamp::now() };
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(Self { _file: file })
    }
}

fn holder(path: &Path) -> String {
    let holder = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
    holder.map_or_else(
        || "somebody else".to_owned(),
        |Holder { pid, user, command, since }| format!("`{command}` of {user} (pid {pid}, since {since:.0})"),
    )
}
