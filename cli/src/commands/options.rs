//! Options that several commands have.

use std::path::PathBuf;

use clap::Args;

use crate::manifest::Manifests;
use crate::model::change::Selection;
use crate::pipeline::options::BinarySource;

use crate::screen::Format;

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Environment: the name of a file in `environments/` of the manifests
    #[arg(short, long, global = true, env = "NATSCTL_ENV", default_value = "local", value_name = "NAME")]
    pub(crate) env: String,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
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

impl Which {
    /// The services that are meant.
    ///
    /// # Errors
    /// A name that no manifest has.
    pub(crate) fn selection(&self, manifests: &Manifests) -> anyhow::Result<Selection> {
        let services = if self.all {
            manifests.services.keys().cloned().collect()
        } else {
            self.services
                .iter()
                .map(|name| manifests.service(name).map(|service| service.name.to_string()))
                .collect::<Result<_, _>>()?
        };
        Ok(Selection { services, all: self.all })
    }
}

/// Where the services' binaries come from.
#[derive(Debug, Args)]
pub(crate) struct Binaries {
    /// Take the binaries as they are, without building them first
    #[arg(long)]
    no_build: bool,
    /// Take the binaries from this folder, without building them; by default they are beside natsctl
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

impl Binaries {
    pub(crate) fn source(&self) -> BinarySource {
        match (&self.binaries, self.no_build) {
            // What is said of it names it in full. Without a current directory it is said as typed.
            (Some(folder), _) => BinarySource::Folder(std::path::absolute(folder).unwrap_or_else(|_| folder.clone())),
            (None, true) => BinarySource::LastBuild,
            (None, false) => BinarySource::Build,
        }
    }
}
