//! State files: JSON that outlives a crash, a full disk and a slip of the hand, because each has a backup beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dir::write_atomically;
use crate::error::Hinted;

/// Reads a state file, or its backup if the file is damaged. `None`: there is no such file.
///
/// The errors name the file; that of a damaged one has a hint.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, error)),
    };
    match serde_json::from_slice(&content) {
        Ok(value) => Ok(Some(value)),
        Err(error) => read_backup(path, &error).map(Some).ok_or_else(|| damaged(path, error)),
    }
}

/// Replaces a state file and its backup.
///
/// The error names the file that could not be written; what is read stays as it was then, since the backup is written first.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_vec_pretty(value)?;
    for path in [&backup(path), path] {
        write_atomically(path, &content).map_err(|error| failed("write", path, error))?;
    }
    Ok(())
}

/// Removes a state file and its backup.
///
/// The error names the file that could not be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &backup(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", path, error)),
            _ => {}
        }
    }
    Ok(())
}

fn backup(path: &Path) -> PathBuf {
    let mut backup = path.as_os_str().to_owned();
    backup.push(".backup");
    backup.into()
}

fn read_backup<T: DeserializeOwned>(path: &Path, error: &serde_json::Error) -> Option<T> {
    let value = serde_json::from_slice(&fs::read(backup(path)).ok()?).ok()?;
    tracing::warn!(path = %path.display(), %error, "state file damaged, its backup is used");
    Some(value)
}

fn failed(what: &str, path: &Path, error: io::Error) -> io::Error {
    let message = format!("failed to {what} `{}`", path.display());
    let hint = "make it readable and writable, and make room on its disk; if it is no file, remove it: \
                `natsctl deploy --all` writes a new one";
    io::Error::new(error.kind(), Hinted::new(message, hint).because(error))
}

fn damaged(path: &Path, error: serde_json::Error) -> io::Error {
    let message = format!("failed to read `{}`, which is damaged", path.display());
    let hint = "delete it, then run `natsctl deploy --all`, which writes a new one";
    io::Error::new(io::ErrorKind::InvalidData, Hinted::new(message, hint).because(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A state file that was written twice, and then got this content.
    fn read_after(content: &str) -> io::Result<Option<Vec<u32>>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write(&path, &[1]).unwrap();
        write(&path, &[1, 2]).unwrap();
        fs::write(&path, content).unwrap();
        read(&path)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read_after("[3]").unwrap(), Some(vec![3]));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<u32>(&dir.path().join("state.json")).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_replaced_by_its_backup() {
        for content in ["", "[1, 2", "\0\0\0\0", "{}"] {
            assert_eq!(read_after(content).unwrap(), Some(vec![1, 2]), "{content:?}");
        }
    }

    #[test]
    fn a_damaged_file_without_a_backup_names_itself_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        for backup_content in [None, Some("")] {
            fs::write(&path, "").unwrap();
            if let Some(content) = backup_content {
                fs::write(backup(&path), content).unwrap();
            }
            let error = anyhow::Error::from(read::<u32>(&path).unwrap_err());
            let expected = format!(
                "failed to read `{}`, which is damaged: EOF while parsing a value at line 1 column 0",
                path.display()
            );
            assert_eq!(format!("{error:#}"), expected);
            assert!(crate::error::hint(&error).unwrap().starts_with("delete it"));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let error = anyhow::Error::from(read::<u32>(dir.path()).unwrap_err());
        assert!(format!("{error:#}").starts_with(&format!("failed to read `{}`: ", dir.path().display())));
    }

    #[test]
    fn a_file_that_cannot_be_written_names_itself_and_what_is_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write(&path, &[1]).unwrap();
        let error = |path: &Path| format!("failed to write `{}`: ", path.display());
        fs::remove_file(backup(&path)).unwrap();
        fs::create_dir(backup(&path)).unwrap();
        let refused = anyhow::Error::from(write(&path, &[2]).unwrap_err());
        assert!(format!("{refused:#}").starts_with(&error(&backup(&path))), "{refused:#}");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![1]));

        fs::remove_dir(backup(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let refused = anyhow::Error::from(write(&path, &[2]).unwrap_err());
        assert!(format!("{refused:#}").starts_with(&error(&path)), "{refused:#}");
        assert!(remove(&path).is_err());
    }

    #[test]
    fn both_copies_are_private_and_removed_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write(&path, &1).unwrap();
        for path in [&path, &backup(&path)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        remove(&path).unwrap();
    }
}
