//! A supervisor in a directory of its own, and helpers to use it. It is killed when the test ends, and its tasks with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use natsctl::local::client::{self, Client};
use natsctl::local::protocol::{
    Accepted, Description, Force, NodeSpec, PutService, ServiceStatus, TaskSpec, TaskState, TaskStatus,
};
use natsctl::model::desired::{self, Definition, Health, Role};
use natsctl::model::rollout::Outcome;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The limit of every wait in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: Client,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(pid) = self.recorded_pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = client::ensure_supervisor_of(natsctl(), dir.path()).await.unwrap();
        Self::of(dir, client).await
    }

    pub(crate) async fn of(dir: tempfile::TempDir, client: Client) -> Self {
        let stage = Self { dir, client };
        stage.record_pid().await;
        stage
    }

    /// The supervisor's pid is in a file, because a drop cannot request it.
    async fn record_pid(&self) {
        std::fs::write(self.dir.path().join("pid"), self.supervisor_pid().await.to_string()).unwrap();
    }

    fn recorded_pid(&self) -> Option<Pid> {
        Pid::from_raw(std::fs::read_to_string(self.dir.path().join("pid")).ok()?.parse().ok()?)
    }

    pub(crate) async fn restart(&mut self) {
        self.client = client::ensure_supervisor_of(natsctl(), self.dir.path()).await.unwrap();
        self.record_pid().await;
    }

    pub(crate) async fn supervisor_pid(&self) -> u32 {
        self.describe().await.supervisor.unwrap().pid
    }

    pub(crate) async fn describe(&self) -> Description {
        self.client.describe().await.unwrap()
    }

    pub(crate) async fn service(&self, name: &str) -> ServiceStatus {
        self.describe().await.services.remove(name).unwrap()
    }

    pub(crate) async fn put(&self, service: PutService) -> Accepted {
        self.client.put_service(service).await.unwrap()
    }

    pub(crate) async fn outcome(&self, name: &str, accepted: Accepted) -> Outcome {
        let deployments = BTreeMap::from([(name.to_owned(), accepted.deployment_id)]);
        self.client.follow(&deployments, PATIENCE, |_| {}).await.unwrap().remove(name).unwrap()
    }

    /// Deploys and expects the deployment to complete.
    pub(crate) async fn deploy(&self, service: PutService) -> ServiceStatus {
        let name = service.name.clone();
        let accepted = self.put(service).await;
        assert_eq!(self.outcome(&name, accepted).await, Outcome::Completed);
        self.service(&name).await
    }

    /// Waits until the status of a service meets a condition.
    pub(crate) async fn until(&self, name: &str, what: &str, holds: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        let found = || async { Some(self.service(name).await).filter(&holds) };
        eventually(what, found).await
    }
}

pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn natsctl() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_natsctl"))
}

fn fake_task() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/fake_task");
    assert!(path.exists(), "`{}` is missing: run `cargo build --package natsctl --examples`", path.display());
    path
}

/// A service of two tasks that are ready at once, with these environment variables.
pub(crate) fn service(name: &str, env: &[(&str, &str)]) -> PutService {
    let environment: BTreeMap<_, _> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let definition = Definition {
        artifact: "sha256:1".to_owned(),
        version: "0.1.0".to_owned(),
        role: Role::Worker,
        permissions: String::new(),
        environment: environment.clone(),
        secrets: BTreeMap::new(),
        cpu: 256,
        memory_mib: 512,
        workers: 1,
        concurrency: 100,
        health: Health {
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::from_secs(10),
        },
        stop_timeout: Duration::from_secs(10),
        ecs: None,
    };
    let spec = TaskSpec { definition, program: fake_task(), env: environment, secrets: BTreeMap::new() };
    let name = name.to_owned();
    PutService { name, spec, declared_tasks: 2, tasks: 2, http_listen: None, force: Force::IfChanged }
}

pub(crate) fn node(args: &[&str], config: &str) -> NodeSpec {
    NodeSpec {
        node: desired::Node { version: "1".to_owned(), config: config.to_owned(), accounts: String::new() },
        program: "/bin/sh".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        config_path: "/dev/null".into(),
        monitor: None,
    }
}

pub(crate) fn pids(service: &ServiceStatus) -> Vec<u32> {
    service.tasks.iter().filter_map(|task| task.pid).collect()
}

pub(crate) fn ready(service: &ServiceStatus) -> Vec<&TaskStatus> {
    service.tasks.iter().filter(|task| task.state == TaskState::Ready).collect()
}

pub(crate) fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill_process(raw(pid), signal).unwrap();
}

/// A zombie does not run, even if its parent has not reaped it yet.
pub(crate) fn runs(pid: u32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    test_kill_process(raw(pid)).is_ok() && !zombie
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// The body of the response.
pub(crate) fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}
