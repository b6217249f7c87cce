//! A fleet to deploy: generated manifests whose images exist already, and natsctl run on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::emulator::{Emulator, Foundation};
use crate::schemas;

/// The services of which there are crates; the others are only names.
const REAL: [&str; 6] =
    ["ai-integration", "gateway", "model-management", "npc-behavior", "quest-system", "state-manager"];

/// A workspace of its own, with manifests alone.
pub(crate) struct Fleet {
    dir: tempfile::TempDir,
    pub(crate) services: Vec<String>,
}

/// How a run of natsctl ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// As far as they are known.
    arguments: Vec<String>,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fleet {
    /// The services of which there are crates, and others until there are `count`; each in version 1. Three are a gateway, a service
    /// that calls, and the one that it calls.
    pub(crate) fn of(count: usize) -> Self {
        let others = (1..).map(|number| format!("other-{number}"));
        let services: Vec<String> = REAL.into_iter().map(str::to_owned).chain(others).take(count).collect();
        let fleet = Self { dir: tempfile::tempdir().unwrap(), services };
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        for file in ["fleet.yaml", "environments/development.yaml", "environments/production.yaml"] {
            let to = fleet.manifests().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from.join(file), to).unwrap();
        }
        fs::create_dir_all(fleet.manifests().join("services")).unwrap();
        for name in &fleet.services {
            fleet.version(name, 1);
        }
        fleet
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Folder of what natsctl keeps of the environment on this machine.
    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join(".natsctl/production")
    }

    /// The manifest of a service asks for another image from now on.
    pub(crate) fn version(&self, name: &str, version: u8) {
        self.manifest(name, &format!("build: {{ image: \"{}\" }}\n", Self::image(name, version)));
    }

    /// The same manifest with these lines more.
    pub(crate) fn manifest(&self, name: &str, lines: &str) {
        let text = repository_manifest(name).unwrap_or_else(|| format!("name: {name}\n"));
        fs::write(self.service_file(name), format!("{text}{lines}")).unwrap();
    }

    pub(crate) fn service_file(&self, name: &str) -> PathBuf {
        self.manifests().join(format!("services/{name}.yaml"))
    }

    /// Image of a service that is only a name.
    pub(crate) fn image(name: &str, version: u8) -> String {
        format!("docker.io/example/{name}@sha256:{}", format!("{version:02x}").repeat(32))
    }

    /// What Terraform would have made for it.
    pub(crate) fn foundation(&self) -> Foundation {
        Foundation::of_manifests(&self.manifests().join("services"))
    }

    /// The emulators, with what Terraform would have made for it.
    pub(crate) fn emulator(&self) -> Emulator {
        let emulator = Emulator::start();
        emulator.foundation(&self.foundation());
        emulator
    }

    /// natsctl with these arguments, ready to be run.
    pub(crate) fn command(&self, emulator: &Emulator, arguments: &[&str]) -> Command {
        self.command_in("production", emulator, arguments)
    }

    fn command_in(&self, environment: &str, emulator: &Emulator, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natsctl"));
        command.args(["--env", environment]).args(arguments).current_dir(self.dir.path());
        // Most of these fleets are only names, and on no bus.
        command.env("NATSCTL_PROOF", "ecs");
        command.envs(emulator.env()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in ["AWS_PROFILE", "NATSCTL_ENV", "NATSCTL_MANIFESTS", "NATSCTL_STATE_DIR", "GITHUB_STEP_SUMMARY"]
        {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn natsctl(&self, emulator: &Emulator, arguments: &[&str]) -> Ran {
        Ran::run(self.command(emulator, arguments))
    }

    /// The same in another environment.
    pub(crate) fn natsctl_in(&self, environment: &str, emulator: &Emulator, arguments: &[&str]) -> Ran {
        Ran::run(self.command_in(environment, emulator, arguments))
    }

    /// Deploys everything; the bus is not asked.
    pub(crate) fn deploy(&self, emulator: &Emulator, more: &[&str]) -> Ran {
        let arguments = [&["deploy", "--all", "--proof", "ecs"], more].concat();
        self.natsctl(emulator, &arguments)
    }
}

/// The text of a service's manifest, if there is a crate of it.
fn repository_manifest(name: &str) -> Option<String> {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/services");
    fs::read_to_string(services.join(format!("{name}.yaml"))).ok()
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn run(mut command: Command) -> Self {
        let arguments = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { arguments, ..Self::of(command.output().unwrap()) }
    }

    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            arguments: Vec::new(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// What is on standard output, which is as the documentation says.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let document = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        if !self.arguments.is_empty() {
            schemas::check(&self.arguments, &document);
        }
        document
    }

    /// It failed, and says all of this.
    #[track_caller]
    pub(crate) fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not said:\n{}", self.stderr);
        }
        self
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fleet").field(&self.services).finish()
    }
}
