//! The one place that prints. Commands return data; progress goes to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the place")]

pub(crate) mod status;

use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use clap_complete::Shell;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::Value;
use tracing::level_filters::LevelFilter;

use crate::error;
use crate::problem::Problems;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document on standard output.
    Json,
}

/// What a command found or did.
#[derive(Debug)]
pub(crate) struct Report {
    json: Value,
    text: String,
    code: u8,
    /// Whether the first sign of a line says what happens to what it names.
    is_diff: bool,
}

/// `status` found something unhealthy.
pub(crate) const UNHEALTHY: u8 = 3;
/// `plan` found changes.
pub(crate) const CHANGES: u8 = 2;
/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage; `EX_USAGE` of sysexits.h.
pub(crate) const USAGE: u8 = 64;
/// Ended by Ctrl-C: 128 and the signal's number, as in shells.
pub(crate) const INTERRUPTED: u8 = 130;

impl Report {
    /// `data` for programs, `text` for people.
    pub(crate) fn new(data: &impl Serialize, text: impl Into<String>) -> Self {
        Self { json: serde_json::to_value(data).unwrap_or_default(), text: text.into(), code: 0, is_diff: false }
    }

    /// Nothing to print.
    pub(crate) fn silent() -> Self {
        Self { json: Value::Null, text: String::new(), code: 0, is_diff: false }
    }

    /// Ends the command with this exit code.
    #[must_use]
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
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
            (Format::Table, _) if self.is_diff && colours(&io::stdout()) => coloured(self.text.trim_end()),
            (Format::Table, _) => self.text.trim_end().to_owned(),
            (Format::Json, Value::Null) => String::new(),
            (Format::Json, json) => format!("{json:#}"),
        };
        summarise(&self.text);
        match if text.is_empty() { Ok(()) } else { line(&text) } {
            Err(error) => failure(&error.into(), format),
            Ok(()) => ExitCode::from(self.code),
        }
    }
}

/// One line on standard output, at once.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// One of many results, as soon as it is there: `text` for people, `data` for programs as JSON on one line.
pub(crate) fn item(data: &impl Serialize, text: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => line(text)?,
        Format::Json => line(&serde_json::to_string(data)?)?,
    }
    Ok(())
}

/// Replaces what is on the terminal.
pub(crate) fn redraw(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        // Home, and clear what is below.
        write!(io::stdout().lock(), "\x1b[H\x1b[2J")?;
    }
    line(text)
}

/// What happens on the way, for people: on standard error.
pub(crate) fn note(text: &str) {
    say(text);
}

/// On standard error. Who has closed it does not listen, which is no reason to stop halfway.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks for a confirmation. Without a terminal there is no question, and the answer is yes: a script means what it says.
pub(crate) fn confirm(question: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(true);
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Adds it to the job summary, where GitHub Actions runs the command.
fn summarise(text: &str) {
    let Some(file) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|file| !file.is_empty() && !text.is_empty()) else {
        return;
    };
    let typed: Vec<String> = std::env::args().skip(1).collect();
    let summary = format!("### `natsctl {}`\n\n```\n{}\n```\n\n", typed.join(" "), text.trim_end());
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
    if let Err(error) = opened.and_then(|mut file| file.write_all(summary.as_bytes())) {
        tracing::warn!(file = %file.display(), %error, "the summary cannot be written");
    }
}

/// Why a command failed, with its causes and what to do.
pub(crate) fn failure(error: &anyhow::Error, format: Format) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        // Who reads has read enough.
        return ExitCode::SUCCESS;
    }
    match error.downcast_ref::<Problems>() {
        Some(problems) if format == Format::Json => return problems_as_json(problems),
        Some(problems) => say(&problems.to_string()),
        None => {
            summarise(&format!("error: {error:#}"));
            say(&format!("error: {error:#}"));
            if let Some(hint) = error::hint(error) {
                say(&format!("hint: {hint}"));
            }
        }
    }
    ExitCode::from(FAILED)
}

fn problems_as_json(problems: &Problems) -> ExitCode {
    Report::new(&serde_json::json!({ "problems": problems }), "").code(FAILED).print(Format::Json)
}

/// What clap says of wrong arguments, or of `--help`.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no reason to complain.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Completions, on standard output.
pub(crate) fn completions(shell: Shell, command: &mut clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "natsctl", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) => failure(&error.into(), Format::Table),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Ctrl-C was typed.
pub(crate) fn interrupted() -> ExitCode {
    note("interrupted; started steps continue, and running the same command again completes them");
    ExitCode::from(INTERRUPTED)
}

/// Logs to standard error, in more or less detail.
pub(crate) fn log(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // The supervisor sets its own.
    let _ =
        tracing_subscriber::fmt().log_internal_errors(false).with_writer(io::stderr).with_max_level(level).try_init();
}

/// Whether colours are welcome (<https://no-color.org>).
fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn coloured(text: &str) -> String {
    let line = |line: &str| match line.chars().next() {
        Some('+') => format!("\x1b[32m{line}\x1b[0m"),
        Some('~' | '>' | '?') => format!("\x1b[33m{line}\x1b[0m"),
        Some('-' | '!') => format!("\x1b[31m{line}\x1b[0m"),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
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
