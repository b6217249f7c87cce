//! Requests that the supervisor cannot answer, or cannot carry out.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use natsctl::local::client::{self, Client, Error};
use rustix::process::Signal;

use super::stage::{Stage, eventually, node, pids, ready, send, service};

/// A request that is not answered ends in this time.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_supervisor_that_hangs_is_named_by_every_request() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[])).await;
    let supervisor = stage.supervisor_pid().await;
    send(supervisor, Signal::STOP);
    let began = Instant::now();
    let (client, dir) = (&stage.client, stage.dir.path());
    let (described, put, deleted, shut_down, connected) = tokio::join!(
        client.describe(),
        client.put_node("nats-1", node(&["-c", "exec sleep 600"], "a")),
        client.delete_service("other"),
        client.shutdown(),
        client::describe(dir),
    );
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let refused = [described.err(), put.err(), deleted.err(), shut_down.err(), connected.err()];
    for error in refused {
        let error = error.unwrap();
        assert!(matches!(error, Error::Silent { pid: Some(pid) } if pid == supervisor), "{error:?}");
        assert_eq!(error.to_string(), format!("the supervisor (pid {supervisor}) does not answer within 5 s"));
        assert!(error.hint().unwrap().contains(&format!("kill -CONT {supervisor}")));
    }
    assert!(matches!(Client::connect(dir).await, Err(Error::Silent { .. })));
}

#[tokio::test]
async fn a_supervisor_that_goes_on_answers_again() {
    let stage = Stage::start().await;
    let supervisor = stage.supervisor_pid().await;
    send(supervisor, Signal::STOP);
    assert!(matches!(stage.client.describe().await, Err(Error::Silent { .. })));
    send(supervisor, Signal::CONT);
    assert_eq!(stage.supervisor_pid().await, supervisor);
}

#[tokio::test]
async fn a_deletion_that_takes_its_time_is_waited_for() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[("DRAIN_MS", "7000")])).await;
    let began = Instant::now();
    stage.client.delete_service("quest").await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(stage.describe().await.services.is_empty());
}

#[tokio::test]
async fn a_process_that_was_stopped_drains_when_it_is_replaced() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let stopped = pids(&before)[0];
    send(stopped, Signal::STOP);
    let began = Instant::now();
    stage.client.delete_service("quest").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_is_restarted_on_request_also_where_nothing_differs() {
    let stage = Stage::start().await;
    let spec = node(&["-c", "exec sleep 600"], "a");
    stage.client.put_node("nats-1", spec.clone()).await.unwrap();
    let first = eventually("it runs", || async { stage.describe().await.nodes["nats-1"].pid }).await;
    send(first, Signal::STOP);
    let began = Instant::now();
    stage.client.restart_node("nats-1", spec).await.unwrap();
    eventually("another process runs", || async {
        stage.describe().await.nodes["nats-1"].pid.filter(|pid| *pid != first)
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(stage.describe().await.nodes["nats-1"].restarts, 0);
}

/// A state file that cannot be replaced, also not by root: a folder is in its place.
struct Blocked(PathBuf);

impl Blocked {
    fn new(stage: &Stage) -> Self {
        let file = stage.dir.path().join("state.json");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        Self(file)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_saved_is_refused_and_undone() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let blocked = Blocked::new(&stage);
    let mut scaled = service("quest", &[]);
    scaled.tasks = 3;
    let (client, sleeper) = (&stage.client, || node(&["-c", "exec sleep 600"], "a"));
    let refused = [
        client.put_service(scaled.clone()).await.err(),
        client.put_service(service("other", &[])).await.err(),
        client.put_node("nats-1", sleeper()).await.err(),
        client.restart_node("nats-1", sleeper()).await.err(),
        client.delete_service("quest").await.err(),
    ];
    for error in refused {
        let error = error.unwrap();
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("cannot save its state, so nothing was changed: failed to write `"), "{text}");
        assert!(text.contains("state.json`: "), "{text}");
        assert!(error.hint().unwrap().contains("make room"), "{error:?}");
    }
    let description = stage.describe().await;
    assert_eq!(description.services.keys().collect::<Vec<_>>(), ["quest"]);
    assert_eq!((description.nodes.len(), &description.services["quest"]), (0, &before));

    drop(blocked);
    let scaled = stage.deploy(scaled).await;
    assert_eq!(ready(&scaled).len(), 3);
    assert_eq!(stage.describe().await.unsaved, None);
}

#[tokio::test]
async fn what_changes_by_itself_is_saved_as_soon_as_that_is_possible() {
    let stage = Stage::start().await;
    let accepted = stage.put(service("quest", &[("READY_AFTER_MS", "500")])).await;
    let blocked = Blocked::new(&stage);
    stage.outcome("quest", accepted).await;
    let unsaved = || async { stage.describe().await.unsaved };
    let reason = eventually("the supervisor says so", unsaved).await;
    assert!(reason.contains("state.json"), "{reason}");
    drop(blocked);
    eventually("it is saved", || async { unsaved().await.is_none().then_some(()) }).await;
    assert!(fs::read_to_string(stage.dir.path().join("state.json")).unwrap().contains("completed"));
}

#[tokio::test]
async fn a_supervisor_whose_socket_was_removed_listens_again() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[("DRAIN_MS", "3000")])).await;
    let supervisor = stage.supervisor_pid().await;
    // Whoever waits for an answer gets it.
    let client = stage.client.clone();
    let deletion = tokio::spawn(async move { client.delete_service("quest").await });
    eventually("it drains", || async {
        let quest = stage.describe().await.services.remove("quest")?;
        ready(&quest).is_empty().then_some(())
    })
    .await;
    fs::remove_file(stage.dir.path().join("supervisor.sock")).unwrap();
    let description = client::describe(stage.dir.path()).await.unwrap().unwrap();
    assert_eq!(description.supervisor.unwrap().pid, supervisor);
    deletion.await.unwrap().unwrap();
    assert!(stage.describe().await.services.is_empty());
}

#[tokio::test]
async fn a_supervisor_that_hangs_without_its_socket_is_named() {
    let stage = Stage::start().await;
    let supervisor = stage.supervisor_pid().await;
    send(supervisor, Signal::STOP);
    fs::remove_file(stage.dir.path().join("supervisor.sock")).unwrap();
    let error = client::describe(stage.dir.path()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { pid, .. } if pid == supervisor), "{error:?}");
    assert!(error.hint().unwrap().contains(&format!("kill {supervisor}")), "{error:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_on_a_full_disk_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("supervisor.log")).unwrap();
    let client = client::ensure_supervisor_of(super::stage::natsctl(), dir.path()).await.unwrap();
    let stage = Stage::of(dir, client).await;
    stage.deploy(service("quest", &[])).await;
    assert_eq!(ready(&stage.service("quest").await).len(), 2);
    stage.client.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_that_leaves_the_state_behind_says_so() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[])).await;
    let _blocked = Blocked::new(&stage);
    let error = stage.client.shutdown().await.unwrap_err();
    assert!(error.to_string().starts_with("everything is stopped, but a deployment would start it again: "), "{error}");
}
