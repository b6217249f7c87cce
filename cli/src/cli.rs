//! What can be typed.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands;
use crate::options::Global;

const EXIT_CODES: &str = "\
Exit codes:
  0   done; `status`: healthy; `plan`: nothing to do
  1   failed; `status`: could not tell
  2   `plan` found changes
  3   `status` found something unhealthy
  64  wrong usage
  130 interrupted; what had begun goes on, and running the same command again finishes it";

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
    /// Show what `deploy` would do, and change nothing
    Plan(commands::plan::Plan),
    /// Make the environment what the manifests say, and prove that it is
    Deploy(commands::deploy::Deploy),
    /// Show how everything is
    Status(commands::status::Status),
    /// Show what a service logs
    Logs(commands::logs::Logs),
    /// Replace all tasks of services, without a gap
    Restart(commands::change::Restart),
    /// Set how many tasks of a service run
    Scale(commands::change::Scale),
    /// Go back to the revision of a service that ran before
    Rollback(commands::change::Rollback),
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
