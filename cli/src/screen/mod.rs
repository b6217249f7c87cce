//! The one place that prints. Commands return data; progress goes to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the place")]

mod failure;
pub(crate) mod layout;
pub(crate) mod lists;
mod live;
pub(crate) mod logs;
mod printable;
pub(crate) mod progress;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod watch;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;
use printable::{Colours, Printable};
use serde::Serialize;
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

#[cfg(feature = "aws")]
pub(crate) use failure::unless_closed;
pub(crate) use failure::{OutputError, announce_bugs, bug, document, error_document, failure, interrupted, usage};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document on standard output.
    Json,
    /// Metrics; of `nats check` only.
    Prometheus,
}

/// What a command found or did.
#[derive(Debug)]
pub(crate) struct Report {
    json: Value,
    text: String,
    code: u8,
    /// As metrics, where it can be.
    metrics: Option<String>,
    /// Whether the first sign of a line says what happens to what it names.
    is_diff: bool,
}

/// `status` found something unhealthy.
pub(crate) const UNHEALTHY: u8 = 3;
/// `plan` found changes.
pub(crate) const CHANGES: u8 = 2;
/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// A bug of natsctl; `EX_SOFTWARE` of sysexits.h.
pub(crate) const BUG: u8 = 70;
/// Wrong usage; `EX_USAGE` of sysexits.h.
pub(crate) const USAGE: u8 = 64;
/// Ended by Ctrl-C: 128 and the signal's number, as in shells.
pub(crate) const INTERRUPTED: u8 = 130;

impl Report {
    /// `data` for programs, `text` for people.
    pub(crate) fn new(data: &impl Serialize, text: impl Into<String>) -> Self {
        Self {
            json: serde_json::to_value(data).unwrap_or_default(),
            text: text.into(),
            code: 0,
            metrics: None,
            is_diff: false,
        }
    }

    /// Nothing to print.
    pub(crate) fn silent() -> Self {
        Self { json: Value::Null, text: String::new(), code: 0, metrics: None, is_diff: false }
    }

    /// Ends the command with this exit code.
    #[must_use]
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same for Prometheus.
    #[must_use]
    pub(crate) fn prometheus(mut self, metrics: String) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Colours the lines by their first sign: `+`, `~`, `>`, `-`.
    #[must_use]
    pub(crate) fn diff(mut self) -> Self {
        self.is_diff = true;
        self
    }

    /// Prints, and says how the process ends.
    pub(crate) fn print(&self, format: Format) -> ExitCode {
        let text = match (format, &self.json) {
            (Format::Table, _) => self.text.trim_end().to_owned(),
            (Format::Json, Value::Null) => String::new(),
            (Format::Json, json) => format!("{json:#}"),
            (Format::Prometheus, _) => self.metrics.as_deref().unwrap_or_default().trim_end().to_owned(),
        };
        let is_coloured = format == Format::Table && self.is_diff && colours(&io::stdout()) == Colours::Keep;
        let printable = Printable::new(&text);
        let printable = if is_coloured { printable.diff() } else { printable };
        summarise(&self.text);
        match if text.is_empty() { Ok(()) } else { write_line(&printable) } {
            Err(error) => failure(&error.into(), Format::Table),
            Ok(()) => ExitCode::from(self.code),
        }
    }
}

/// One line on standard output, at once.
pub(crate) fn line(text: &str) -> Result<(), OutputError> {
    write_line(&Printable::new(text))
}

fn write_line(text: &Printable<'_>) -> Result<(), OutputError> {
    progress::above(|| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    })
}

/// One of many results, as soon as it is there: `text` for people, `data` for programs as JSON on one line.
pub(crate) fn item(data: &impl Serialize, text: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => line(text)?,
        Format::Json | Format::Prometheus => line(&serde_json::to_string(data)?)?,
    }
    Ok(())
}

/// What belongs to the line above.
pub(crate) fn indented(text: &str) -> String {
    format!("    {text}")
}

/// Text as it is printed, for a file that people look at.
pub(crate) fn printable(text: &str) -> String {
    Printable::new(text).to_string()
}

/// What happens on the way, for people: on standard error, with the time (UTC) where it is read later.
pub(crate) fn note(text: &str) {
    if io::stderr().is_terminal() {
        say(text);
    } else {
        say(&format!("{} {text}", Timestamp::now().strftime("%H:%M:%SZ")));
    }
}

/// On standard error. Who has closed it does not listen, which is no reason to stop halfway.
fn say(text: &str) {
    let _ = progress::above(|| writeln!(io::stderr(), "{}", Printable::new(text)));
}

/// Whether there is a terminal at which a question can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a confirmation. Without a terminal there is no question, and the answer is yes: a script means what it says.
pub(crate) async fn confirm(question: &str) -> io::Result<bool> {
    if !can_ask() {
        return Ok(true);
    }
    progress::above(|| write!(io::stderr(), "{} [y/N] ", Printable::new(question)))?;
    // On a thread of its own, which ends with the process: Ctrl-C does not wait for an answer.
    let (answered, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).map(|_| answer);
        let _ = answered.send(read);
    });
    let answer = answer.await.unwrap_or_else(|_| Ok(String::new()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Rings the bell of the terminal, if there is one.
pub(crate) fn bell() {
    if io::stderr().is_terminal() {
        let _ = io::stderr().write_all(b"\x07");
    }
}

/// What is about to be done, for people: on standard error, coloured by the first signs of its lines.
pub(crate) fn diff(text: &str) {
    let text = Printable::new(text);
    let text = if colours(&io::stderr()) == Colours::Keep { text.diff() } else { text };
    let _ = progress::above(|| writeln!(io::stderr(), "{text}"));
}

/// What was typed, as the lock, the history and job summaries show it: without the address of a webhook, which is a secret.
pub(crate) fn without_secrets(typed: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_secret = false;
    typed
        .map(|argument| match (std::mem::replace(&mut is_secret, argument == "--notify"), argument.split_once('=')) {
            (true, _) => "…".to_owned(),
            (false, Some(("--notify", _))) => "--notify=…".to_owned(),
            _ => argument,
        })
        .collect()
}

/// Adds it to the job summary, where GitHub Actions runs the command.
fn summarise(text: &str) {
    let Some(file) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|file| !file.is_empty() && !text.is_empty()) else {
        return;
    };
    let typed = without_secrets(std::env::args().skip(1));
    let summary = summary(&typed.join(" "), text.trim_end());
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
    if let Err(error) = opened.and_then(|mut file| file.write_all(summary.as_bytes())) {
        tracing::warn!(file = %file.display(), %error, "the summary cannot be written");
    }
}

/// Markdown in which nothing that was typed or read is anything but text.
fn summary(typed: &str, text: &str) -> String {
    let (typed, text) = (Printable::new(typed), Printable::new(text));
    let typed = typed.as_str().replace('\n', " ");
    let (code, fence) = (fence(&typed, 1), fence(text.as_str(), 3));
    // Markdown takes away one space on both sides, which keeps a backtick at the end from becoming part of the fence.
    let space = if code == "`" { "" } else { " " };
    format!("### {code}{space}natsctl {typed}{space}{code}\n\n{fence}\n{text}\n{fence}\n\n")
}

/// More backticks than are next to each other in the text, and at least so many.
fn fence(text: &str, least: usize) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default();
    "`".repeat(least.max(longest + 1))
}

/// The columns of the terminal that results are printed to; `None` if they go elsewhere.
pub(crate) fn width() -> Option<usize> {
    io::stdout().is_terminal().then(|| Table::new().width().map(usize::from)).flatten()
}

/// Logs to standard error, in more or less detail.
pub(crate) fn log(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // What the NATS client meets on its way to a server is in natsctl's own errors, if it matters.
    let is_shown = move |event: &tracing::Metadata<'_>| verbosity > 0 || !event.target().starts_with("async_nats");
    let writer = (|| LogWriter).with_filter(is_shown);
    // The supervisor sets its own.
    let _ = tracing_subscriber::fmt().log_internal_errors(false).with_writer(writer).with_max_level(level).try_init();
}

/// natsctl's own log on standard error, one event at a time.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        progress::above(|| io::stderr().write_all(Printable::new(&text).as_str().as_bytes()))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether colours are welcome (<https://no-color.org>).
fn colours(stream: &impl IsTerminal) -> Colours {
    let is_welcome = stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if is_welcome { Colours::Keep } else { Colours::Drop }
}

/// A table without lines, its columns as wide as they must be.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().map(|title| title.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2)).set_cell_alignment(CellAlignment::Left);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_cannot_be_left_by_what_it_quotes() {
        let text = summary("deploy `x`\n# y", "error: ````\n<img>\x1b[2J");
        assert_eq!(text, "### `` natsctl deploy `x` # y ``\n\n`````\nerror: ````\n<img>\\u001b[2J\n`````\n\n");
    }

    #[test]
    fn a_summary_is_a_fenced_block_under_the_command() {
        assert_eq!(summary("plan --all", "nothing to do"), "### `natsctl plan --all`\n\n```\nnothing to do\n```\n\n");
    }

    #[test]
    fn the_address_of_a_webhook_is_neither_in_the_history_nor_in_a_summary() {
        for typed in
            ["deploy --all --notify https://hooks/secret --yes", "deploy --all --notify=https://hooks/secret --yes"]
        {
            let shown = without_secrets(typed.split(' ').map(str::to_owned)).join(" ");
            assert!(!shown.contains("secret") && shown.ends_with("… --yes"), "{shown}");
        }
    }
}
