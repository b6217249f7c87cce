//! Files that only their owner may read, replaced as a whole: a reader sees the old contents or the new, never half of
//! them.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::Hinted;

/// Makes the directory with mode 0700, or gives an existing one this mode.
pub(crate) fn directory(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        .with_context(|| format!("failed to make directory `{}`", path.display()))
}

/// Writes the file with mode 0600.
pub(crate) fn write(path: &Path, contents: &str) -> anyhow::Result<()> {
    let temporary = temporary(path);
    replace(path, &temporary, contents).with_context(|| format!("failed to write `{}`", path.display())).inspect_err(
        |_| {
            // The write's own error is the one to report.
            let _ = fs::remove_file(&temporary);
        },
    )
}

fn replace(path: &Path, temporary: &Path, contents: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

/// The contents, or `None` if there is no such file. Contents that are no text are returned as such, so that whoever knows what should be
/// there says that it is damaged.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(String::from_utf8_lossy(&contents).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let hint = "make it readable; what is no file must be removed, or restored from a backup";
            Err(Hinted::new(format!("failed to read `{}`", path.display()), hint).because(error).into())
        }
    }
}
