//! natsctl: the operator's tool over a fleet of services on NATS. A library, so that the thin binary has nothing to test.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod cleanup;
mod cli;
mod commands;
pub mod contract;
mod demo;
pub mod error;
mod explain;
pub mod handover;
mod http;
#[cfg(feature = "aws")]
mod image;
mod input;
pub mod local;
pub mod manifest;
pub mod model;
pub mod nats;
mod pipeline;
pub mod problem;
mod reference;
mod scaffold;
mod screen;

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use cli::{Cli, Command, Internal, Operation, Typed};
use commands::invocation::Invocation;
use commands::options::Global;
use screen::Format;
use tokio::signal::unix::{SignalKind, signal};

/// Does what was typed, prints the outcome, and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(completed) = cli::complete(&arguments) {
        return completed;
    }
    let format = cli::format(&arguments);
    guarded(format, || match Typed::from_arguments(&arguments) {
        Ok(Typed::ByPeople(cli)) => {
            screen::log(cli.global.verbose);
            let typed = arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned());
            execute(*cli, format!("natsctl {}", screen::without_secrets(typed).join(" ")))
        }
        Ok(Typed::ByNatsctl(internal)) => execute_internal(internal),
        Err(error) => Ok(screen::usage(&error, format)),
    })
}

/// Does something, and prints why it failed. A panic is a bug, which is said in the same way.
fn guarded(format: Format, work: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    screen::announce_bugs();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work));
    let done = outcome.map(|outcome| outcome.unwrap_or_else(|error| screen::failure(&error, format)));
    done.unwrap_or_else(|_| screen::bug(format))
}

fn execute(cli: Cli, command_line: String) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Operate(operation) => operate(operation, cli.global, command_line),
        Command::Completions { shell } => cli::completions(shell),
        Command::Man(man) => Ok(man.run(cli::command())?.print(cli.global.output)),
    }
}

fn execute_internal(internal: Internal) -> anyhow::Result<ExitCode> {
    match internal {
        // It logs by itself.
        Internal::Supervise { state_dir } => local::supervisor::main(&state_dir),
        Internal::Shim { arguments } => local::shim::main(arguments),
        Internal::RemoteTask(task) => {
            screen::log(0);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(task.run())?.print(Format::Table))
        }
    }
}

/// Everything waits for others most of the time, so one thread is enough.
fn operate(operation: Operation, global: Global, command_line: String) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let invocation = Invocation::new(global, command_line)?;
        let outcome = perform(operation, &invocation).await;
        #[cfg(feature = "aws")]
        cleanup::finish().await;
        outcome
    })
}

async fn perform(operation: Operation, invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let format = invocation.global.output;
    if operation.handles_interrupts() {
        return Ok(operation.run(invocation).await?.print(format));
    }
    // Before anything starts: a handler that is installed while the command runs may come too late.
    let then = operation.after_interrupt();
    let mut interrupts = signal(SignalKind::interrupt())?;
    tokio::select! {
        report = operation.run(invocation) => Ok(report?.print(format)),
        _ = interrupts.recv() => Ok(screen::interrupted(then, format)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::panic, reason = "a bug of natsctl")]
    fn a_panic_is_a_bug_with_an_exit_code_of_its_own() {
        assert_eq!(guarded(Format::Table, || panic!("no")), ExitCode::from(screen::BUG));
        assert_eq!(guarded(Format::Table, || anyhow::bail!("no")), ExitCode::from(screen::FAILED));
        assert_eq!(guarded(Format::Table, || Ok(ExitCode::SUCCESS)), ExitCode::SUCCESS);
    }
}
