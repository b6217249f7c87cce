//! What is built of the services before they are deployed: one binary each, by cargo.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::error::{Hinted, at};

/// Where binaries come from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The folder that they are in, for example `target/release`.
    pub(crate) folder: PathBuf,
    /// The workspace to build them from; `None` takes them as they are.
    pub(crate) workspace: Option<PathBuf>,
}

impl Source {
    /// Binaries are taken from beside the running natsctl, which came out of the same build.
    pub(crate) fn beside_natsctl(workspace: &Path) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("failed to find out where natsctl is")?;
        let folder = own.parent().unwrap_or(Path::new(".")).to_owned();
        let built_here = workspace.join("Cargo.toml").is_file() && folder.starts_with(workspace);
        Ok(Self { folder, workspace: built_here.then(|| workspace.to_owned()) })
    }

    /// The same binaries without building them.
    #[must_use]
    pub(crate) fn without_building(self) -> Self {
        Self { workspace: None, ..self }
    }

    /// Builds the services if they can be built here, and says where the binaries are.
    ///
    /// # Errors
    /// What the compiler says; or which binaries are missing.
    pub(crate) async fn build(
        &self,
        services: impl Iterator<Item = &String>,
    ) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let services: Vec<&String> = services.collect();
        if let Some(workspace) = &self.workspace {
            cargo_build(workspace, &self.folder, &services).await?;
        }
        let binaries: BTreeMap<String, PathBuf> =
            services.iter().map(|name| ((*name).clone(), self.folder.join(name))).collect();
        let mut missing: Vec<&str> = Vec::new();
        for (name, path) in &binaries {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => {}
                Ok(_) => missing.push(name),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    missing.push(name);
                }
                Err(error) => return Err(at("read", path)(error).into()),
            }
        }
        if missing.is_empty() {
            return Ok(binaries);
        }
        let message = format!("no binaries of `{}` in `{}`", missing.join("`, `"), self.folder.display());
        Err(Hinted::new(message, "build them: `cargo build --release --workspace`").into())
    }
}

async fn cargo_build(workspace: &Path, folder: &Path, services: &[&String]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.arg("build").arg("--quiet").current_dir(workspace);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for service in services {
        cargo.args(["--package", service]);
    }
    tracing::info!(folder = %folder.display(), "building the services");
    let output = cargo.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| {
        let hint = "`./scripts/up` installs cargo; `--no-build` deploys the binaries as they are";
        Hinted::new("failed to run `cargo`", hint).because(error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Hinted::new(
        format!("the services do not compile:\n{}", said.trim_end()),
        "fix them, or deploy the last binaries with `--no-build`",
    )
    .into())
}
