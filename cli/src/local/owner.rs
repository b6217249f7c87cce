//! Whose files and processes these are: natsctl sends its specifications to no supervisor of another user, and does not take what
//! it cannot read for nothing.
//!
//! That holds for root too, whose processes another user's supervisor could otherwise describe as it likes.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use crate::error::{Hinted, at};

/// The bits of a file's mode that give rights to others than its owner.
const OTHERS: u32 = 0o077;

/// A socket that another user may have put there, or listens on.
#[derive(Debug)]
pub struct Foreign {
    path: PathBuf,
    reason: String,
    hint: String,
}

impl Foreign {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// As an error of a file, which keeps its hint.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, Hinted::new(self.to_string(), self.hint))
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path.display(), self.reason)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    Foreign(Foreign),
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Connects to a socket of this user. `shared` is the directory that it is in, if others may create files beside that one.
pub(super) async fn connect(socket: &Path, shared: Option<&Path>) -> Result<UnixStream, Refused> {
    if let Some(dir) = shared {
        is_private(dir)?.map_err(Refused::Foreign)?;
    }
    let stream = UnixStream::connect(socket).await.map_err(at("connect to", socket))?;
    let peer = stream.peer_cred()?.uid();
    if peer == us() {
        return Ok(stream);
    }
    Err(Refused::Foreign(Foreign {
        path: socket.to_owned(),
        reason: format!("is served by a process of {}, and natsctl runs as {}", user(peer), user(us())),
        hint: format!("run natsctl as {}, or name another state directory with `--state-dir`", user(peer)),
    }))
}

/// Whether a directory is this user's alone. It is looked at itself: a link leads to where its owner wants.
pub(super) fn is_private(dir: &Path) -> io::Result<Result<(), Foreign>> {
    let metadata = fs::symlink_metadata(dir).map_err(at("read", dir))?;
    let reason = if metadata.is_symlink() {
        format!("is a symbolic link of {}", user(metadata.uid()))
    } else if !metadata.is_dir() {
        format!("is a file of {}", user(metadata.uid()))
    } else if metadata.uid() != us() {
        format!("belongs to {}, and natsctl runs as {}", user(metadata.uid()), user(us()))
    } else if metadata.mode() & OTHERS != 0 {
        format!("can be used by others: its mode is {:03o}", metadata.mode() & 0o777)
    } else {
        return Ok(Ok(()));
    };
    let way_out = if metadata.is_dir() && metadata.uid() == us() {
        format!("`chmod 700 {}`, if no other user has put anything into it", dir.display())
    } else {
        "remove it".to_owned()
    };
    let hint = format!(
        "nothing is sent to the supervisor there: {way_out}, or name a state directory with a shorter path with \
         `--state-dir`, which holds the socket itself"
    );
    Ok(Err(Foreign { path: dir.to_owned(), reason, hint }))
}

/// Refuses a state directory of another user. One that does not exist is nobody's.
///
/// # Errors
/// Whose it is.
pub(super) fn refuse_foreign(dir: &Path) -> Result<(), Hinted> {
    let natsctl = us();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.uid() == natsctl || natsctl == 0 => Ok(()),
        Ok(metadata) => Err(foreign(dir, dir, Some(metadata.uid()), natsctl)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            // The nearest folder that can be seen is the one that nobody else may look into.
            let closed = dir.ancestors().skip(1).find_map(|folder| Some((folder, fs::metadata(folder).ok()?.uid())));
            let (folder, owner) = closed.map_or((dir, None), |(folder, owner)| (folder, Some(owner)));
            Err(foreign(dir, folder, owner, natsctl).because(error))
        }
        Err(error) => {
            let message = format!("failed to read `{}`", dir.display());
            Err(Hinted::new(message, "name another folder with `--state-dir`").because(error))
        }
    }
}

fn foreign(dir: &Path, closed: &Path, owner: Option<u32>, natsctl: u32) -> Hinted {
    let belongs = match owner {
        Some(owner) if closed == dir => format!("which belongs to {}", user(owner)),
        Some(owner) => format!("because `{}` belongs to {}", closed.display(), user(owner)),
        None => "which belongs to another user".to_owned(),
    };
    let message =
        format!("what runs in `{}`, {belongs}, cannot be read or changed by {}", dir.display(), user(natsctl));
    Hinted::new(message, "run natsctl as that user, or name a folder of your own with `--state-dir`")
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The name of this user, or else the number.
pub(super) fn name_of_this_user() -> String {
    name(us()).unwrap_or_else(|| us().to_string())
}

/// A user in a sentence: the name where it is known, and the number.
fn user(uid: u32) -> String {
    match name(uid) {
        Some(name) => format!("user `{name}` ({uid})"),
        None => format!("user {uid}"),
    }
}

/// The name of a user that the system has in its file; others are in a directory elsewhere.
fn name(uid: u32) -> Option<String> {
    let names = fs::read_to_string("/etc/passwd").unwrap_or_default();
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, found) = (fields.next()?, fields.nth(1)?);
        (found.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use tokio::net::UnixListener;

    use super::*;
    use crate::local::client::Client;
    use crate::local::dir::Dir;

    /// What a connection to a socket in a directory that was changed like this is refused with.
    async fn refusal(change: impl FnOnce(&Path)) -> String {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("natsctl-0-abc");
        super::super::create_private(&dir).unwrap();
        let socket = dir.join("supervisor.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        change(&dir);
        match connect(&socket, Some(&dir)).await {
            Err(Refused::Foreign(foreign)) => foreign.to_string().replace(root.path().to_str().unwrap(), "/tmp"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_socket_of_our_own_in_a_directory_of_our_own_is_connected_to() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("natsctl-0-abc");
        super::super::create_private(&dir).unwrap();
        let socket = dir.join("supervisor.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        connect(&socket, Some(&dir)).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_others_can_use_is_refused() {
        for mode in [0o777, 0o710, 0o701] {
            let refusal = refusal(|dir| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap()).await;
            assert_eq!(refusal, format!("`/tmp/natsctl-0-abc` can be used by others: its mode is {mode:03o}"));
        }
    }

    #[tokio::test]
    async fn a_link_in_place_of_the_directory_is_refused() {
        let refusal = refusal(|dir| {
            let target = dir.with_file_name("target");
            fs::rename(dir, &target).unwrap();
            symlink(target, dir).unwrap();
        });
        assert!(refusal.await.starts_with("`/tmp/natsctl-0-abc` is a symbolic link of user "));
    }

    #[tokio::test]
    #[expect(clippy::print_stderr, reason = "what is skipped is reported")]
    async fn a_directory_of_another_user_is_refused() {
        if us() != 0 {
            eprintln!("skipped: a directory of another user: only root can give one away");
            return;
        }
        let refusal = refusal(|dir| chown(dir, Some(54_321), None).unwrap()).await;
        assert_eq!(refusal, format!("`/tmp/natsctl-0-abc` belongs to user 54321, and natsctl runs as {}", user(0)));
    }

    #[tokio::test]
    async fn a_supervisor_in_a_directory_that_others_can_use_is_sent_nothing() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("deep/".repeat(40));
        let folder = Dir::new(&state).unwrap().shared_socket_dir().unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let listener = UnixListener::bind(folder.join("supervisor.sock")).unwrap();
        let error = anyhow::Error::from(Client::connect(&state).await.unwrap_err());
        let nobody_came = futures::poll!(std::pin::pin!(listener.accept())).is_pending();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(format!("{error:#}"), format!("`{}` can be used by others: its mode is 777", folder.display()));
        assert!(crate::error::hint(&error).unwrap().contains("--state-dir"));
        assert!(nobody_came);
    }

    #[tokio::test]
    async fn no_directory_means_that_nothing_listens() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("missing");
        match connect(&dir.join("supervisor.sock"), Some(&dir)).await {
            Err(Refused::Failed(error)) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }

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
        assert!(
            text.starts_with("what runs in `/a/state`, which belongs to user `root` (0), cannot be read"),
            "{text}"
        );
        let text = foreign(dir, Path::new("/a"), Some(4_000_000), 65_534).to_string();
        assert!(text.contains("because `/a` belongs to user 4000000"), "{text}");
    }
}
