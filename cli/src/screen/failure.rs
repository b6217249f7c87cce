//! How a command fails: for people on standard error; with `--output json` for programs on standard output, too.

use std::io::{self, ErrorKind, Write as _};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind as UsageError};
use schemars::JsonSchema;
use serde::Serialize;

use super::printable::Printable;
use super::{BUG, FAILED, Format, INTERRUPTED, USAGE, colours, line, note, say, summarise};
use crate::error::{self, Code};
use crate::problem::{Problems, counted};

/// Standard output cannot be written to. That it is closed is no failure: its reader has read enough.
#[derive(Debug, thiserror::Error)]
#[error("failed to write to standard output")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    fn is_closed(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Lets work go on whose output is read no more.
///
/// # Errors
/// All others.
#[cfg(any(feature = "aws", test))]
pub(crate) fn unless_closed(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.downcast_ref().is_some_and(OutputError::is_closed) => Ok(()),
        other => other,
    }
}

/// With `--output json`, why a command failed: on one line, so that it can also follow other lines.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "Error")]
pub(crate) struct Failure {
    error: Description,
}

/// Why a command failed.
#[derive(Debug, Serialize, JsonSchema)]
struct Description {
    /// What kind of failure it is: a word that stays as it is.
    code: Code,
    /// What failed.
    message: String,
    /// Why, the last reason last.
    causes: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Everything that is wrong with the files that people write, by place; with the code `invalid_manifest` alone.
    #[serde(skip_serializing_if = "Problems::is_empty")]
    #[schemars(default)]
    problems: Problems,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>, hint: Option<String>) -> Self {
        let error =
            Description { code, message: message.into(), causes: Vec::new(), hint, problems: Problems::default() };
        Self { error }
    }

    fn of(error: &anyhow::Error) -> Self {
        if let Some(problems) = error.downcast_ref::<Problems>() {
            let mut failure = Self::new(Code::InvalidManifest, counted(problems.len(), "problem"), None);
            failure.error.problems = problems.clone();
            return failure;
        }
        let mut failure = Self::new(error::code(error), error.to_string(), error::hint(error));
        failure.error.causes = error.chain().skip(1).map(ToString::to_string).collect();
        failure
    }

    /// What clap says, without what it says for people alone.
    fn of_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let is_help = error.kind() == UsageError::DisplayHelpOnMissingArgumentOrSubcommand;
        let (message, hint) = if is_help { ("no command is given".to_owned(), None) } else { parts(&text) };
        let usage = error.get(ContextKind::Usage).map(|usage| usage.to_string().trim().to_owned());
        Self::new(Code::Usage, message, hint.or(usage).or_else(|| Some("see `natsctl --help`".to_owned())))
    }

    /// Its reader may have gone, and the disk may be full; people read why on standard error.
    fn print(&self, format: Format) {
        if format == Format::Json {
            let _ = line(&serde_json::to_string(self).unwrap_or_default());
        }
    }
}

/// The message and the tips of what clap says.
fn parts(text: &str) -> (String, Option<String>) {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(one_line);
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let tips: Vec<String> = text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).map(one_line).collect();
    (message, (!tips.is_empty()).then(|| tips.join("; ")))
}

/// Why a command failed, with its causes and what to do.
pub(crate) fn failure(error: &anyhow::Error, format: Format) -> ExitCode {
    if error.downcast_ref().is_some_and(OutputError::is_closed) {
        return ExitCode::SUCCESS;
    }
    match error.downcast_ref::<Problems>() {
        Some(problems) => say(&problems.to_string()),
        None => {
            let message = format!("error: {error:#}");
            summarise(&message);
            say(&message);
            if let Some(hint) = error::hint(error) {
                say(&format!("hint: {hint}"));
            }
        }
    }
    Failure::of(error).print(format);
    ExitCode::from(FAILED)
}

/// Why something failed, for programs that read how it goes on.
pub(crate) fn error_document(error: &anyhow::Error) -> serde_json::Value {
    serde_json::to_value(Failure::of(error)).unwrap_or_default()
}

/// What clap says of wrong arguments, or of `--help`.
pub(crate) fn usage(error: &clap::Error, format: Format) -> ExitCode {
    // It quotes what was typed, between colours of its own.
    let text = error.render().ansi().to_string();
    if error.use_stderr() {
        // Who has closed it does not listen.
        let _ = write!(io::stderr(), "{}", Printable::log(&text, colours(&io::stderr())));
        Failure::of_usage(error).print(format);
        return ExitCode::from(USAGE);
    }
    document(&Printable::log(&text, colours(&io::stdout())).to_string())
}

/// A text that is no result, as it is.
pub(crate) fn document(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(OutputError) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error.into(), Format::Table),
    }
}

/// Ctrl-C was typed. `then` says how it goes on; `None` if the command has begun nothing.
pub(crate) fn interrupted(then: Option<&str>, format: Format) -> ExitCode {
    if let Some(then) = then {
        note(&format!("interrupted; {then}"));
        Failure::new(Code::Interrupted, "interrupted", Some(then.to_owned())).print(format);
    }
    ExitCode::from(INTERRUPTED)
}

/// How to report a bug.
const REPORT: &str = "report it with the command line and the lines above; running the command again is safe";

/// Makes a panic say that it is natsctl's fault, instead of what Rust says.
pub(crate) fn announce_bugs() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            usual(panic);
        }
        say(&format!("error: natsctl has a bug: {}", described(panic)));
    }));
}

fn described(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    match panic.location() {
        Some(place) => format!("{message} ({place}, version {})", env!("CARGO_PKG_VERSION")),
        None => message.to_owned(),
    }
}

/// After a panic.
pub(crate) fn bug(format: Format) -> ExitCode {
    say(&format!("hint: {REPORT}"));
    Failure::new(Code::Bug, "natsctl has a bug", Some(REPORT.to_owned())).print(format);
    ExitCode::from(BUG)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::error::Hinted;
    use crate::problem::{Place, Problem};

    fn check(error: &anyhow::Error, expected: Value) {
        assert_eq!(json!(Failure::of(error)), json!({ "error": expected }));
    }

    #[test]
    fn an_error_has_its_causes_and_the_hint_and_code_of_one_of_them() {
        let locked = Hinted::new("it is being changed", "wait").code(Code::Locked).because(io::Error::other("EAGAIN"));
        let error = Err::<(), _>(locked).context("failed to deploy").unwrap_err();
        let causes = ["it is being changed", "EAGAIN"];
        check(&error, json!({ "code": "locked", "message": "failed to deploy", "causes": causes, "hint": "wait" }));
        check(&anyhow::anyhow!("no"), json!({ "code": "failed", "message": "no", "causes": [] }));
    }

    #[test]
    fn problems_of_manifests_are_all_there() {
        let problem = Problem::new(&Place::start_of("a.yaml"), "unknown key `x`");
        let problems = json!([{ "file": "a.yaml", "line": 1, "column": 1, "message": "unknown key `x`" }]);
        let expected =
            json!({ "code": "invalid_manifest", "message": "1 problem", "causes": [], "problems": problems });
        check(&Problems::from(problem).into(), expected);
    }

    #[test]
    fn what_clap_says_is_a_message_and_a_hint() {
        let text =
            "error: the following required arguments were not provided:\n  <SERVICE>\n\n  tip: this\n\nUsage: x\n";
        let message = "the following required arguments were not provided: <SERVICE>".to_owned();
        assert_eq!(parts(text), (message, Some("this".to_owned())));
    }

    #[test]
    fn only_a_closed_standard_output_is_no_failure() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(unless_closed(Err(OutputError(broken()).into())).is_ok());
        assert!(unless_closed(Err(broken().into())).is_err());
        assert_eq!(failure(&OutputError(broken()).into(), Format::Table), ExitCode::SUCCESS);
        assert_ne!(failure(&broken().into(), Format::Table), ExitCode::SUCCESS);
    }
}
