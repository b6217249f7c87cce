//! Stands between the supervisor and a program, so that the program dies with the supervisor, however that dies.
//!
//! Linux can do this itself: the shim asks for a signal at its parent's death and then becomes the program. Elsewhere the shim stays,
//! holds a pipe whose end means that the supervisor is gone, and passes signals on.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// How the program is tied to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The shim becomes the program; the system kills it when its parent dies.
    Exec,
    /// The shim stays as the program's parent.
    Stay,
}

impl Mode {
    /// The better one of those that this system has.
    pub fn of_this_system() -> Self {
        if cfg!(target_os = "linux") { Self::Exec } else { Self::Stay }
    }

    /// As it is written in the arguments.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Stay => "stay",
        }
    }
}

/// `exec|stay <parent> <program> <arguments…>`: runs the program. Returns when it has ended, or never if the shim became the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let mut args = args.into_iter();
    let (Some(mode), Some(parent), Some(program)) = (args.next(), args.next(), args.next()) else {
        bail!("the shim needs a mode, a parent and a program");
    };
    let parent = parent.to_str().and_then(|parent| Pid::from_raw(parent.parse().ok()?));
    let parent = parent.context("the shim's parent is not a process id")?;
    let mut command = Command::new(&program);
    command.args(args);
    if mode == Mode::Stay.as_str() {
        stay(command).with_context(|| format!("failed to run `{}`", program.display()))
    } else {
        match become_program(command, parent)? {}
    }
}

fn become_program(mut command: Command, parent: Pid) -> anyhow::Result<Infallible> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("failed to be tied to the supervisor")?;
    // It may have died before it could be asked for a signal.
    if rustix::process::getppid() != Some(parent) {
        bail!("the supervisor is gone");
    }
    let error = command.exec();
    Err(error).with_context(|| format!("failed to run `{}`", command.get_program().display()))
}

fn stay(mut command: Command) -> anyhow::Result<ExitCode> {
    let supervisor = std::io::stdin().as_fd().try_clone_to_owned()?;
    command.stdin(Stdio::null());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut supervisor = pipe::Receiver::from_owned_fd(supervisor).context("standard input is not a pipe")?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status?;
                    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
                    return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                }
                _ = terminate.recv() => {
                    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
                        kill_process(pid, Signal::TERM)?;
                    }
                }
                // Nothing is ever written to it: it ends with the supervisor.
                _ = supervisor.read_u8() => kill_current_process_group(Signal::KILL)?,
            }
        }
    })
}
