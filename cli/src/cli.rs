//! What can be typed.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands;
use crate::commands::invocation::Invocation;
use crate::commands::options::Global;
use crate::screen::{Format, Report};

const EXIT_CODES: &str = "\
Exit codes:
  0   done; `status`: healthy; `plan`: nothing to do
  1   failed; `status`: unknown
  2   `plan` found changes; `nats apply`: something takes a restart
  3   `status` or `nats check` found something unhealthy
  64  wrong usage
  130 interrupted; started steps continue, and running the same command again completes them";

/// Operates a fleet of services on NATS: on this machine (environment `local`, the default) and on AWS.
#[derive(Debug, Parser)]
#[command(name = "natsctl", version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// # Errors
    /// Wrong usage; also `--help` and `--version`, which clap answers itself.
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let parsed = Self::try_parse_from(arguments);
        #[cfg(not(feature = "aws"))]
        let parsed = parsed.map_err(commands::without_aws::mention_aws);
        let parsed = parsed?;
        let has_metrics = matches!(&parsed.command, Command::Operate(operation) if operation.has_metrics());
        if parsed.global.output == Format::Prometheus && !has_metrics {
            let message = "`--output prometheus` is for `natsctl nats check`";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(parsed)
    }
}

/// Everything that this program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Operate(Operation),
    /// Generate completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Supervise the processes of the local environment (started by `deploy`)
    #[command(hide = true)]
    Supervise,
    /// Start a process that ends with its supervisor (started by the supervisor)
    #[command(hide = true)]
    Shim {
        /// Settings of the process, its supervisor, and the command line
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Commands about an environment. Their help is the documentation of their types.
#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
    Validate(commands::validate::Validate),
    Plan(commands::plan::Plan),
    Deploy(commands::deploy::Deploy),
    Status(commands::status::Status),
    Logs(commands::logs::Logs),
    Trace(commands::trace::Trace),
    History(commands::history::History),
    Tasks(commands::tasks::Tasks),
    Revisions(commands::revisions::Revisions),
    Diff(commands::diff::Diff),
    Stop(commands::stop::Stop),
    Restart(commands::restart::Restart),
    Scale(commands::scale::Scale),
    Rollback(commands::rollback::Rollback),
    Down(commands::down::Down),
    Env(commands::env::Env),
    Demo(commands::demo::Demo),
    Smoke(commands::smoke::Smoke),
    Call(commands::call::Call),
    Bench(commands::bench::Bench),
    #[command(subcommand)]
    Nats(commands::nats::Nats),
    #[command(subcommand)]
    Dlq(commands::dlq::Dlq),
    #[command(subcommand)]
    Proto(commands::proto::Proto),
    #[command(subcommand)]
    New(commands::new::New),
    Schema(commands::schema::Schema),
    Docs(commands::docs::Docs),
    Doctor(commands::doctor::Doctor),
    #[cfg(feature = "aws")]
    #[command(flatten)]
    Aws(commands::aws::Command),
    #[command(hide = true)]
    RemoteTask(commands::remote_task::RemoteTask),
}

impl Operation {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::Validate(command) => command.run(invocation),
            Self::Plan(command) => command.run(invocation).await,
            Self::Deploy(command) => command.run(invocation).await,
            Self::Status(command) => command.run(invocation).await,
            Self::Logs(command) => command.run(invocation).await,
            Self::Trace(command) => command.run(invocation).await,
            Self::History(command) => command.run(invocation).await,
            Self::Tasks(command) => command.run(invocation).await,
            Self::Revisions(command) => command.run(invocation).await,
            Self::Diff(command) => command.run(invocation).await,
            Self::Stop(command) => command.run(invocation).await,
            Self::Restart(command) => command.run(invocation).await,
            Self::Scale(command) => command.run(invocation).await,
            Self::Rollback(command) => command.run(invocation).await,
            Self::Down(command) => command.run(invocation).await,
            Self::Env(command) => command.run(invocation).await,
            Self::Demo(command) => command.run(invocation).await,
            Self::Smoke(command) => command.run(invocation).await,
            Self::Call(command) => command.run(invocation).await,
            Self::Bench(command) => command.run(invocation).await,
            Self::Nats(command) => command.run(invocation).await,
            Self::Dlq(command) => command.run(invocation).await,
            Self::Proto(command) => command.run(invocation),
            Self::New(command) => command.run(invocation),
            Self::Schema(command) => command.run(invocation),
            Self::Docs(command) => command.run(invocation),
            Self::Doctor(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Aws(command) => command.run(invocation).await,
            Self::RemoteTask(command) => command.run().await,
        }
    }

    /// What becomes of what was begun when Ctrl-C ends it; `None` if it has begun nothing.
    pub(crate) fn after_interrupt(&self) -> Option<&'static str> {
        let changes_nothing = matches!(
            self,
            Self::Logs(_)
                | Self::Status(_)
                | Self::History(_)
                | Self::Trace(_)
                | Self::Tasks(_)
                | Self::Revisions(_)
                | Self::Diff(_)
        );
        if changes_nothing {
            return None;
        }
        let own = if let Self::Nats(command) = self { command.after_interrupt() } else { None };
        Some(own.unwrap_or("started steps continue, and running the same command again completes them"))
    }

    /// Whether its result can be metrics.
    fn has_metrics(&self) -> bool {
        matches!(self, Self::Nats(command) if command.has_metrics())
    }

    /// Whether it handles Ctrl-C itself.
    pub(crate) fn handles_interrupts(&self) -> bool {
        match self {
            #[cfg(feature = "aws")]
            Self::Aws(command) => command.handles_interrupts(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_is_in_the_documentation() {
        fn check(command: &clap::Command, typed: &str) {
            assert!(command.get_about().is_some(), "`{typed}` has no help");
            let page = include_str!("../../docs/cli.md");
            let is_group = command.has_subcommands();
            assert!(is_group || page.contains(&format!("`{typed}")), "docs/cli.md does not name `{typed}`");
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                check(inner, format!("{typed} {}", inner.get_name()).trim_start());
            }
        }
        check(&Cli::command(), "");
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn an_unknown_command_may_be_one_for_aws() {
        for typed in ["natsctl tunnel", "natsctl nats identities"] {
            let arguments: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let message = Cli::from_arguments(&arguments).unwrap_err().to_string();
            assert!(message.contains("built without AWS") && message.contains("--features aws"), "{message}");
        }
    }
}
