//! What can be typed.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands;
use crate::commands::options::Global;

const EXIT_CODES: &str = "\
Exit codes:
  0   done; `status`: healthy; `plan`: nothing to do
  1   failed; `status`: could not tell
  2   `plan` found changes
  3   `status` found something unhealthy
  64  wrong usage
  130 interrupted; what was started goes on, and running the same command again finishes it";

/// Operates a fleet of services on NATS: on this machine (environment `local`, the default) and on AWS.
#[derive(Debug, Parser)]
#[command(name = "natsctl", version, after_help = EXIT_CODES, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the manifests, and report everything that is wrong with them
    Validate(commands::validate::Validate),
    /// Make container images of services, and push them or write them to a folder
    #[cfg(feature = "aws")]
    Build(commands::build::Build),
    /// Find out what is missing on AWS for a deployment
    #[cfg(feature = "aws")]
    Verify(commands::verify::Verify),
    /// Show which rights on AWS commands need
    #[cfg(feature = "aws")]
    Policy(commands::policy::Policy),
    /// Show what `deploy` would do, and change nothing
    Plan(commands::plan::Plan),
    /// Make the environment what the manifests say, and prove that it is
    Deploy(commands::deploy::Deploy),
    /// Show how everything is
    Status(commands::status::Status),
    /// List the tasks of services
    #[cfg(feature = "aws")]
    Tasks(commands::tasks::Tasks),
    /// Show what services log
    Logs(commands::logs::Logs),
    /// Show what ECS tells of services
    #[cfg(feature = "aws")]
    Events(commands::events::Events),
    /// Show who changed the environment, when, how and with what result
    History(commands::history::History),
    /// Run one task of a service with another command
    #[cfg(feature = "aws")]
    Run(commands::run::Run),
    /// Stop tasks
    Stop(commands::stop::Stop),
    /// Run a command in a running task, at the terminal
    #[cfg(feature = "aws")]
    Exec(commands::exec::Exec),
    /// Lead a port of this machine to NATS or into a task
    #[cfg(feature = "aws")]
    Tunnel(commands::tunnel::Tunnel),
    /// Replace all tasks of services, without a gap
    Restart(commands::restart::Restart),
    /// Set how many tasks of a service run
    Scale(commands::scale::Scale),
    /// Go back to the revision of a service that ran before
    Rollback(commands::rollback::Rollback),
    /// List the revisions of a service
    #[cfg(feature = "aws")]
    Revisions(commands::revisions::Revisions),
    /// Do away with old revisions of services
    #[cfg(feature = "aws")]
    Deregister(commands::revisions::Deregister),
    /// Register task definitions, and deploy nothing
    #[cfg(feature = "aws")]
    Register(commands::register::Register),
    /// Compare revisions of services
    #[cfg(feature = "aws")]
    Diff(commands::drift::Diff),
    /// Find out what runs and is not what the manifests say, and who made it so
    #[cfg(feature = "aws")]
    Drift(commands::drift::Drift),
    /// Write the manifest of a service that runs on ECS already
    #[cfg(feature = "aws")]
    Import(commands::import::Import),
    /// Stop everything
    Down(commands::down::Down),
    /// Show how a client connects to the environment
    Env(commands::env::Env),
    /// Look at the NATS cluster
    #[command(subcommand)]
    Nats(commands::nats::Nats),
    /// Check the contracts in `proto/` against those that are deployed
    #[command(subcommand)]
    Proto(commands::proto::Proto),
    /// Write the JSON Schemas of the manifests
    Schema(commands::schema::Schema),
    /// Find out what is missing on this machine, and how to install it
    Doctor(commands::doctor::Doctor),
    /// Write completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Ask the bus for a natsctl that cannot reach it (started by that as a task)
    #[command(hide = true)]
    Bus(commands::bus::Bus),
    /// Own the processes of the local environment (started by `deploy`)
    #[command(hide = true)]
    Supervise,
    /// Start one process that ends with its supervisor (started by it)
    #[command(hide = true)]
    Shim {
        /// How, who started it, and what it starts
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

impl Command {
    /// Whether it decides itself what Ctrl-C does.
    pub(crate) fn minds_interrupts(&self) -> bool {
        match self {
            #[cfg(feature = "aws")]
            Self::Run(_) | Self::Exec(_) | Self::Tunnel(_) => true,
            _ => false,
        }
    }
}

/// Commands that this binary was built without.
#[cfg(not(feature = "aws"))]
const ON_AWS: [&str; 14] = [
    "build",
    "deregister",
    "diff",
    "drift",
    "events",
    "exec",
    "import",
    "policy",
    "register",
    "revisions",
    "run",
    "tasks",
    "tunnel",
    "verify",
];

/// Somebody has typed one of them.
#[cfg(not(feature = "aws"))]
pub(crate) fn only_with_aws(error: &clap::Error) -> Option<anyhow::Error> {
    use clap::error::{ContextKind, ContextValue};

    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let message = format!("`natsctl {typed}` is for AWS, and this natsctl was built without it");
    let advised = || crate::error::Hinted::new(message, crate::commands::invocation::BUILD_WITH_AWS).into();
    ON_AWS.contains(&typed.as_str()).then(advised)
}
