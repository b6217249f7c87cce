//! What can be typed.

mod completion;
mod examples;
mod reference;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::CompleteEnv;
use clap_complete::env::Shells;

use crate::commands;
use crate::commands::invocation::Invocation;
use crate::commands::options::Global;
use crate::nats::bus::TASK_COMMAND;
use crate::screen::{self, Format, Report};

const EXIT_CODES: &str = "\
Exit codes:
  0   done; `status`: healthy; `plan`: nothing to do
  1   failed; `status`: unknown
  2   `plan` found changes; `nats apply`: something takes a restart
  3   `status` or `nats check` found something unhealthy
  64  wrong usage
  70  natsctl has a bug
  130 interrupted; started steps continue, and running the same command again completes them";

/// Operates a fleet of services on NATS: on this machine (environment `local`, the default) and on AWS.
#[derive(Debug, Parser)]
#[command(name = "natsctl", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What people type.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Operate(Operation),
    Man(commands::man::Man),
    /// Print completions for a shell, which ask natsctl itself for names
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// The shells that completions are made for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// What natsctl starts itself as. Help, completions and suggestions know nothing of it.
#[derive(Debug, Parser)]
#[command(name = "natsctl")]
pub(crate) enum Internal {
    /// Supervise the processes of the local environment (started by `deploy`)
    Supervise {
        /// The folder with the files of all local environments
        #[arg(long)]
        state_dir: std::path::PathBuf,
    },
    /// Start a process that ends with its supervisor (started by the supervisor)
    Shim {
        /// Settings of the process, its supervisor, and the command line
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    #[command(name = TASK_COMMAND)]
    RemoteTask(commands::remote_task::RemoteTask),
}

/// What was typed, by whom.
#[derive(Debug)]
pub(crate) enum Typed {
    ByPeople(Box<Cli>),
    ByNatsctl(Internal),
}

impl Typed {
    /// # Errors
    /// Wrong usage; also `--help` and `--version`, which clap answers itself.
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let is_internal = |typed: &OsString| Internal::command().get_subcommands().any(|one| one.get_name() == typed);
        if arguments.get(1).is_some_and(is_internal) {
            return Internal::try_parse_from(arguments).map(Self::ByNatsctl);
        }
        Cli::from_arguments(arguments).map(|cli| Self::ByPeople(Box::new(cli)))
    }
}

impl Cli {
    fn from_arguments(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let parsed = command().try_get_matches_from(arguments).and_then(|matches| Self::from_arg_matches(&matches));
        #[cfg(not(feature = "aws"))]
        let parsed = parsed.map_err(commands::without_aws::mention_aws);
        let parsed = parsed?;
        let has_metrics = matches!(&parsed.command, Command::Operate(operation) if operation.has_metrics());
        if parsed.global.output == Format::Prometheus && !has_metrics {
            let message = "`--output prometheus` is for `natsctl nats check`";
            return Err(command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(parsed)
    }
}

/// All commands, with examples, and with what completions know of their arguments.
pub(crate) fn command() -> clap::Command {
    completion::add(examples::add(Cli::command(), ""))
}

/// The output format that was asked for, as far as it can be seen when the rest of the command line is wrong.
pub(crate) fn format(arguments: &[OsString]) -> Format {
    let typed: Vec<&str> = arguments.iter().map_while(|one| one.to_str()).take_while(|one| *one != "--").collect();
    let value = |(index, one): (usize, &&str)| {
        let rest =
            one.strip_prefix("--output").or_else(|| one.strip_prefix("-o").filter(|_| !one.starts_with("--")))?;
        let next = || typed.get(index + 1).map(ToString::to_string);
        if rest.is_empty() { next() } else { Some(rest.trim_start_matches('=').to_owned()) }
    };
    let found = typed.iter().enumerate().filter_map(value).next_back();
    found.and_then(|found| Format::from_str(&found, false).ok()).unwrap_or_default()
}

/// Prints what completes a command line, if a shell asks for it.
pub(crate) fn complete(arguments: &[OsString]) -> Option<ExitCode> {
    let here = std::env::current_dir().ok();
    match CompleteEnv::with_factory(command).try_complete(arguments, here.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(error) => Some(screen::usage(&error, Format::Table)),
    }
}

/// Prints what a shell needs in order to complete command lines.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let name = shell.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(|| anyhow::anyhow!("no completions are made for `{name}`"))?;
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "natsctl", "natsctl", "natsctl", &mut script)?;
    Ok(screen::document(&String::from_utf8_lossy(&script)))
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
    Top(commands::top::Top),
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
    Explain(commands::explain::Explain),
    Schema(commands::schema::Schema),
    Docs(commands::docs::Docs),
    Doctor(commands::doctor::Doctor),
    #[cfg(feature = "aws")]
    #[command(flatten)]
    Aws(commands::aws::Command),
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
            Self::Top(command) => command.run(invocation).await,
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
            Self::Explain(command) => command.run(invocation),
            Self::Schema(command) => command.run(invocation),
            Self::Docs(command) => command.run(invocation, reference::current()),
            Self::Doctor(command) => command.run(invocation).await,
            #[cfg(feature = "aws")]
            Self::Aws(command) => command.run(invocation).await,
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
                | Self::Top(_)
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

    fn words(typed: &str) -> Vec<OsString> {
        typed.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        command().debug_assert();
        Internal::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_is_in_the_documentation() {
        fn check(command: &clap::Command, typed: &str) {
            assert!(command.get_about().is_some(), "`{typed}` has no help");
            let page = include_str!("../../docs/cli.md");
            let is_group = command.has_subcommands();
            assert!(is_group || page.contains(&format!("`{typed}")), "docs/cli.md does not name `{typed}`");
            for inner in command.get_subcommands() {
                assert!(!inner.is_hide_set(), "`{}`: what is hidden is `Internal`", inner.get_name());
                check(inner, format!("{typed} {}", inner.get_name()).trim_start());
            }
        }
        check(&command(), "");
    }

    #[test]
    fn what_every_command_writes_for_programs_has_a_schema() {
        fn check(command: &clap::Command, typed: &str, schemas: &serde_json::Value) {
            let is_known = command.has_subcommands() || schemas.get(typed).is_some();
            assert!(
                is_known || ["completions", "exec"].contains(&typed),
                "docs/schema/output.schema.json lacks `{typed}`"
            );
            for inner in command.get_subcommands() {
                check(inner, format!("{typed} {}", inner.get_name()).trim_start(), schemas);
            }
        }
        let page = include_str!("../../docs/schema/output.schema.json");
        let schemas: serde_json::Value = serde_json::from_str(page).unwrap();
        check(&command(), "", &schemas["$defs"]);
    }

    #[test]
    fn what_natsctl_starts_itself_as_is_never_suggested() {
        for typed in ["natsctl supervisee", "natsctl shin", "natsctl remote-tasks"] {
            let message = Cli::from_arguments(&words(typed)).unwrap_err().to_string();
            for hidden in ["'supervise'", "'shim'", "'remote-task'"] {
                assert!(!message.contains(hidden), "{message}");
            }
        }
        assert!(Cli::from_arguments(&words("natsctl dploy")).unwrap_err().to_string().contains("'deploy'"));
        let typed = Typed::from_arguments(&words("natsctl supervise --state-dir x")).unwrap();
        assert!(matches!(typed, Typed::ByNatsctl(Internal::Supervise { .. })));
    }

    #[test]
    fn the_output_format_is_seen_even_if_the_rest_is_wrong() {
        for json in ["-o json", "-ojson", "-o=json", "--output json", "--output=json"] {
            assert_eq!(format(&words(&format!("natsctl dploy {json}"))), Format::Json, "{json}");
        }
        for table in ["-o table", "--output xml", "run x -- cat -o json", "--output"] {
            assert_eq!(format(&words(&format!("natsctl {table}"))), Format::Table, "{table}");
        }
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn an_unknown_command_may_be_one_for_aws() {
        for typed in ["natsctl tunnel", "natsctl nats identities"] {
            let message = Cli::from_arguments(&words(typed)).unwrap_err().to_string();
            assert!(message.contains("built without AWS") && message.contains("--features aws"), "{message}");
        }
    }
}
