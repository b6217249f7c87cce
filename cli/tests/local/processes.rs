//! Processes: what happens to them when the supervisor or another process ends, and what they inherit.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use natsctl::local::client::{self, Client, Error};
use natsctl::local::logs::{Follower, TaskLogs};
use natsctl::local::protocol::PutService;
use natsctl::model::desired::Role;
use natsctl::model::log::Filter;
use natsctl::model::rollout::Outcome;

use super::stage::{PATIENCE, Stage, eventually, get, kill, natsctl, node, pids, ready, runs, service};

fn gateway(port: u16) -> PutService {
    let mut gateway = service("gateway", &[]);
    gateway.spec.definition.role = Role::Gateway;
    gateway.http_listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    gateway
}

#[tokio::test]
async fn killing_the_supervisor_leaves_no_process_and_the_next_one_starts_them_again() {
    let mut stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    stage.client.put_node("nats-1", node(&["-c", "exec sleep 600"], "a")).await.unwrap();
    let sleeper = eventually("the node runs", || async { stage.describe().await.nodes["nats-1"].pid }).await;
    kill(stage.supervisor_pid().await);
    let orphans = [pids(&before), vec![sleeper]].concat();
    eventually("no process is left", || async { (!orphans.iter().any(|pid| runs(*pid))).then_some(()) }).await;

    assert!(Client::connect(stage.dir.path()).await.unwrap().is_none());
    let description = client::describe(stage.dir.path()).await.unwrap().unwrap();
    assert!(description.supervisor.is_none());
    assert_eq!((description.services["quest"].desired, description.services["quest"].ready()), (2, 0));
    assert!(!description.nodes["nats-1"].running);

    stage.restart().await;
    let after = stage.deploy(service("quest", &[])).await;
    assert_eq!((after.revision, ready(&after).len()), (1, 2));
    eventually("the node runs again", || async { stage.describe().await.nodes["nats-1"].pid }).await;
}

#[tokio::test]
async fn a_supervisor_that_gets_sigterm_stops_everything_and_the_next_one_starts_it_again() {
    let mut stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let pid = rustix::process::Pid::from_raw(stage.supervisor_pid().await.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    eventually("the supervisor has ended", || async {
        // Just before, it closes a connection without an answer.
        matches!(Client::connect(stage.dir.path()).await, Ok(None)).then_some(())
    })
    .await;
    assert!(!pids(&before).into_iter().any(runs));
    stage.restart().await;
    stage.until("quest", "the tasks are back", |quest| ready(quest).len() == 2).await;
}

#[tokio::test]
async fn a_shutdown_leaves_nothing() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[("DRAIN_MS", "100")])).await;
    let supervisor = stage.supervisor_pid().await;
    stage.client.put_node("nats-1", node(&["-c", "exec sleep 600"], "a")).await.unwrap();
    let sleeper = eventually("the node runs", || async { stage.describe().await.nodes["nats-1"].pid }).await;
    stage.client.shutdown().await.unwrap();
    assert!(![pids(&before), vec![sleeper]].concat().into_iter().any(runs));
    eventually("the supervisor has ended", || async { (!runs(supervisor)).then_some(()) }).await;
    assert_eq!(client::describe(stage.dir.path()).await.unwrap(), None);
    assert!(!stage.dir.path().join("supervisor.sock").exists());
}

#[tokio::test]
async fn a_second_supervisor_is_refused() {
    let stage = Stage::start().await;
    let mut second = Command::new(natsctl());
    second.args(["supervise", "--state-dir"]).arg(stage.dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || second.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("another supervisor runs in"), "{message}");
    stage.describe().await;
}

#[tokio::test]
async fn a_supervisor_that_does_not_start_shows_its_log() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("supervisor.log"), "old news\n").unwrap();
    std::fs::write(dir.path().join("state.json"), "{").unwrap();
    let error = client::ensure_supervisor_of(natsctl(), dir.path()).await.unwrap_err();
    match &error {
        Error::NotStarted { log_tail } => {
            assert!(log_tail[0].contains("failed to read"), "{log_tail:?}");
            assert!(log_tail[1].starts_with("hint: delete it"), "{log_tail:?}");
        }
        other => panic!("{other:?}"),
    }
    // Its reason and its hint become those of the command.
    let said = error.to_string();
    assert!(said.starts_with("the supervisor did not start: failed to read `"), "{said}");
    assert!(error.hint().unwrap().starts_with("delete it"), "{:?}", error.hint());
}

#[tokio::test]
async fn a_supervisor_that_ends_without_a_reason_shows_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let error = Error::NotStarted { log_tail: vec!["started".to_owned(), "killed".to_owned()] };
    assert_eq!(error.to_string(), "the supervisor did not start");
    assert_eq!(error.hint().as_deref(), Some("the end of its log:\nstarted\nkilled"));
    let error = client::ensure_supervisor_of("/bin/true".as_ref(), dir.path()).await.unwrap_err();
    assert_eq!((error.to_string(), error.hint()), ("the supervisor did not start".to_owned(), None));
}

#[tokio::test]
async fn a_supervisor_whose_state_file_is_damaged_continues_from_the_backup() {
    let mut stage = Stage::start().await;
    stage.deploy(service("quest", &[])).await;
    let supervisor = stage.supervisor_pid().await;
    kill(supervisor);
    eventually("the supervisor has ended", || async {
        // Just before, a connection is closed without an answer.
        matches!(Client::connect(stage.dir.path()).await, Ok(None)).then_some(())
    })
    .await;
    std::fs::write(stage.dir.path().join("state.json"), "").unwrap();
    assert_eq!(client::describe(stage.dir.path()).await.unwrap().unwrap().services["quest"].desired, 2);
    stage.restart().await;
    stage.until("quest", "the tasks are back", |quest| ready(quest).len() == 2).await;
}

#[tokio::test]
async fn two_commands_that_start_it_at_the_same_time_share_one_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = tokio::join!(
        client::ensure_supervisor_of(natsctl(), dir.path()),
        client::ensure_supervisor_of(natsctl(), dir.path()),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.describe().await.unwrap().supervisor, other.describe().await.unwrap().supervisor);
    one.shutdown().await.unwrap();
    // The other process does not take its place.
    let supervisors = || {
        let processes =
            std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("cmdline"));
        let lines = processes.filter_map(|file| std::fs::read_to_string(file).ok());
        lines.filter(|line| line.contains("supervise") && line.contains(dir.path().to_str().unwrap())).count()
    };
    eventually("no supervisor is left", || async { (supervisors() == 0).then_some(()) }).await;
    assert!(Client::connect(dir.path()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_node_is_restarted_when_it_dies_or_changes() {
    let stage = Stage::start().await;
    let sleeping = node(&["-c", "echo up; exec sleep 600"], "a");
    stage.client.put_node("nats-1", sleeping.clone()).await.unwrap();
    let first = eventually("it runs", || async { stage.describe().await.nodes["nats-1"].pid }).await;
    stage.client.put_node("nats-1", sleeping).await.unwrap();
    assert_eq!(stage.describe().await.nodes["nats-1"].pid, Some(first));
    kill(first);
    let replaced = |old: u32| {
        let stage = &stage;
        eventually("another process runs", move || async move {
            stage.describe().await.nodes["nats-1"].pid.filter(|pid| *pid != old)
        })
    };
    let second = replaced(first).await;
    assert_eq!(stage.describe().await.nodes["nats-1"].restarts, 1);
    stage.client.put_node("nats-1", node(&["-c", "exec sleep 600"], "b")).await.unwrap();
    replaced(second).await;
    assert_eq!(stage.describe().await.nodes["nats-1"].restarts, 1);
}

#[tokio::test]
async fn a_node_that_ends_shows_its_last_lines() {
    let stage = Stage::start().await;
    stage.client.put_node("nats-1", node(&["-c", "echo bad configuration; exit 1"], "a")).await.unwrap();
    let status = eventually("it is down", || async {
        Some(stage.describe().await.nodes["nats-1"].clone()).filter(|node| !node.log_tail.is_empty())
    })
    .await;
    assert_eq!(status.log_tail, ["bad configuration"]);
    assert_eq!(status.last_exit, Some(natsctl::local::protocol::Exit::Code(1)));
    stage.client.delete_node("nats-1").await.unwrap();
    assert!(stage.describe().await.nodes.is_empty());
}

#[tokio::test]
async fn all_gateway_tasks_take_connections_from_one_port() {
    let stage = Stage::start().await;
    let deployed = stage.deploy(gateway(0)).await;
    let port = deployed.http.unwrap().port();
    let expected: BTreeSet<_> = deployed.tasks.iter().map(|task| task.id.clone()).collect();
    // Which task takes a connection is the system's choice: with one stopped, the other must.
    let mut seen = BTreeSet::new();
    for (paused, other) in [(0, 1), (1, 0)] {
        let _paused = Paused::new(deployed.tasks[paused].pid.unwrap());
        seen.insert(get(port, "/").unwrap());
        assert!(seen.contains(&deployed.tasks[other].id));
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_gateway_port_takes_connections_throughout_a_roll() {
    let stage = Stage::start().await;
    let port = stage.deploy(gateway(0)).await.http.unwrap().port();
    let rolling = stage.deploy(PutService { force: natsctl::local::protocol::Force::NewDeployment, ..gateway(0) });
    let connecting = tokio::task::spawn_blocking(move || {
        let until = std::time::Instant::now() + Duration::from_millis(500);
        while std::time::Instant::now() < until {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect_err("the port stays open");
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    });
    let (after, connected) = tokio::join!(rolling, connecting);
    connected.unwrap();
    assert_eq!(after.http.unwrap().port(), port);
}

#[tokio::test]
async fn a_gateway_port_that_is_taken_names_the_process() {
    let stage = Stage::start().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    match stage.client.put_service(gateway(port)).await {
        Err(Error::Refused(refusal)) => {
            assert!(refusal.message.starts_with(&format!("port {port} is in use by `")), "{}", refusal.message);
            assert!(refusal.message.ends_with(&format!("(pid {})", std::process::id())), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(stage.describe().await.services.is_empty());
}

#[tokio::test]
async fn the_supervisors_environment_stays_with_it() {
    let stage = Stage::start().await;
    let deployed = stage.deploy(service("quest", &[("PRINT", "hello")])).await;
    let names = get(deployed.tasks[0].health_port.unwrap(), "/env").unwrap();
    let traces = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY"];
    let allowed = ["PATH", "HOME", "TMPDIR", "TASK_ID", "SERVICE_REVISION", "PRINT", "LISTEN_FDNAMES"];
    assert!(names.lines().all(|name| allowed.contains(&name) || traces.contains(&name)), "{names}");
    assert!(names.contains("TASK_ID") && names.contains("SERVICE_REVISION"));
    assert!(traces.iter().all(|name| names.contains(name)), "{names}");
}

#[tokio::test]
async fn logs_of_all_tasks_are_followed() {
    let stage = Stage::start().await;
    let mut follower =
        Follower::new(TaskLogs::new(stage.dir.path(), ["quest"]).unwrap(), Filter::default(), 10).await.unwrap();
    let accepted = stage.put(service("quest", &[])).await;
    let mut tasks = BTreeSet::new();
    for _ in 0..2 {
        let line = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap();
        assert_eq!(line.text, "hello");
        tasks.insert(line.task);
    }
    assert_eq!(tasks.len(), 2);
    assert_eq!(stage.outcome("quest", accepted).await, Outcome::Completed);
}

#[tokio::test]
async fn a_name_that_is_no_file_name_is_refused() {
    let stage = Stage::start().await;
    assert!(matches!(stage.client.put_service(service("../quest", &[])).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn a_shim_that_stays_ends_with_its_pipe() {
    let mut shim = Command::new(natsctl());
    shim.args(["shim", "stay", &std::process::id().to_string(), "/bin/sh", "-c", "echo $$; exec sleep 600"]);
    std::os::unix::process::CommandExt::process_group(&mut shim, 0);
    let mut shim = shim.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(shim.stdout.take().unwrap()), &mut line).unwrap();
    let program = line.trim().parse().unwrap();
    assert!(runs(program));
    drop(shim.stdin.take());
    eventually("the program has ended", || async { (!runs(program)).then_some(()) }).await;
    shim.wait().unwrap();
}

#[test]
fn a_shim_that_stays_passes_on_how_the_program_ended() {
    let mut shim = Command::new(natsctl());
    shim.args(["shim", "stay", &std::process::id().to_string(), "/bin/sh", "-c", "exit 7"]);
    let mut shim = shim.stdin(Stdio::piped()).spawn().unwrap();
    // Waiting closes the pipe, which would end it.
    let _pipe = shim.stdin.take();
    assert_eq!(shim.wait().unwrap().code(), Some(7));
}

#[test]
fn a_shim_whose_supervisor_is_gone_does_not_run_the_program() {
    let output = Command::new(natsctl()).args(["shim", "exec", "1", "/bin/echo", "ran"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"");
}

/// A process that is paused by SIGSTOP until this is dropped.
struct Paused(rustix::process::Pid);

impl Paused {
    fn new(pid: u32) -> Self {
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}
