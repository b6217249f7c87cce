//! One run of natsctl: what it says while it runs, and how it ends.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fleet::{PATIENCE, signal};
use crate::schemas;

/// A command that has not ended.
pub(crate) struct Running {
    command: String,
    arguments: Vec<String>,
    child: Child,
    out: JoinHandle<String>,
    err: Lines<BufReader<ChildStderr>>,
    said: String,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    command: String,
    arguments: Vec<String>,
    code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let arguments = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let (mut out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = tokio::spawn(async move {
            let mut text = String::new();
            out.read_to_string(&mut text).await.unwrap();
            text
        });
        Self { command: shown, arguments, child, out, err: BufReader::new(err).lines(), said: String::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until it says something with this text in it on standard error.
    pub(crate) async fn until(&mut self, text: &str) -> &mut Self {
        while !self.said.contains(text) {
            assert!(self.line().await, "ended without `{text}`: {}\n{}", self.command, self.said);
        }
        self
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        signal(self.pid(), Signal::INT);
    }

    pub(crate) async fn ended(mut self) -> Run {
        while self.line().await {}
        let status = timeout(PATIENCE, self.child.wait()).await.expect("ends in time").unwrap();
        let arguments = self.arguments;
        Run { command: self.command, arguments, code: status.code(), out: self.out.await.unwrap(), err: self.said }
    }

    async fn line(&mut self) -> bool {
        let line = timeout(PATIENCE, self.err.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("says nothing and does not end: {}\n{}", self.command, self.said));
        let Some(line) = line.unwrap() else {
            return false;
        };
        self.said.push_str(&line);
        self.said.push('\n');
        true
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}\n{}", self.command, self.out, self.err);
        self
    }

    /// All of these texts are on standard error.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is missing: {}\n{}", self.command, self.err);
        }
        self
    }

    /// All of these texts are on standard output.
    #[track_caller]
    pub(crate) fn shows(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.out.contains(text), "`{text}` is missing: {}\n{}", self.command, self.out);
        }
        self
    }

    /// What is on standard output, which is as the documentation says.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let document = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}\n{}", self.command, self.out, self.err));
        schemas::check(&self.arguments, &document);
        document
    }
}
