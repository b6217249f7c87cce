//! Talks to the supervisor, and starts it if need be.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::dir::{Dir, lock_holder};
use super::logs;
use super::owner::{self, Foreign, Refused};
use super::protocol::{
    Accepted, Deployment, DeploymentState, Description, FoundTraces, NodeSpec, PROTOCOL, PutService, Refusal, Request,
    Response, ServiceStatus, TaskState,
};
use super::supervisor::SavedState;
use crate::error::{Hinted, at};
use crate::model::rollout::{Advance, Failure, Outcome, StoppedTask};
use crate::model::trace::TracePrefix;
use crate::problem::counted;

/// How long the supervisor may take to answer after it was started.
const START: Duration = Duration::from_secs(5);

/// How long the supervisor may take to end after it has stopped everything.
const END: Duration = Duration::from_secs(5);

/// How long the supervisor may take to answer. What it takes longer for, it is asked about meanwhile.
const ANSWER: Duration = Duration::from_secs(5);

/// Between two questions whether it is still there.
const STILL_THERE: Duration = Duration::from_secs(1);

/// So many lines of its log say why it did not start.
const LAST_WORDS: usize = 10;

/// Between two checks of something that is about to happen.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Between two descriptions while deployments are followed.
const FOLLOW: Duration = Duration::from_millis(100);

/// Why a request to the supervisor failed. No [`std::error::Error`]: it becomes one together with its hint.
#[derive(Debug)]
pub enum Error {
    /// The supervisor refused it.
    Refused(Refusal),
    /// The supervisor went away, or could not be reached.
    Lost(io::Error),
    /// The supervisor is there and does not answer.
    Silent {
        /// Its process, where the system tells.
        pid: Option<u32>,
    },
    /// The supervisor belongs to another version of natsctl.
    OtherProtocol {
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// A supervisor runs, and nothing listens where it should.
    Unreachable {
        /// Its process.
        pid: u32,
        /// Where it should listen.
        socket: PathBuf,
    },
    /// The supervisor did not start.
    NotStarted {
        /// The last lines of its log.
        log_tail: Vec<String>,
    },
    /// The supervisor, or the place of its socket, belongs to another user.
    Foreign(Foreign),
    /// The answer is not one to the request.
    Confused,
    /// A file or a process of this machine.
    Machine(io::Error),
}

impl Error {
    /// How to fix it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::Foreign(foreign) => Some(foreign.hint().to_owned()),
            Self::OtherProtocol { pid, .. } => {
                let kill = format!("stop it with `kill {pid}`, which stops the environment's processes too");
                Some(format!("{kill}, then run `natsctl deploy --all`"))
            }
            Self::Lost(_) => Some("run the command again".to_owned()),
            Self::Unreachable { pid, .. } => {
                let cont = format!("if it was stopped, `kill -CONT {pid}` lets it go on and make another");
                let kill = format!("`kill {pid}` ends it and all of the environment's processes");
                Some(format!("{cont}; {kill}, and `natsctl deploy --all` starts them again with their data"))
            }
            Self::Silent { pid: None } => Some("run the command again in a moment".to_owned()),
            Self::Silent { pid: Some(pid) } => {
                let cont = format!("if it was stopped, `kill -CONT {pid}` lets it go on");
                let kill = format!("`kill -KILL {pid}` ends it and all of the environment's processes");
                Some(format!("{cont}; {kill}, and `natsctl deploy --all` starts them again with their data"))
            }
            Self::NotStarted { log_tail } => match (last(log_tail, "hint: "), last(log_tail, "error: ")) {
                (Some(hint), _) => Some(hint.to_owned()),
                (None, None) if !log_tail.is_empty() => Some(format!("the end of its log:\n{}", log_tail.join("\n"))),
                _ => None,
            },
            Self::Confused | Self::Machine(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.message),
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::Lost(_) => f.write_str("the supervisor cannot be reached"),
            Self::Silent { pid } => {
                let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                write!(f, "the supervisor{pid} does not answer within {} s", ANSWER.as_secs())
            }
            Self::OtherProtocol { pid, version } => {
                write!(
                    f,
                    "the supervisor (pid {pid}, natsctl {version}) speaks another protocol than this natsctl ({PROTOCOL})"
                )
            }
            Self::Unreachable { pid, socket } => {
                write!(f, "the supervisor (pid {pid}) runs, but its socket `{}` is gone", socket.display())
            }
            Self::NotStarted { log_tail } => {
                let reason = last(log_tail, "error: ").map(|reason| format!(": {reason}")).unwrap_or_default();
                write!(f, "the supervisor did not start{reason}")
            }
            Self::Confused => f.write_str("the supervisor's answer is not one to the request"),
            Self::Machine(_) => f.write_str("failed to use the state directory"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Machine(error)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Foreign(foreign) => Self::Foreign(foreign),
            Refused::Failed(error) => Self::Lost(error),
        }
    }
}

impl From<Error> for anyhow::Error {
    fn from(error: Error) -> Self {
        let hinted = Hinted::with(error.to_string(), error.hint());
        match error {
            Error::Lost(source) | Error::Machine(source) => hinted.because(source).into(),
            _ => hinted.into(),
        }
    }
}

/// What happens while deployments are followed.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A deployment has come further, or waits for something else.
    Advanced {
        /// Of this service.
        service: String,
        /// How far.
        advance: Advance,
    },
    /// A deployment has come to an end.
    Ended {
        /// Of this service.
        service: String,
        /// To which one.
        outcome: Outcome,
    },
}

/// What runs or should run in a state directory: from the supervisor, or from what the last one has left. `None`: nothing was ever started
/// there, or all of it was shut down.
pub async fn describe(state_dir: &Path) -> Result<Option<Description>, Error> {
    match find(state_dir).await? {
        Some(client) => client.describe().await.map(Some),
        None => Ok(SavedState::load(&Dir::new(state_dir)?)?.map(|state| state.describe())),
    }
}

/// Stops and forgets everything in a state directory; where no supervisor runs there is only to forget.
pub(super) async fn shut_down(state_dir: &Path) -> Result<(), Error> {
    match find(state_dir).await? {
        Some(client) => client.shutdown().await,
        None => Ok(SavedState::remove(&Dir::new(state_dir)?)?),
    }
}

/// The supervisor, if one runs.
///
/// # Errors
/// One runs and does not answer, or not in its place.
pub(super) async fn find(state_dir: &Path) -> Result<Option<Client>, Error> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(client) = Client::connect(state_dir).await? {
            return Ok(Some(client));
        }
        // It holds its lock a little longer than it listens, when it starts and when it ends.
        let dir = Dir::new(state_dir)?;
        match lock_holder(&dir.lock()) {
            None => return Ok(None),
            Some(pid) if Instant::now() >= deadline => return Err(Error::Unreachable { pid, socket: dir.socket() }),
            Some(_) => sleep(POLL_INTERVAL).await,
        }
    }
}

/// Connects to the supervisor; starts it from this very program, as `supervise --state-dir …`, if none runs.
pub async fn ensure_supervisor(state_dir: &Path) -> Result<Client, Error> {
    let own = std::env::current_exe().map_err(at("find", Path::new("natsctl")))?;
    ensure_supervisor_of(&own, state_dir).await
}

/// The same from another program.
pub async fn ensure_supervisor_of(program: &Path, state_dir: &Path) -> Result<Client, Error> {
    if let Some(client) = find(state_dir).await? {
        return Ok(client);
    }
    let dir = Dir::new(state_dir)?;
    dir.create()?;
    let written_before = fs::metadata(dir.supervisor_log()).map_or(0, |log| log.len());
    let mut child = spawn(program, &dir)?;
    let deadline = Instant::now() + START;
    loop {
        // Looked at before the socket: of two that were started at the same time, one ends and the other answers.
        let ended = child.try_wait()?.is_some();
        if let Some(client) = Client::connect(state_dir).await? {
            let supervisor = client.describe().await?.supervisor.map(|supervisor| supervisor.pid);
            if !ended && supervisor != Some(child.id()) {
                // It would take over if the other one were shut down before it has come so far as to find it.
                child.kill()?;
                child.wait()?;
            }
            return Ok(client);
        }
        if ended || Instant::now() > deadline {
            return Err(Error::NotStarted {
                log_tail: logs::tail_since(&dir.supervisor_log(), written_before, LAST_WORDS),
            });
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn spawn(program: &Path, dir: &Dir) -> io::Result<Child> {
    let log = File::options().append(true).create(true).mode(0o600).open(dir.supervisor_log());
    let log = log.map_err(|error| {
        let message = format!("failed to open `{}`", dir.supervisor_log().display());
        io::Error::new(error.kind(), Hinted::new(message, "if it is no file, remove it").because(error))
    })?;
    let mut command = Command::new(program);
    command.arg("supervise").arg("--state-dir").arg(dir.path()).current_dir(dir.path());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(at("run", program))
}

/// A way to the supervisor. Each request has a connection of its own, so any number may be under way.
#[derive(Clone, Debug)]
pub struct Client {
    dir: PathBuf,
    socket: PathBuf,
    /// The socket's directory, if it is among those of other users.
    shared_dir: Option<PathBuf>,
}

impl Client {
    /// `None`: no supervisor runs in this directory.
    pub async fn connect(state_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = Dir::new(state_dir)?;
        let client = Self { dir: dir.path().to_owned(), socket: dir.socket(), shared_dir: dir.shared_socket_dir() };
        match client.ask(&Request::Ping).await {
            Ok(Response::Pong(pong)) if pong.protocol == PROTOCOL => Ok(Some(client)),
            Ok(Response::Pong(pong)) => Err(Error::OtherProtocol { pid: pong.pid, version: pong.version }),
            Ok(_) => Err(Error::Confused),
            Err(Error::Lost(error)) if is_not_listening(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything that is there.
    pub async fn describe(&self) -> Result<Description, Error> {
        match self.ask(&Request::Describe).await? {
            Response::Description(description) => Ok(*description),
            _ => Err(Error::Confused),
        }
    }

    /// Starts or restarts a node, and does not wait for it.
    pub async fn put_node(&self, name: &str, spec: NodeSpec) -> Result<(), Error> {
        self.done(&Request::PutNode { name: name.to_owned(), spec }).await
    }

    /// Restarts a node, also if its specification is the same, and does not wait for it.
    pub async fn restart_node(&self, name: &str, spec: NodeSpec) -> Result<(), Error> {
        self.done(&Request::RestartNode { name: name.to_owned(), spec }).await
    }

    /// Restarts a node by lame duck, and does not wait for it.
    pub async fn roll_node(&self, name: &str, spec: NodeSpec) -> Result<(), Error> {
        self.done(&Request::RollNode { name: name.to_owned(), spec }).await
    }

    /// Stops a node, and waits until it is gone.
    pub async fn delete_node(&self, name: &str) -> Result<(), Error> {
        self.done(&Request::DeleteNode { name: name.to_owned() }).await
    }

    /// Deploys or scales a service; [`Client::follow`] waits for it.
    pub async fn put_service(&self, service: PutService) -> Result<Accepted, Error> {
        match self.ask(&Request::PutService(Box::new(service))).await? {
            Response::Accepted(accepted) => Ok(accepted),
            _ => Err(Error::Confused),
        }
    }

    /// Stops a service, and waits until it is gone.
    pub async fn delete_service(&self, name: &str) -> Result<(), Error> {
        self.done(&Request::DeleteService { name: name.to_owned() }).await
    }

    /// Stops one task of a service and does not wait for its end. The supervisor starts another in its place at once.
    pub async fn stop_task(&self, service: &str, task: &str) -> Result<(), Error> {
        self.done(&Request::StopTask { service: service.to_owned(), task: task.to_owned() }).await
    }

    /// The traces whose ids begin with `prefix`, among the latest.
    pub async fn find_traces(&self, prefix: &TracePrefix) -> Result<FoundTraces, Error> {
        match self.ask(&Request::FindTraces { prefix: prefix.clone() }).await? {
            Response::Traces(found) => Ok(*found),
            _ => Err(Error::Confused),
        }
    }

    /// Stops and forgets everything, and waits until the supervisor is gone too.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.done(&Request::Shutdown).await?;
        let dir = Dir::new(&self.dir)?;
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            match File::open(dir.lock()) {
                Ok(lock) if lock.try_lock().is_err() => sleep(POLL_INTERVAL).await,
                _ => return Ok(()),
            }
        }
        Err(Error::Lost(io::Error::new(io::ErrorKind::TimedOut, "it has stopped everything but itself")))
    }

    /// Follows deployments, given as the services' names and [`Accepted::deployment_id`], until all have ended or time is up.
    pub async fn follow(
        &self,
        deployments: &BTreeMap<String, u64>,
        limit: Duration,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<BTreeMap<String, Outcome>, Error> {
        let deadline = Instant::now() + limit;
        let mut seen = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        loop {
            let description = self.describe().await?;
            for (name, id) in deployments.iter().filter(|(name, _)| !outcomes.contains_key(*name)).collect::<Vec<_>>() {
                let status = description.services.get(name);
                if let Some(status) = status
                    && status.deployment().is_some_and(|latest| latest.id == *id)
                {
                    let advance = status.advance();
                    if seen.insert(name, advance.clone()).as_ref() != Some(&advance) {
                        on_progress(Progress::Advanced { service: name.clone(), advance });
                    }
                }
                let late = Instant::now() >= deadline;
                let unfinished = || status.filter(|_| late).map(unfinished);
                if let Some(outcome) = outcome(status, *id).or_else(unfinished) {
                    on_progress(Progress::Ended { service: name.clone(), outcome: outcome.clone() });
                    outcomes.insert(name.clone(), outcome);
                }
            }
            if outcomes.len() == deployments.len() {
                return Ok(outcomes);
            }
            sleep(FOLLOW).await;
        }
    }

    async fn done(&self, request: &Request) -> Result<(), Error> {
        match self.ask(request).await? {
            Response::Done => Ok(()),
            _ => Err(Error::Confused),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, Error> {
        let line = if request.waits_for_processes() {
            tokio::select! {
                line = exchange(self.open().await?, request) => line?,
                gone = self.until_silent() => return Err(gone),
            }
        } else {
            self.in_time(request).await?
        };
        match serde_json::from_str(&line) {
            Ok(Response::Refused(refusal)) => Err(Error::Refused(refusal)),
            Ok(response) => Ok(response),
            Err(_) => Err(Error::Confused),
        }
    }

    /// Returns when the supervisor does not answer any more. When it has ended, whoever waits for its answer is told so.
    async fn until_silent(&self) -> Error {
        loop {
            sleep(STILL_THERE).await;
            if let Err(silent @ Error::Silent { .. }) = self.in_time(&Request::Ping).await {
                return silent;
            }
        }
    }

    async fn in_time(&self, request: &Request) -> Result<String, Error> {
        let stream = self.open().await?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()?.try_into().ok());
        timeout(ANSWER, exchange(stream, request)).await.map_err(|_| Error::Silent { pid })?
    }

    /// Takes no time: the system connects, not the supervisor.
    async fn open(&self) -> Result<UnixStream, Error> {
        match owner::connect(&self.socket, self.shared_dir.as_deref()).await {
            // So many clients wait for an answer that there is no place for another one.
            Err(Refused::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Error::Silent { pid: None })
            }
            opened => Ok(opened?),
        }
    }
}

async fn exchange(mut stream: UnixStream, request: &Request) -> Result<String, Error> {
    let mut question = serde_json::to_vec(request).map_err(|error| Error::Lost(error.into()))?;
    question.push(b'\n');
    stream.write_all(&question).await.map_err(Error::Lost)?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer).await.map_err(Error::Lost)? {
        0 => Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(answer),
    }
}

/// The rest of the last line that begins like this.
fn last<'a>(lines: &'a [String], start: &str) -> Option<&'a str> {
    lines.iter().rev().find_map(|line| line.strip_prefix(start))
}

/// What a service's status says of a deployment; `None` while it is in progress.
fn outcome(status: Option<&ServiceStatus>, id: u64) -> Option<Outcome> {
    let Some(status) = status else { return Some(Outcome::Gone) };
    let Some(deployment) = status.deployments.iter().find(|deployment| deployment.id == id) else {
        return Some(Outcome::Superseded(None));
    };
    match deployment.state {
        DeploymentState::InProgress => None,
        DeploymentState::Completed => Some(Outcome::Completed),
        DeploymentState::Failed => Some(Outcome::Failed(failure(deployment))),
        DeploymentState::Superseded => Some(Outcome::Superseded(None)),
    }
}

fn failure(deployment: &Deployment) -> Failure {
    Failure {
        reason: deployment.reason.clone().unwrap_or_else(|| "no reason known".to_owned()),
        log_task: deployment.task.clone(),
        log: deployment.log_tail.clone(),
        ..Failure::default()
    }
}

/// A deployment that is still in progress when its time is over.
fn unfinished(status: &ServiceStatus) -> Outcome {
    let waiting = status.tasks.iter().filter(|task| task.state != TaskState::Ready);
    let waiting = waiting.map(|task| StoppedTask {
        id: task.id.clone(),
        reason: task.reason.clone().unwrap_or_else(|| format!("{:?}", task.state)),
        exit_code: None,
        unhealthy: false,
        crashed: false,
    });
    let reason = format!("{} of {} ready", status.ready(), counted(status.desired, "task"));
    Outcome::Unfinished(Failure { reason, tasks: waiting.collect(), ..Failure::default() })
}

/// Nothing listens at the socket: it is not there, or its supervisor was killed.
fn is_not_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
