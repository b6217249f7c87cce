//! The shim between the supervisor and a program: the program ends with the supervisor, however that ends.
//!
//! On Linux the shim sets a parent-death signal and then executes the program in its place. On other systems it stays as the program's
//! parent, forwards signals, and kills the program when the pipe from the supervisor is closed.

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

/// How the program ends with the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The shim executes the program in its place; the kernel kills it when the supervisor dies.
    Exec,
    /// The shim stays as the program's parent.
    Stay,
}

impl Mode {
    /// The mode for this operating system.
    pub fn of_this_system() -> Self {
        if cfg!(target_os = "linux") { Self::Exec } else { Self::Stay }
    }

    /// The name of the mode in the arguments.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Stay => "stay",
        }
    }
}

/// `exec|stay <parent> <program> <arguments…>`: runs the program. Returns when it has exited; in mode `exec` only if it cannot be
/// executed.
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
        match exec(command, parent)? {}
    }
}

fn exec(mut command: Command, parent: Pid) -> anyhow::Result<Infallible> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("failed to set the parent-death signal")?;
    // The supervisor may have died before the signal was set.
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
                // Nothing is ever written to this pipe, so a read returns when the supervisor has ended.
                _ = supervisor.read_u8() => kill_current_process_group(Signal::KILL)?,
            }
        }
    })
}
