//! A fleet of its own for each test: manifests, state and binaries in a directory that goes away, and processes that go with it.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natsctl::local::client;
use natsctl::local::protocol::{Description, ServiceStatus, TaskState};
use natsctl::nats::locate;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::Http;
use super::run::{Run, Running};
use crate::terminal::pty::{Ended, Size, Terminal};

/// Nothing that these tests wait for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const NATSCTL: &str = env!("CARGO_BIN_EXE_natsctl");

/// The services of most tests: enough that call each other, store and publish, and few enough to be started often.
const SOME: [&str; 6] =
    ["ai-integration", "gateway", "model-management", "npc-behavior", "quest-system", "state-manager"];

pub(crate) struct Fleet {
    dir: TempDir,
    watchdog: Child,
}

impl Fleet {
    /// The manifests of [`SOME`] services, for so many NATS servers on free ports. Nothing runs yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self::with(nodes, SOME.map(|service| format!("{service}.yaml")))
    }

    /// The manifests of all services, each with one task of one worker: a fleet of this size is not the only one that runs.
    pub(crate) fn complete(nodes: usize) -> Self {
        let all = files(&workspace().join("manifests/services")).into_iter();
        let fleet = Self::with(nodes, all.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()));
        let file = fleet.manifest("fleet.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let small =
            text.replace("tasks: 2", "tasks: 1").replace("workers: 2", "workers: 1").replace("min: 2", "min: 1");
        fs::write(&file, small).unwrap();
        fleet
    }

    fn with(nodes: usize, services: impl IntoIterator<Item = String>) -> Self {
        // Beside the binaries, so that they need not be copied.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let watchdog = watchdog(dir.path());
        let fleet = Self { dir, watchdog };
        for folder in ["manifests/services", "manifests/environments", "bin"] {
            fs::create_dir_all(fleet.path(folder)).unwrap();
        }
        let repository = workspace().join("manifests");
        fs::copy(repository.join("fleet.yaml"), fleet.manifest("fleet.yaml")).unwrap();
        for file in services.into_iter().map(|file| format!("services/{file}")) {
            fs::copy(repository.join(&file), fleet.manifest(&file)).unwrap();
        }
        for service in fleet.services() {
            link(&Path::new(NATSCTL).with_file_name(&service), &fleet.path("bin").join(&service));
        }
        fleet.environment(nodes, 0, 0);
        fleet
    }

    /// The same, and everything is deployed.
    pub(crate) async fn deployed(nodes: usize) -> Self {
        let fleet = Self::new(nodes);
        fleet.deploy(&["--all"]).await.ends(0);
        fleet
    }

    /// Writes the environment's manifest.
    pub(crate) fn environment(&self, nodes: usize, client_port: u16, gateway_port: u16) {
        let text = format!(
            "platform: local\nnats: {{ nodes: {nodes}, client_port: {client_port}, route_port: 0, monitor_port: 0 }}\n\
             gateway: {{ port: {gateway_port} }}\n"
        );
        fs::write(self.manifest("environments/test.yaml"), text).unwrap();
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub(crate) fn manifest(&self, file: &str) -> PathBuf {
        self.path("manifests").join(file)
    }

    /// Puts lines at the end of a service's manifest.
    pub(crate) fn append(&self, service: &str, lines: &str) {
        let file = self.manifest(&format!("services/{service}.yaml"));
        fs::write(&file, fs::read_to_string(&file).unwrap() + lines).unwrap();
    }

    /// Adds a service whose program is an example of the SDK.
    pub(crate) fn add_example(&self, example: &str, service: &str, manifest: &str) {
        let program = Path::new(NATSCTL).with_file_name("examples").join(example);
        link(&program, &self.path("bin").join(service));
        let file = self.manifest(&format!("services/{service}.yaml"));
        fs::write(file, format!("name: {service}\n{manifest}")).unwrap();
    }

    /// The manifest of a service, to be written back later.
    pub(crate) fn service_manifest(&self, service: &str) -> (PathBuf, String) {
        let file = self.manifest(&format!("services/{service}.yaml"));
        let text = fs::read_to_string(&file).unwrap();
        (file, text)
    }

    /// A folder with the services' binaries, one of which is this shell script.
    pub(crate) fn binaries_with(&self, service: &str, script: &str) -> String {
        let folder = self.path("broken");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for name in self.services().into_iter().filter(|name| name != service) {
            link(&self.path("bin").join(&name), &folder.join(&name));
        }
        self.script(&format!("broken/{service}"), script);
        folder.display().to_string()
    }

    /// An executable shell script.
    pub(crate) fn script(&self, inside: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(inside);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Puts another release of nats-server where natsctl finds it.
    pub(crate) fn other_nats_server(&self, version: &str) {
        let inside = format!(".tools/nats-server/{version}/nats-server");
        let program = workspace().join(&inside);
        assert!(program.is_file(), "`{}` is missing: run `scripts/nats-server {version}`", program.display());
        fs::create_dir_all(self.path(&inside).parent().unwrap()).unwrap();
        link(&program, &self.path(&inside));
    }

    /// Where natsctl keeps everything of this environment.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state/test")
    }

    /// Names of the services that there are manifests for.
    pub(crate) fn services(&self) -> Vec<String> {
        let name = |file: PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
        files(&self.manifest("services")).into_iter().map(name).collect()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(self.dir.path(), arguments)
    }

    /// Begins a command.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Runs a command at a terminal.
    pub(crate) fn at_a_terminal(&self, arguments: &[&str], size: Size) -> Ended {
        Terminal::start(&self.command(arguments), size).ended()
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Run {
        self.start(arguments).ended().await
    }

    /// Begins `natsctl deploy` with the binaries as they were when the test began.
    pub(crate) fn start_deploy(&self, arguments: &[&str]) -> Running {
        let binaries = self.path("bin").display().to_string();
        self.start(&[&["deploy", "--binaries", &binaries], arguments].concat())
    }

    /// Runs it to its end.
    pub(crate) async fn deploy(&self, arguments: &[&str]) -> Run {
        self.start_deploy(arguments).ended().await
    }

    /// Runs `natsctl plan` with the same binaries.
    pub(crate) async fn plan(&self, arguments: &[&str]) -> Run {
        let binaries = self.path("bin").display().to_string();
        self.run(&[&["plan", "--binaries", &binaries, "--output", "json"], arguments].concat()).await
    }

    /// What `natsctl status` says, which must agree with its exit code.
    pub(crate) async fn status(&self) -> Value {
        let run = self.run(&["status", "--output", "json"]).await;
        let status = run.json();
        run.ends(if status["healthy"] == true { 0 } else { 3 });
        status
    }

    /// `natsctl status` is content now.
    pub(crate) async fn is_healthy(&self) {
        self.run(&["status"]).await.ends(0);
    }

    /// Waits until it is.
    pub(crate) async fn becomes_healthy(&self) {
        eventually("everything is healthy", || async { (self.status().await["healthy"] == true).then_some(()) }).await;
    }

    /// What `natsctl env` says.
    pub(crate) async fn access(&self) -> Value {
        self.run(&["env", "--output", "json"]).await.ends(0).json()
    }

    pub(crate) async fn gateway(&self) -> Http {
        let url = self.access().await["gateway"]["url"].as_str().unwrap().to_owned();
        Http::new(url.strip_prefix("http://").unwrap().parse().unwrap())
    }

    /// What the supervisor has.
    pub(crate) async fn description(&self) -> Description {
        client::describe(&self.state()).await.unwrap().unwrap()
    }

    /// One service, as the supervisor has it.
    pub(crate) async fn service(&self, name: &str) -> ServiceStatus {
        self.description().await.services.remove(name).unwrap()
    }

    /// What everything logged outlives a test that has failed.
    #[expect(clippy::print_stderr, reason = "for the analysis of the failure")]
    fn keep_logs(&self) {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{}", std::process::id()));
        let folders = fs::read_dir(self.state().join("logs")).into_iter().flatten().flatten();
        for file in folders.flat_map(|folder| files(&folder.path())) {
            let folder = to.join(file.parent().and_then(Path::file_name).unwrap_or_default());
            let _ = fs::create_dir_all(&folder);
            let _ = fs::copy(&file, folder.join(file.file_name().unwrap_or_default()));
        }
        for file in ["supervisor.log", "history.jsonl"] {
            let _ = fs::copy(self.state().join(file), to.join(file));
        }
        eprintln!("the logs are in `{}`", to.display());
    }

    /// The processes of this fleet, by number.
    pub(crate) fn processes(&self) -> BTreeMap<u32, String> {
        let ours = self.state().display().to_string();
        processes().into_iter().filter(|(_, command)| command.contains(&ours)).collect()
    }
}

/// Whatever becomes of the test, its fleet is taken down: the watchdog waits for the end of the pipe that this process holds.
fn watchdog(dir: &Path) -> Child {
    let down = command(dir, &["down", "--data"]);
    let mut watchdog = Command::new("/bin/sh");
    watchdog.args(["-c", r#"trap '' INT TERM HUP; cat; exec "$@""#, "watchdog"]);
    watchdog.arg(down.get_program()).args(down.get_args()).current_dir(dir);
    watchdog.envs(down.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // A group of its own: who ends the test's group should not end it.
    watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
        let left = self.processes();
        for pid in left.keys() {
            let _ = kill_process(raw(*pid), Signal::KILL);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "`natsctl down --data` has left {left:#?}");
        }
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(NATSCTL);
    command.args(arguments).current_dir(dir).env(locate::VARIABLE, nats_server());
    command.env("NATSCTL_ENV", "test").env("NATSCTL_MANIFESTS", dir.join("manifests"));
    command.env("NATSCTL_STATE_DIR", dir.join("state"));
    command
}

fn nats_server() -> PathBuf {
    locate::locate(&workspace()).unwrap_or_else(|error| panic!("{error}; {}", error.hint())).path
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The content stays as it is, whatever is built meanwhile.
fn link(binary: &Path, to: &Path) {
    assert!(binary.is_file(), "`{}` is missing: run `cargo build --workspace --all-targets`", binary.display());
    fs::hard_link(binary, to).or_else(|_| fs::copy(binary, to).map(drop)).unwrap();
}

/// All processes that are seen, without those that have ended and wait for their parents.
fn processes() -> BTreeMap<u32, String> {
    if !Path::new("/proc/self/cmdline").exists() {
        let listing = Command::new("ps").args(["-A", "-ww", "-o", "pid=,command="]).output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        let rows = listing.lines().filter_map(|line| line.trim().split_once(' '));
        return rows.filter_map(|(pid, command)| Some((pid.parse().ok()?, command.to_owned()))).collect();
    }
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let command = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    numbers.filter_map(command).collect()
}

/// Polls until something is found.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, poll: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(raw(pid), signal).unwrap();
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// So many tasks of any revision take requests.
pub(crate) fn serving(service: &ServiceStatus) -> usize {
    service.tasks.iter().filter(|task| task.state == TaskState::Ready).count()
}
