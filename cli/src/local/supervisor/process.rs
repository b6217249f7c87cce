//! Starts processes that cannot outlive the supervisor, and reports how they exited.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::error::at;
use crate::local::protocol::Exit;
use crate::local::shim::Mode;

/// The environment variables that a process inherits from the supervisor.
const INHERITED: [&str; 3] = ["PATH", "HOME", "TMPDIR"];

/// `SD_LISTEN_FDS_START` of systemd's socket activation: the descriptor of the first inherited socket.
const FIRST_SOCKET: i32 = 3;

pub(super) struct Launch<'a> {
    pub(super) task: &'a str,
    pub(super) program: &'a Path,
    pub(super) args: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) log: PathBuf,
    /// Inherited from descriptor 3 on, with their names.
    pub(super) sockets: Vec<(&'static str, OwnedFd)>,
}

/// A running process. Dropping this does not end it.
pub(super) struct Process {
    pub(super) pid: u32,
    signals: mpsc::UnboundedSender<Signal>,
}

impl Process {
    /// Starts a program through the shim. Must be called on the supervisor's main thread: on Linux the parent-death signal follows the death
    /// of the parent's thread.
    pub(super) fn start(
        shim: &Path,
        launch: Launch<'_>,
        on_exit: impl FnOnce(Exit) + Send + 'static,
    ) -> io::Result<Self> {
        let log = open_log(&launch.log)?;
        let mode = Mode::of_this_system();
        let mut command = Command::new(shim);
        command
            .args(["shim", mode.as_str(), &std::process::id().to_string()])
            .arg(launch.program)
            .args(launch.args)
            .env_clear()
            .envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(launch.env)
            .env("TASK_ID", launch.task)
            .stdin(if mode == Mode::Stay { Stdio::piped() } else { Stdio::null() })
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        if !launch.sockets.is_empty() {
            let names: Vec<_> = launch.sockets.iter().map(|(name, _)| *name).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let inherited = launch.sockets.into_iter().zip(FIRST_SOCKET..);
        let mappings = inherited.map(|((_, parent_fd), child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;

        let mut child = command.spawn().map_err(at("run", shim))?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has no process id"))?;
        let (signals, mut requested) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // A shim in mode `stay` takes the end of this pipe as the death of the supervisor.
            let _open = child.stdin.take();
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    Some(signal) = requested.recv() => deliver(&child, signal),
                }
            };
            on_exit(status.map_or_else(|error| Exit::NotStarted(error.to_string()), Exit::from));
        });
        Ok(Self { pid, signals })
    }

    /// A process that was stopped would not notice, so it goes on.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// The same for one that must first go on in order to leave.
    pub(super) fn lame_duck(&self) {
        self.signal(Signal::USR2);
        self.signal(Signal::CONT);
    }

    pub(super) fn interrupt(&self) {
        self.signal(Signal::INT);
        self.signal(Signal::CONT);
    }

    pub(super) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The channel is closed only when the process has exited.
        let _ = self.signals.send(signal);
    }
}

/// A child that has not been reaped still owns its pid, so no other process can get the signal. SIGKILL goes to the child's descendants too.
fn deliver(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else {
        return;
    };
    let sent = if signal == Signal::KILL { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    if let Err(error) = sent {
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "signal not delivered");
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        crate::local::dir::create_private(dir)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(at("open", path))
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::NotStarted(status.to_string()),
        }
    }
}
