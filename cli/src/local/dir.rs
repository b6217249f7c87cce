//! The state directory of one environment: where its files are.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::owner::{self, Foreign};
use crate::error::{Hinted, at};

/// The longest path of a unix socket that every system accepts: macOS has 104 bytes, of which the last is a zero.
const MAX_SOCKET_PATH: usize = 103;

/// Files of a state directory.
const FILES: [&str; 13] = [
    "state.json",
    "state.json.backup",
    "ports.json",
    "ports.json.backup",
    "ports.json.lock",
    "endpoints.json",
    "endpoints.json.backup",
    "history.jsonl",
    "lock",
    "keys.lock",
    "supervisor.lock",
    "supervisor.log",
    "artifacts/index.json",
];

/// Folders of a state directory.
const FOLDERS: [&str; 7] = ["artifacts", "identities", "logs", "nats", "pki", "failures", "secrets"];

/// The state directory, `.natsctl/<environment>`.
#[derive(Clone, Debug)]
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        std::path::absolute(path).map(Self)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn create(&self) -> io::Result<()> {
        create_private(&self.0)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("supervisor.lock")
    }

    pub(super) fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    pub(super) fn ports(&self) -> PathBuf {
        self.0.join("ports.json")
    }

    pub(super) fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    /// Values of secrets, which the user writes.
    pub(super) fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// What is there and is not what it should be: a folder in the place of a file, or the other way round.
    pub(super) fn misplaced(&self) -> Vec<Hinted> {
        let is_wrong = |name: &str, right: fn(&fs::Metadata) -> bool| {
            let path = self.0.join(name);
            fs::metadata(&path).is_ok_and(|metadata| !right(&metadata)).then_some(path)
        };
        let files = FILES.iter().filter_map(|name| is_wrong(name, fs::Metadata::is_file));
        let files = files.map(|path| {
            let hint = "remove it, or restore the file from a backup; `natsctl deploy --all` writes a new one";
            Hinted::new(format!("`{}` is no file", path.display()), hint)
        });
        let folders = FOLDERS.iter().filter_map(|name| is_wrong(name, fs::Metadata::is_dir));
        let folders = folders.map(|path| {
            let hint = "remove it, or restore the folder from a backup; `natsctl deploy --all` makes a new one";
            Hinted::new(format!("`{}` is no folder", path.display()), hint)
        });
        files.chain(folders).collect()
    }

    /// Logs of one service or node.
    pub(super) fn logs(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(name)
    }

    pub(super) fn log(&self, name: &str, task: &str) -> PathBuf {
        self.logs(name).join(format!("{task}.log"))
    }

    /// A path that is too long for a socket is replaced by a short one that depends on nothing but the directory and the user. It is under
    /// `/tmp` rather than `TMPDIR`, which may differ between two shells.
    pub(super) fn socket(&self) -> PathBuf {
        let socket = self.0.join("supervisor.sock");
        if socket.as_os_str().len() <= MAX_SOCKET_PATH {
            return socket;
        }
        let digest = hex(&Sha256::digest(self.0.as_os_str().as_bytes()));
        let user = rustix::process::geteuid().as_raw();
        Path::new("/tmp").join(format!("natsctl-{user}-{}", &digest[..16])).join("supervisor.sock")
    }

    /// The directory of the socket, if it is not this one but a directory among those of other users.
    pub(super) fn shared_socket_dir(&self) -> Option<PathBuf> {
        let socket = self.socket();
        socket.parent().filter(|dir| *dir != self.0).map(Path::to_owned)
    }

    /// Creates the directory of the socket, and refuses one that another user can use.
    pub(super) fn create_socket_dir(&self) -> io::Result<()> {
        let Some(dir) = self.shared_socket_dir() else { return Ok(()) };
        create_private(&dir)?;
        owner::is_private(&dir)?.map_err(Foreign::into_io)
    }

    /// Removes the directory of the socket, if it is among those of other users, with the socket that a killed supervisor has left there.
    pub(super) fn remove_shared_socket_dir(&self) -> io::Result<()> {
        let Some(dir) = self.shared_socket_dir().filter(|dir| matches!(owner::is_private(dir), Ok(Ok(())))) else {
            return Ok(());
        };
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &self.socket())(error)),
            _ => fs::remove_dir(&dir).map_err(at("remove", &dir)),
        }
    }
}

/// How long a lock may be held that is there for short work only.
const LOCK: Duration = Duration::from_secs(10);

/// Locks a file for a short piece of work; the lock ends with the file. Waits for another process, but not for one that hangs.
///
/// The error names the file and, where the system tells, who holds it.
pub(super) fn lock_briefly(path: &Path) -> io::Result<File> {
    lock_within(path, LOCK)
}

fn lock_within(path: &Path, limit: Duration) -> io::Result<File> {
    let failed = |error: io::Error| {
        let message = format!("failed to lock `{}`", path.display());
        let hint = "if it is no file, remove it: it holds nothing";
        io::Error::new(error.kind(), Hinted::new(message, hint).because(error))
    };
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
    let (locked, wait) = mpsc::channel();
    // A thread that gets the lock too late drops it.
    std::thread::spawn(move || locked.send(file.lock().map(|()| file)));
    match wait.recv_timeout(limit) {
        Ok(result) => result.map_err(failed),
        Err(_) => {
            let holder = lock_holder(path).map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            let message = format!("`{}` has been locked by another process{holder} for {limit:?}", path.display());
            let hint =
                "if that process was stopped, `kill -CONT` lets it go on; else end it, then run the command again";
            Err(io::Error::new(io::ErrorKind::TimedOut, Hinted::new(message, hint)))
        }
    }
}

/// The process that holds the lock of a file, where the system tells.
pub(super) fn lock_holder(path: &Path) -> Option<u32> {
    let listed = listed_lock_holder(path)?;
    // The list is of all file systems: a file with the same number elsewhere is not this one.
    let free = File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok());
    (!free).then_some(listed)
}

/// As Linux lists it.
fn listed_lock_holder(path: &Path) -> Option<u32> {
    let inode = format!(":{}", fs::metadata(path).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let rows = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`; who waits has an arrow in the second column.
    let held = rows.into_iter().find(|row| row.len() > 5 && row[1] == "FLOCK" && row[5].ends_with(&inode))?;
    held[4].parse().ok()
}

/// Creates a directory that only its owner can access.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| match error.kind() {
        kind @ (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory) => {
            let hint = "natsctl keeps its files there; `--state-dir` names another folder for them";
            io::Error::new(kind, Hinted::new(at("make", path)(error).to_string(), hint))
        }
        _ => at("make", path)(error),
    })
}

/// Replaces a file. Readers see the old content or the new, never half of it, also after the machine has lost power.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    write_synced(&draft, content)
        .and_then(|()| fs::rename(&draft, path))
        .inspect_err(|_| {
            // On a full disk the draft takes the space that the next attempt needs.
            let _ = fs::remove_file(&draft);
        })
        .map_err(at("write", path))?;
    // The new name is durable once its directory is.
    path.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("write", dir)))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_long_path_is_short_and_always_the_same() {
        let long = Path::new("/").join("deep/".repeat(40));
        let dir = Dir::new(&long).unwrap();
        assert!(dir.socket().as_os_str().len() <= MAX_SOCKET_PATH);
        assert_eq!(dir.socket(), Dir::new(&long).unwrap().socket());
        assert_ne!(dir.socket(), Dir::new(&long.join("other")).unwrap().socket());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats.conf");
        write_atomically(&path, b"a long first content").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        write_atomically(&dir.path().join("missing/nats.conf"), b"third").unwrap_err();
        fs::create_dir(dir.path().join("directory")).unwrap();
        write_atomically(&dir.path().join("directory"), b"third").unwrap_err();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_lock_that_is_not_released_names_its_file_and_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json.lock");
        let held = lock_briefly(&path).unwrap();
        let refused = anyhow::Error::from(lock_within(&path, Duration::from_millis(50)).unwrap_err());
        let expected = format!("`{}` has been locked by another process", path.display());
        assert!(refused.to_string().starts_with(&expected), "{refused:#}");
        if cfg!(target_os = "linux") {
            assert!(refused.to_string().contains(&format!("(pid {})", std::process::id())), "{refused:#}");
        }
        assert!(crate::error::hint(&refused).is_some());
        drop(held);
        lock_briefly(&path).unwrap();
    }

    #[test]
    fn the_socket_of_a_short_path_is_in_the_directory() {
        assert_eq!(Dir::new(Path::new("/a")).unwrap().socket(), Path::new("/a/supervisor.sock"));
    }
}
