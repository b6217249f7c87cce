//! Static binaries of the services, by cargo, and what cargo knows of the packages they are made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use crate::error::Hinted;
use crate::model::desired::Architecture;

/// The target triple.
pub(super) fn triple(architecture: Architecture) -> String {
    format!("{}-unknown-linux-gnu", architecture.target_arch())
}

/// A build of services in one workspace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cargo<'a> {
    pub(super) workspace: &'a Path,
    /// A folder of its own: beside the ordinary build, so that neither undoes what the other has compiled.
    pub(super) target_dir: &'a Path,
    pub(super) profile: &'a str,
    pub(super) architecture: Architecture,
}

impl Cargo<'_> {
    /// Builds all services in one call, and says which folder they are in.
    ///
    /// # Errors
    /// What is missing to build for these processors, or what the compiler says.
    pub(super) async fn build(&self, services: &[&str]) -> anyhow::Result<PathBuf> {
        let triple = triple(self.architecture);
        let mut cargo = self.command("build");
        cargo.args(["--quiet", "--target", &triple, "--profile", self.profile, "--target-dir"]).arg(self.target_dir);
        for service in services {
            cargo.args(["--package", service]);
        }
        // These would replace the flags below.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let places = self.places()?;
        cargo.arg("--config").arg(format!("target.{triple}.rustflags={}", flags(&places)?));
        let underscored = triple.replace('-', "_");
        cargo.env(format!("CFLAGS_{underscored}"), c_flags(&places));
        if let Some(tools) = CrossTools::needed(self.architecture)? {
            tools.check(self).await?;
            cargo.arg("--config").arg(format!("target.{triple}.linker={:?}", tools.compiler()));
            cargo.env(format!("CC_{underscored}"), tools.compiler());
        }
        tracing::info!(%triple, "building the services, linked statically");
        let output = output(&mut cargo).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let message = format!("the services do not compile:\n{}", said.trim_end());
            return Err(Hinted::new(message, "fix them, or name a folder of binaries with `--binaries`").into());
        }
        let folder = if self.profile == "dev" { "debug" } else { self.profile };
        Ok(self.target_dir.join(triple).join(folder))
    }

    /// Everything that cargo knows of the workspace and of what it depends on.
    pub(super) async fn metadata(&self) -> anyhow::Result<Metadata> {
        let mut cargo = self.command("metadata");
        cargo.args(["--format-version", "1", "--locked", "--filter-platform", &triple(self.architecture)]);
        let output = output(&mut cargo).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::bail!("`cargo metadata` failed:\n{}", said.trim_end());
        }
        serde_json::from_slice(&output.stdout).context("failed to read what `cargo metadata` says")
    }

    fn command(&self, verb: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.arg(verb).current_dir(self.workspace);
        cargo
    }

    /// Folders of this machine, and what they are called in binaries (`--remap-path-prefix`), so that the binaries are
    /// the same wherever they are built.
    fn places(&self) -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
        let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        // The last that fits counts, and the target folder is usually in the workspace.
        let places = [
            (Some(self.workspace.to_owned()), "/workspace"),
            (cargo_home, "/cargo"),
            (Some(self.target_dir.to_owned()), "/target"),
        ];
        let absolute =
            |(place, name): (Option<PathBuf>, _)| Some(std::path::absolute(place?).map(|place| (place, name)));
        Ok(places.into_iter().filter_map(absolute).collect::<Result<_, _>>()?)
    }
}

/// For rustc.
fn flags(places: &[(PathBuf, &str)]) -> anyhow::Result<String> {
    let rename = |(place, name): &(PathBuf, &str)| format!("--remap-path-prefix={}={name}", place.display());
    let flags: Vec<String> =
        ["-Ctarget-feature=+crt-static".to_owned()].into_iter().chain(places.iter().map(rename)).collect();
    // A list of texts is written alike in JSON and in TOML.
    Ok(serde_json::to_string(&flags)?)
}

/// For the C compiler, which takes no folder with a space in it.
fn c_flags(places: &[(PathBuf, &str)]) -> String {
    let rename = |(place, name): &(PathBuf, &str)| format!("-ffile-prefix-map={}={name}", place.display());
    let flags = places.iter().map(rename).filter(|flag| !flag.contains(char::is_whitespace));
    flags.collect::<Vec<_>>().join(" ")
}

/// What building for other processors than one's own takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CrossTools {
    architecture: Architecture,
}

impl CrossTools {
    fn needed(architecture: Architecture) -> anyhow::Result<Option<Self>> {
        if cfg!(not(target_os = "linux")) {
            let hint = "build them where Linux runs, for example in CI, or name a folder of binaries with `--binaries`";
            return Err(Hinted::new("static binaries for Linux are linked on Linux", hint).into());
        }
        let own = match architecture {
            Architecture::X86_64 => cfg!(target_arch = "x86_64"),
            Architecture::Arm64 => cfg!(target_arch = "aarch64"),
        };
        Ok((!own).then_some(Self { architecture }))
    }

    fn compiler(self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "x86_64-linux-gnu-gcc",
            Architecture::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    fn packages(self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
            Architecture::Arm64 => "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        }
    }

    async fn check(self, cargo: &Cargo<'_>) -> anyhow::Result<()> {
        let triple = triple(self.architecture);
        let mut linker = Command::new(self.compiler());
        if linker.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_err() {
            let message = format!("no `{}`, which links programs for `{triple}`", self.compiler());
            return Err(Hinted::new(message, format!("on Debian: `apt-get install {}`", self.packages())).into());
        }
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", &triple]).current_dir(cargo.workspace);
        let printed = rustc.output().await.context("failed to run `rustc`")?;
        let folder = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
        if !folder.is_dir() {
            let message = format!("Rust's standard library for `{triple}` is not installed");
            return Err(Hinted::new(message, format!("`rustup target add {triple}`")).into());
        }
        Ok(())
    }
}

async fn output(cargo: &mut Command) -> anyhow::Result<Output> {
    cargo.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| {
        let hint = "install Rust from https://rustup.rs, or name a folder of binaries with `--binaries`";
        Hinted::new("failed to run `cargo`", hint).because(error).into()
    })
}

/// What `cargo metadata` prints, as far as it is of use.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) repository: Option<String>,
    /// Where it was downloaded; `None` for a package of this workspace.
    pub(super) source: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Clone, Debug, Deserialize)]
struct DependencyKind {
    /// `None` for what is linked; `dev` and `build` are not.
    kind: Option<String>,
}

impl Metadata {
    /// The package of this workspace that has this name.
    pub(super) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name && package.source.is_none())
    }

    /// The package and everything that it is linked of: each with the packages that it depends on itself, by their ids.
    pub(super) fn closure<'a>(&'a self, root: &'a Package) -> BTreeMap<&'a str, (&'a Package, Vec<&'a str>)> {
        let packages: BTreeMap<&str, &Package> =
            self.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (node.id.as_str(), node)).collect();
        let mut found = BTreeMap::new();
        let mut open = vec![root.id.as_str()];
        while let Some(id) = open.pop() {
            let Some(package) = packages.get(id) else { continue };
            if found.contains_key(id) {
                continue;
            }
            let mut needs: Vec<&str> = nodes.get(id).into_iter().flat_map(|node| node.linked()).collect();
            needs.sort_unstable();
            open.extend(&needs);
            found.insert(id, (*package, needs));
        }
        found
    }
}

impl Node {
    fn linked(&self) -> impl Iterator<Item = &str> {
        let linked = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        self.deps.iter().filter(linked).map(|dependency| dependency.pkg.as_str())
    }
}
