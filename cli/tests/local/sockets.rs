//! The supervisor's socket: whom natsctl talks to, and what is left of it.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use natsctl::local::client::{self, Client, Error};
use sha2::{Digest as _, Sha256};

use super::stage::{Stage, eventually, kill, natsctl, service};

/// No user of this system.
const OTHER: u32 = 54_321;

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A state directory whose socket does not fit into it, and the folder that its socket is in instead.
fn long(root: &Path) -> (PathBuf, PathBuf) {
    let dir = root.join("deep/".repeat(30)).join("local");
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(dir.as_os_str().as_encoded_bytes()));
    let user = rustix::process::geteuid().as_raw();
    let folder = Path::new("/tmp").join(format!("natsctl-{user}-{}", &digest[..16]));
    (dir, folder)
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "what is skipped is reported")]
async fn natsctl_does_not_talk_to_the_supervisor_of_another_user() {
    let dir = tempfile::tempdir().unwrap();
    if chown(dir.path(), Some(OTHER), Some(OTHER)).is_err() {
        eprintln!("skipped: a supervisor of another user: only root can start one");
        return;
    }
    let mut supervise = Command::new(natsctl());
    supervise.arg("supervise").arg("--state-dir").arg(dir.path()).current_dir("/").uid(OTHER).gid(OTHER);
    let supervisor = supervise.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(supervisor) = supervisor else { return }; // The program is where only root can read it.
    let _supervisor = Ending(supervisor);
    let foreign = || async {
        match Client::connect(dir.path()).await {
            Ok(None) => None,
            Err(Error::Foreign(foreign)) => Some(foreign),
            other => panic!("{other:?}"),
        }
    };
    let foreign = eventually("the other user's supervisor listens", foreign).await;
    let socket = dir.path().join("supervisor.sock");
    let expected = format!("`{}` is served by a process of user {OTHER}, and natsctl runs as ", socket.display());
    assert!(foreign.to_string().starts_with(&expected), "{foreign}");
    assert!(foreign.hint().contains(&format!("run natsctl as user {OTHER}")), "{}", foreign.hint());
    assert!(matches!(client::describe(dir.path()).await, Err(Error::Foreign(_))));
    assert!(matches!(client::ensure_supervisor_of(natsctl(), dir.path()).await, Err(Error::Foreign(_))));
}

#[tokio::test]
async fn a_shutdown_leaves_no_folder_of_the_socket() {
    let root = tempfile::tempdir().unwrap();
    let (dir, folder) = long(root.path());
    let client = client::ensure_supervisor_of(natsctl(), &dir).await.unwrap();
    assert!(folder.join("supervisor.sock").exists(), "{}", folder.display());
    client.shutdown().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_long_path_is_used_again_after_its_supervisor_was_killed() {
    let root = tempfile::tempdir().unwrap();
    let (dir, folder) = long(root.path());
    let stage = Stage::of(root, client::ensure_supervisor_of(natsctl(), &dir).await.unwrap()).await;
    stage.deploy(service("quest", &[])).await;
    kill(stage.supervisor_pid().await);
    eventually("nothing listens", || async { matches!(Client::connect(&dir).await, Ok(None)).then_some(()) }).await;
    let client = client::ensure_supervisor_of(natsctl(), &dir).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(!folder.exists());
}
