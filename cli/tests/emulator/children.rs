//! The servers behind the proxy, as processes. Each ends when its standard input does: with its [`Child`], and with
//! this process, however that ends.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::forks;

/// Where another Python than that of `scripts/emulator` is.
const PYTHON: &str = "NATSCTL_EMULATOR_PYTHON";

/// A server that takes commands.
pub(crate) struct Child {
    process: Process,
    talk: Mutex<Option<Talk>>,
    name: &'static str,
    folder: PathBuf,
}

enum Process {
    Own(std::process::Child),
    /// Of the process that imported moto; its standard input and output.
    Fork(UnixStream),
}

/// Standard input and output.
struct Talk(Box<dyn Write + Send>, BufReader<Box<dyn Read + Send>>);

impl Child {
    /// Starts a script of `python/`; [`Child::port`] waits for it.
    pub(crate) fn start(name: &'static str, folder: &Path) -> Self {
        let mut process = python(&format!("{name}_server"))
            .arg(folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log(name, folder))
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self::of(name, folder, Process::Own(process), input, output)
    }

    /// Starts moto.
    pub(crate) fn moto(folder: &Path) -> Self {
        let stream = forks::connect(folder);
        let clone = || stream.try_clone().unwrap();
        let (input, output) = (clone(), clone());
        Self::of("moto", folder, Process::Fork(stream), input, output)
    }

    fn of(
        name: &'static str,
        folder: &Path,
        process: Process,
        input: impl Write + Send + 'static,
        output: impl Read + Send + 'static,
    ) -> Self {
        let talk = Talk(Box::new(input), BufReader::new(Box::new(output)));
        Self { process, talk: Mutex::new(Some(talk)), name, folder: folder.to_owned() }
    }

    /// Where it listens, once it does.
    pub(crate) fn port(&self) -> SocketAddr {
        let port = self.read()["port"].as_u64().unwrap_or_else(|| panic!("{}", self.complaint()));
        SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()))
    }

    /// What it says next.
    pub(crate) fn read(&self) -> Value {
        let mut line = String::new();
        let mut talk = self.talk.lock().unwrap();
        let _ = talk.as_mut().unwrap().1.read_line(&mut line);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", self.complaint()))
    }

    /// Sends a command and waits until it is done.
    pub(crate) fn command(&self, command: Value) {
        self.ask(command);
    }

    /// The same, with what it answers.
    pub(crate) fn ask(&self, command: Value) -> Value {
        writeln!(self.talk.lock().unwrap().as_mut().unwrap().0, "{command}").unwrap();
        let answer = self.read();
        assert!(answer["failed"].is_null(), "{}: {}: {answer}", self.name, command["command"]);
        answer["done"].clone()
    }

    pub(crate) fn save(&self) {
        self.command(json!({ "command": "save" }));
    }

    pub(crate) fn restore(&self) {
        self.command(json!({ "command": "restore" }));
    }

    fn complaint(&self) -> String {
        complaint(self.name, &self.folder)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        *self.talk.lock().unwrap() = None;
        match &mut self.process {
            Process::Own(process) => drop(process.wait()),
            Process::Fork(stream) => {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(stream, &mut io::sink());
            }
        }
    }
}

/// A script of `python/`, ready to be run.
pub(super) fn python(script: &str) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let installed = tests.join("../../.tools/emulator/bin/python");
    let mut python = Command::new(std::env::var_os(PYTHON).map_or(installed, PathBuf::from));
    python.arg(tests.join(format!("emulator/python/{script}.py")));
    python.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("AWS_ENDPOINT_URL");
    python
}

/// Where a server writes what it has to complain about.
pub(super) fn log(name: &str, folder: &Path) -> File {
    File::create(folder.join(format!("{name}.log"))).unwrap()
}

pub(super) fn complaint(name: &str, folder: &Path) -> String {
    let said = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    format!("the emulator `{name}` has ended:\n{said}\nhint: `scripts/emulator` installs what it needs")
}
