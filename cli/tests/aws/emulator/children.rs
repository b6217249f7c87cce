//! The servers behind the proxy, as child processes. Each ends when its standard input does: with its [`Child`], and with
//! this process, however that ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

/// Where another Python than that of `scripts/emulator` is.
const PYTHON: &str = "NATSCTL_EMULATOR_PYTHON";

/// A server that takes commands.
pub(crate) struct Child {
    process: std::process::Child,
    talk: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    name: &'static str,
    log: PathBuf,
}

impl Child {
    /// Starts a script of `python/`; [`Child::port`] waits for it.
    pub(crate) fn start(name: &'static str, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut process = Command::new(python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/aws/emulator/python/{name}_server.py")))
            .arg(dir)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TMPDIR", dir)
            .env_remove("AWS_ENDPOINT_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let talk = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, talk: Mutex::new(Some(talk)), name, log }
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
        writeln!(self.talk.lock().unwrap().as_mut().unwrap().0, "{command}").unwrap();
        let answer = self.read();
        assert!(answer["failed"].is_null(), "{}: {command}: {answer}", self.name);
    }

    pub(crate) fn save(&self) {
        self.command(json!({ "command": "save" }));
    }

    pub(crate) fn restore(&self) {
        self.command(json!({ "command": "restore" }));
    }

    fn complaint(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("the emulator `{}` has ended:\n{said}\nhint: `scripts/emulator` installs what it needs", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        *self.talk.lock().unwrap() = None;
        let _ = self.process.wait();
    }
}

fn python() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/emulator/bin/python");
    std::env::var_os(PYTHON).map_or(installed, PathBuf::from)
}
