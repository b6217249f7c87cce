//! A folder of manifests with a program for each service, and a registry.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What stands in for the services: it prints what it sees.
const PROGRAM: &str = r#"
use std::{env, fs};
fn main() {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let user = read("/etc/passwd").lines().last().unwrap_or_default().to_owned();
    let trusted = env::var("SSL_CERT_FILE").is_ok_and(|file| read(&file).contains("BEGIN CERTIFICATE"));
    let argument = env::args().nth(1).unwrap_or_default();
    let (tmp, root) = (fs::write("/tmp/x", "").is_ok(), fs::write("/x", "").is_ok());
    println!("{argument} {user} certificates: {trusted} tmp: {tmp} root: {root}");
}
"#;

pub(crate) struct Stage {
    home: TempDir,
    registry: Option<String>,
    umask: &'static str,
}

/// What a run of natsctl came to.
pub(crate) struct Run(Output);

impl Stage {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let stage = Self { home, registry: None, umask: "022" };
        for folder in ["manifests/services", "manifests/environments", "binaries"] {
            fs::create_dir_all(stage.home.path().join(folder)).unwrap();
        }
        let manifests = Path::new(REPOSITORY).join("manifests");
        for file in ["fleet.yaml", "environments/local.yaml"] {
            fs::copy(manifests.join(file), stage.manifest(file)).unwrap();
        }
        for entry in fs::read_dir(manifests.join("services")).unwrap() {
            let file = entry.unwrap().path();
            fs::copy(&file, stage.manifest("services").join(file.file_name().unwrap())).unwrap();
            fs::write(stage.binary(file.file_stem().unwrap().to_str().unwrap()), program()).unwrap();
        }
        stage
    }

    pub(crate) fn with_registry(self, host: &str) -> Self {
        Self { registry: Some(host.to_owned()), ..self }
    }

    pub(crate) fn with_umask(self, umask: &'static str) -> Self {
        Self { umask, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    pub(crate) fn manifest(&self, file: &str) -> PathBuf {
        self.home.path().join("manifests").join(file)
    }

    pub(crate) fn binary(&self, service: &str) -> PathBuf {
        self.home.path().join("binaries").join(service)
    }

    /// Adds to a manifest, and says what it was before.
    pub(crate) fn append(&self, file: &str, text: &str) -> String {
        let before = fs::read_to_string(self.manifest(file)).unwrap();
        fs::write(self.manifest(file), format!("{before}{text}")).unwrap();
        before
    }

    pub(crate) fn is_root(&self) -> bool {
        let output = Command::new("id").arg("-u").output().unwrap();
        output.stdout.trim_ascii() == b"0"
    }

    /// The folder of static binaries of the services, if they have been built.
    pub(crate) fn static_services(&self) -> Option<String> {
        let natsctl = Path::new(env!("CARGO_BIN_EXE_natsctl"));
        let target = natsctl.parent()?.parent()?.join("images/x86_64-unknown-linux-gnu");
        let found = ["release", "debug"].into_iter().map(|profile| target.join(profile));
        let found = found.into_iter().find(|folder| folder.join("quest-system").is_file());
        if found.is_none() {
            eprintln!("skipped: no static services; `natsctl build quest-system --profile dev` makes them");
        }
        Some(found?.display().to_string())
    }

    /// `natsctl build`, with the programs.
    pub(crate) fn build(&self, arguments: &[&str]) -> Run {
        self.build_of(&self.path("binaries"), arguments)
    }

    pub(crate) fn build_of(&self, binaries: &str, arguments: &[&str]) -> Run {
        let mut natsctl = Command::new("sh");
        natsctl.args([
            "-c",
            r#"umask "$1"; shift; exec "$@""#,
            "sh",
            self.umask,
            env!("CARGO_BIN_EXE_natsctl"),
            "build",
        ]);
        natsctl.args(["--output", "json", "--binaries", binaries]).args(arguments).current_dir(self.home.path());
        natsctl.env("DOCKER_CONFIG", self.home.path()).env_remove("NATSCTL_REGISTRY").env_remove("NATSCTL_ENV");
        natsctl.envs(self.registry.iter().map(|host| ("NATSCTL_REGISTRY", host)));
        Run(natsctl.output().unwrap())
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.0.status.success(), "{}", String::from_utf8_lossy(&self.0.stderr));
        serde_json::from_slice(&self.0.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn fails(self, says: &[&str]) {
        let said = String::from_utf8_lossy(&self.0.stderr);
        assert_eq!(self.0.status.code(), Some(1), "{said}");
        for expected in says {
            assert!(said.contains(expected), "`{expected}` is not in:\n{said}");
        }
    }
}

/// The program, compiled once.
fn program() -> &'static [u8] {
    static PROGRAM_FILE: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM_FILE.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let (source, binary) = (home.path().join("app.rs"), home.path().join("app"));
        fs::write(&source, PROGRAM).unwrap();
        let mut rustc = Command::new("rustc");
        rustc
            .args(["--edition=2024", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"])
            .arg(&binary)
            .arg(&source);
        let output = rustc.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(binary).unwrap()
    })
}

/// What skopeo says; `None`, said on the terminal, if the machine has none.
pub(crate) fn skopeo(arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("skopeo").args(arguments).output() else {
        eprintln!("skipped: skopeo is not installed (Debian: apt-get install skopeo)");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The file system of an image, as skopeo reads it.
pub(crate) fn unpacked(stage: &Stage, image: &str) -> PathBuf {
    let (plain, root) = (stage.path("image"), PathBuf::from(stage.path("root")));
    skopeo(&["copy", "--quiet", "--src-tls-verify=false", image, &format!("dir:{plain}")]).unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(Path::new(&plain).join("manifest.json")).unwrap()).unwrap();
    fs::create_dir(&root).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let packed = fs::read(Path::new(&plain).join(blob)).unwrap();
        let plain: Box<dyn Read> = match layer["mediaType"].as_str().unwrap().ends_with("zstd") {
            true => Box::new(zstd::Decoder::new(packed.as_slice()).unwrap()),
            false => Box::new(flate2::read::GzDecoder::new(packed.as_slice())),
        };
        let mut archive = tar::Archive::new(plain);
        archive.set_preserve_permissions(true);
        archive.unpack(&root).unwrap();
    }
    root
}

/// A registry for everybody, on a port that the system picks; killed when dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    process: Child,
    _home: TempDir,
}

impl Registry {
    /// `None`, said on the terminal, if the machine has none.
    pub(crate) fn start() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.yml");
        let data = home.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let start = |program: &str| {
            Command::new(program).arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        };
        let Ok(mut process) = start("docker-registry").or_else(|_| start("registry")) else {
            eprintln!("skipped: docker-registry is not installed (Debian: apt-get install docker-registry)");
            return None;
        };
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let host = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',']).next()?.to_owned())
        });
        // The log must be drained, or the registry stops at a full pipe.
        std::thread::spawn(move || log.for_each(drop));
        Some(Self { host: host.unwrap(), process, _home: home })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
