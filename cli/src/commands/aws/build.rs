//! `natsctl build`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::aws::ecr;
use crate::commands::invocation::Invocation;
use crate::commands::options::Which;
use crate::error::Hinted;
use crate::image::publish::{Destination, publish};
use crate::image::registry::{Registry, saved};
use crate::image::{Binaries, BuildOptions, Compression, Store};
use crate::manifest::{Environment, Manifests};
use crate::screen::{Report, note, table};

/// Build container images of services, and push them or write them to a folder
#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    which: Which,
    /// Push the images that are not in the registry yet
    #[arg(long)]
    push: bool,
    /// Write the images into this folder, as an OCI layout
    #[arg(long, value_name = "DIR")]
    oci_dir: Option<PathBuf>,
    /// Compression of the layers
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    compression: Compression,
    /// Take static binaries, named after their services, from this folder instead of building them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Cargo profile of the binaries
    #[arg(long, default_value = "release", value_name = "NAME", conflicts_with = "binaries")]
    profile: String,
}

impl Build {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let manifests = invocation.load()?;
        let names = self.which.selection(&manifests)?.services;
        // A missing registry is reported before minutes are spent on compiling.
        let destination = if self.push { Some(destination(invocation, &manifests).await?) } else { None };
        let order = BuildOptions {
            manifests: &manifests,
            names: &names,
            workspace: &invocation.workspace()?,
            binaries: &self.binaries.map_or(Binaries::Cargo { profile: self.profile }, Binaries::Folder),
            compression: self.compression,
            store: &store(invocation)?,
        };
        let published = publish(&order, destination.as_ref(), self.oci_dir.as_deref()).await?;
        for (service, warning) in published.iter().filter_map(|(name, one)| Some((name, one.warning.as_ref()?))) {
            note(&format!("warning: {service}: {warning}"));
        }
        let rows = published
            .iter()
            .map(|(name, one)| vec![name.clone(), one.image.clone(), one.digest.clone(), one.remark.clone()]);
        Ok(Report::new(&published, table(&["service", "image", "digest", ""], rows)))
    }
}

fn store(invocation: &Invocation) -> anyhow::Result<Store> {
    let folder = invocation.state_dir()?.join("images");
    Store::open(&folder).with_context(|| format!("failed to make folder `{}`", folder.display()))
}

/// The registry of the environment; for a local environment, the one that the variable `NATSCTL_REGISTRY` names.
async fn destination(invocation: &Invocation, manifests: &Manifests) -> anyhow::Result<Destination> {
    match &manifests.environment {
        Environment::Aws(_) => {
            let aws = invocation.aws().await?;
            let repositories = manifests.services.iter();
            let repositories = repositories.map(|(name, service)| (name.clone(), aws.handover.repository(service)));
            let host = aws.registry();
            let registry = Registry::new(&host, ecr::credentials(&aws, &host)?)?;
            Ok(Destination { registry, repositories: repositories.collect() })
        }
        Environment::Local(_) => {
            let typed = std::env::var("NATSCTL_REGISTRY").ok().filter(|host| !host.is_empty());
            let host = typed.ok_or_else(|| {
                let message = format!("environment `{}` has no registry to push to", manifests.name);
                Hinted::new(message, "set NATSCTL_REGISTRY to a host, or write images to a folder with `--oci-dir`")
            })?;
            let project = &manifests.project.project;
            let repositories = manifests.services.iter();
            let repositories =
                repositories.map(|(name, service)| (name.clone(), format!("{project}/{}", service.ecs_name())));
            let registry = Registry::new(&host, saved(&host)?)?;
            Ok(Destination { registry, repositories: repositories.collect() })
        }
    }
}
