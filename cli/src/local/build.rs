//! What is built of the services before they are deployed: one binary each, by cargo.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStderr, Command};

use crate::error::{Hinted, at};
use crate::screen::progress::Activity;

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
        if missing.is_empty() { Ok(binaries) } else { Err(self.lacks(&missing).into()) }
    }

    /// There are no binaries of these services, and nothing builds them.
    pub(crate) fn lacks(&self, services: &[&str]) -> Hinted {
        let message = format!("no binaries of `{}` in `{}`", services.join("`, `"), self.folder.display());
        Hinted::new(message, "build them: `cargo build --release --workspace`")
    }
}

async fn cargo_build(workspace: &Path, folder: &Path, services: &[&String]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    // It draws nothing, whatever its configuration says: its lines are read.
    cargo.arg("build").current_dir(workspace).env("CARGO_TERM_PROGRESS_WHEN", "never").env("CARGO_TERM_COLOR", "never");
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for service in services {
        cargo.args(["--package", service]);
    }
    tracing::info!(folder = %folder.display(), "building the services");
    let activity = Activity::start("building the services");
    let cargo = cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut cargo = cargo.map_err(|error| {
        let hint = "`./scripts/up` installs cargo; `--no-build` deploys the binaries as they are";
        Hinted::new("failed to run `cargo`", hint).because(error)
    })?;
    let said = read_messages(cargo.stderr.take(), &activity).await.context("failed to read what `cargo` says")?;
    if cargo.wait().await.context("failed to wait for `cargo`")?.success() {
        return Ok(());
    }
    Err(Hinted::new(
        format!("the services do not compile:\n{}", said.trim_end()),
        "fix them, or deploy the last binaries with `--no-build`",
    )
    .into())
}

/// What cargo says besides how far it is, which the activity shows.
async fn read_messages(stderr: Option<ChildStderr>, activity: &Activity) -> io::Result<String> {
    let Some(stderr) = stderr else { return Ok(String::new()) };
    let mut lines = BufReader::new(stderr).split(b'\n');
    let (mut said, mut crates) = (String::new(), 0);
    while let Some(line) = lines.next_segment().await? {
        let line = String::from_utf8_lossy(&line);
        match Status::of(&line) {
            Status::Compiling(name) => {
                crates += 1;
                activity.is_at(format!("crate {crates}"), Some(name.to_owned()));
            }
            Status::Other(text) => activity.is_at("", Some(text.to_owned())),
            Status::None => said += &format!("{line}\n"),
        }
    }
    Ok(said)
}

/// A line in which cargo says how far it is: a word, right-aligned in twelve columns, and what it is about.
#[derive(Debug, PartialEq, Eq)]
enum Status<'a> {
    Compiling(&'a str),
    /// For example that another cargo holds the lock of the build directory.
    Other(&'a str),
    /// It is none: something is wrong.
    None,
}

impl<'a> Status<'a> {
    fn of(line: &'a str) -> Self {
        let is_status = |word: &&str| {
            let column = line.len() - line.trim_start().len();
            column + word.len() == STATUS_COLUMNS && word.starts_with(char::is_uppercase)
        };
        match line.trim_start().split_once(' ').filter(|(word, _)| is_status(word)) {
            Some(("Compiling", what)) => Self::Compiling(what.split(" (").next().unwrap_or(what)),
            Some(_) => Self::Other(line.trim_start()),
            None => Self::None,
        }
    }
}

/// The columns of the word.
const STATUS_COLUMNS: usize = 12;

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn lines_of_cargo_that_say_how_far_it_is_are_no_errors() {
        assert_eq!(Status::of("   Compiling auth v0.1.0 (/work/auth)"), Status::Compiling("auth v0.1.0"));
        let lock = "    Blocking waiting for file lock on build directory";
        assert_eq!(Status::of(lock), Status::Other("Blocking waiting for file lock on build directory"));
        for line in ["error: expected `;`", "  --> src/main.rs:1:2", "", "   |", "    Finishing what"] {
            assert_eq!(Status::of(line), Status::None, "{line}");
        }
    }
}
