//! Whose state directory it is. What another user owns cannot be read, and that is not the same as if there were nothing.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::Hinted;

/// Refuses a state directory of another user. One that does not exist is nobody's.
///
/// # Errors
/// Whose it is.
pub(super) fn refuse_foreign(dir: &Path) -> Result<(), Hinted> {
    let user = rustix::process::geteuid().as_raw();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.uid() == user || user == 0 => Ok(()),
        Ok(metadata) => Err(foreign(dir, dir, Some(metadata.uid()), user)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            // The nearest folder that can be seen is the one that nobody else may look into.
            let closed = dir.ancestors().skip(1).find_map(|folder| Some((folder, fs::metadata(folder).ok()?.uid())));
            let (folder, owner) = closed.map_or((dir, None), |(folder, owner)| (folder, Some(owner)));
            Err(foreign(dir, folder, owner, user).because(error))
        }
        Err(error) => {
            let message = format!("failed to read `{}`", dir.display());
            Err(Hinted::new(message, "name another folder with `--state-dir`").because(error))
        }
    }
}

fn foreign(dir: &Path, closed: &Path, owner: Option<u32>, user: u32) -> Hinted {
    let belongs = match owner {
        Some(owner) if closed == dir => format!("which belongs to {}", named(owner)),
        Some(owner) => format!("because `{}` belongs to {}", closed.display(), named(owner)),
        None => "which belongs to another user".to_owned(),
    };
    let message = format!("what runs in `{}`, {belongs}, cannot be read or changed by {}", dir.display(), named(user));
    Hinted::new(message, "run natsctl as that user, or name a folder of your own with `--state-dir`")
}

/// `user root (1000)`, or the number alone where the name is not known.
fn named(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("user {uid}"), |name| format!("user {name} ({uid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ones_own_and_one_that_is_missing_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        refuse_foreign(dir.path()).unwrap();
        refuse_foreign(&dir.path().join("missing/too")).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = refuse_foreign(&dir.path().join("file/state")).unwrap_err();
        assert!(error.to_string().starts_with("failed to read `"), "{error}");
    }

    #[test]
    fn a_foreign_folder_names_both_users() {
        let dir = Path::new("/a/state");
        let text = foreign(dir, dir, Some(0), 65_534).to_string();
        assert!(text.starts_with("what runs in `/a/state`, which belongs to user root (0), cannot be read"), "{text}");
        let text = foreign(dir, Path::new("/a"), Some(4_000_000), 65_534).to_string();
        assert!(text.contains("because `/a` belongs to user 4000000"), "{text}");
    }
}
