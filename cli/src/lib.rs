//! natsctl: the operator's tool over a fleet of services on NATS. A library, so that the thin binary has nothing to test.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "aws")]
mod cleanup;
mod cli;
mod commands;
pub mod contract;
pub mod error;
pub mod handover;
#[cfg(feature = "aws")]
mod image;
pub mod local;
pub mod manifest;
pub mod model;
pub mod nats;
mod pipeline;
pub mod problem;
mod screen;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use commands::invocation::Invocation;
use screen::{Format, Report};
use tokio::signal::unix::{SignalKind, signal};

/// Does what was typed, prints the outcome, and says how the process ends.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            #[cfg(not(feature = "aws"))]
            if let Some(error) = cli::only_with_aws(&error) {
                return screen::failure(&error, Format::Table);
            }
            return screen::usage(&error);
        }
    };
    if !matches!(cli.command, Command::Supervise) {
        screen::log(cli.global.verbose);
    }
    let typed: Vec<String> = arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let format = cli.global.output;
    match execute(cli, format!("natsctl {}", typed.join(" "))) {
        Ok(code) => code,
        Err(error) => screen::failure(&error, format),
    }
}

/// The runtime is of one thread: the supervisor's children die with the thread that started them, so that must be the main one.
fn execute(cli: Cli, command_line: String) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Completions { shell } => {
            return Ok(screen::completions(shell, &mut Cli::command()));
        }
        Command::Shim { arguments } => return local::shim::main(arguments),
        Command::Supervise => {
            let dir = cli.global.state_dir.context("`supervise` needs `--state-dir`")?;
            return local::supervisor::main(&dir);
        }
        _ => {}
    }
    let format = cli.global.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let invocation = Invocation::new(cli.global, command_line)?;
        let outcome = perform(cli.command, &invocation, format).await;
        #[cfg(feature = "aws")]
        cleanup::finish().await;
        outcome
    })
}

async fn perform(command: Command, invocation: &Invocation, format: Format) -> anyhow::Result<ExitCode> {
    if command.minds_interrupts() {
        return Ok(dispatch(command, invocation).await?.print(format));
    }
    // Before anything is begun: a handler that is set while the command runs may come too late.
    let mut interrupts = signal(SignalKind::interrupt())?;
    tokio::select! {
        report = dispatch(command, invocation) => Ok(report?.print(format)),
        _ = interrupts.recv() => Ok(screen::interrupted()),
    }
}

async fn dispatch(command: Command, invocation: &Invocation) -> anyhow::Result<Report> {
    match command {
        Command::Validate(command) => command.run(invocation),
        #[cfg(feature = "aws")]
        Command::Build(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Policy(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Verify(command) => command.run(invocation).await,
        Command::Plan(command) => command.run(invocation).await,
        Command::Deploy(command) => command.run(invocation).await,
        Command::Status(command) => command.run(invocation).await,
        Command::Logs(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Tasks(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Events(command) => command.run(invocation).await,
        Command::History(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Run(command) => command.run(invocation).await,
        Command::Stop(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Exec(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Tunnel(command) => command.run(invocation).await,
        Command::Restart(command) => command.run(invocation).await,
        Command::Scale(command) => command.run(invocation).await,
        Command::Rollback(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Revisions(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Deregister(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Register(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Diff(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Drift(command) => command.run(invocation).await,
        #[cfg(feature = "aws")]
        Command::Import(command) => command.run(invocation).await,
        Command::Down(command) => command.run(invocation).await,
        Command::Env(command) => command.run(invocation).await,
        Command::Nats(command) => command.run(invocation).await,
        Command::Bus(command) => command.run().await,
        Command::Proto(command) => command.run(invocation),
        Command::Schema(command) => command.run(invocation),
        Command::Doctor(command) => command.run(invocation).await,
        Command::Completions { .. } | Command::Supervise | Command::Shim { .. } => Ok(Report::silent()),
    }
}
