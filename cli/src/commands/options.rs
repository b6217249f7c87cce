//! Options that several commands have.

use std::path::PathBuf;

use clap::Args;

use crate::screen::Format;

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Environment: the name of a file in `environments/` of the manifests
    #[arg(long, global = true, env = "NATSCTL_ENV", default_value = "local", value_name = "NAME")]
    pub(crate) env: String,
    /// Output format
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Folder of the manifests; by default `manifests` here or in the nearest folder above
    #[arg(long, global = true, env = "NATSCTL_MANIFESTS", value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// Where the local environment keeps its files; by default `.natsctl` beside the manifests
    #[arg(long, global = true, env = "NATSCTL_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Log what is done to standard error; twice for more detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The services that a command acts on.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// All services, and everything else that the manifests describe
    #[arg(long)]
    pub(crate) all: bool,
    /// Only these services, and the NATS resources that they need
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}
