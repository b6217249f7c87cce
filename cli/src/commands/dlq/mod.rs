//! `natsctl dlq`

mod drop;
mod list;
mod replay;
mod show;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::invocation::Invocation;
use crate::error::Hinted;
use crate::model::units::Span;
use crate::nats::dead_letters::{DeadLetter, DeadLetters, Filter, Outcome};
use crate::problem::counted;
use crate::screen::{self, Report};

/// Dead letters: list, show, replay or drop events that services could not handle
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    List(list::List),
    Show(show::Show),
    Replay(replay::Replay),
    Drop(drop::Drop),
}

impl Dlq {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        match self {
            Self::List(command) => command.run(invocation).await,
            Self::Show(command) => command.run(invocation).await,
            Self::Replay(command) => command.run(invocation).await,
            Self::Drop(command) => command.run(invocation).await,
        }
    }
}

/// Which dead letters, by what they are.
#[derive(Debug, Args)]
struct Filters {
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only those of this event, for example `evt.quest.generated.v1`
    #[arg(long, value_name = "SUBJECT")]
    event: Option<String>,
    /// Only those with this error code, for example `INVALID_ARGUMENT`
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Only those that are not older than this, for example `2h`
    #[arg(long, value_name = "TIME")]
    since: Option<Span>,
}

impl Filters {
    /// # Errors
    /// A service or an event whose name cannot be one.
    fn filter(&self, ids: Vec<u64>) -> anyhow::Result<Filter> {
        for (option, text) in [("--service", &self.service), ("--event", &self.event)] {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if let Some(text) = text.as_ref().filter(|text| text.is_empty() || !text.chars().all(is_name)) {
                let hint = "`natsctl dlq list` shows the services and events that have dead letters";
                return Err(Hinted::new(format!("`{option}`: `{text}` is no name"), hint).into());
            }
        }
        let since = self.since.map(|since| Timestamp::now().checked_sub(since.duration())).transpose()?;
        let (service, event, code) = (self.service.clone(), self.event.clone(), self.code.clone());
        Ok(Filter { ids, service, event, code, since })
    }
}

/// The dead letters that a command acts on.
#[derive(Debug, Args)]
struct Chosen {
    /// These, by id
    #[arg(value_name = "ID", conflicts_with_all = ["service", "event", "code", "since", "all"])]
    ids: Vec<u64>,
    #[command(flatten)]
    filters: Filters,
    /// All of them
    #[arg(long, conflicts_with_all = ["service", "event", "code", "since"])]
    all: bool,
    /// Show which they are, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// One of the dead letters that a command has acted on.
#[derive(Serialize)]
struct Done<'a> {
    id: u64,
    service: &'a str,
    event: &'a str,
    outcome: Option<Outcome>,
}

impl Chosen {
    /// Acts on each of them, and stops at the first that fails.
    async fn act(
        self,
        invocation: &Invocation,
        verb: &str,
        action: impl AsyncFn(&DeadLetters, &DeadLetter) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Report> {
        let filter = self.filters.filter(self.ids)?;
        if filter.is_empty() && !self.all {
            let hint = format!("`natsctl dlq {verb} ID…`, or `--service`, `--event`, `--code`, `--since`, or `--all`");
            return Err(Hinted::new(format!("it is not said which dead letters to {verb}"), hint).into());
        }
        let dead_letters = invocation.platform().await?.dead_letters().await?;
        let letters = dead_letters.list(&filter).await?;
        let (mut done, mut text) = (Vec::new(), String::new());
        for letter in &letters {
            let outcome = match self.dry_run {
                true => None,
                false => {
                    Some(action(&dead_letters, letter).await.map_err(|error| after(done.len(), letters.len(), error))?)
                }
            };
            let DeadLetter { id, service, event, .. } = letter;
            let said = outcome.map_or_else(|| format!("to {verb}"), |outcome| outcome.to_string());
            // Writing to a string does not fail.
            let _ = writeln!(text, "{id}  {service}  {event}  {said}");
            done.push(Done { id: *id, service, event, outcome });
        }
        let _ = match self.dry_run {
            true => write!(text, "{} to {verb}; nothing was changed", counted(letters.len(), "dead letter")),
            false => write!(text, "{}", counted(letters.len(), "dead letter")),
        };
        Ok(Report::new(&done, text))
    }
}

/// The error says how far it came.
fn after(done: usize, of: usize, error: anyhow::Error) -> anyhow::Error {
    match done {
        0 => error,
        _ => error.context(format!("{done} of {} are done", counted(of, "dead letter"))),
    }
}

/// One line for each, the newest last.
fn table(letters: &[DeadLetter]) -> String {
    let row = |letter: &DeadLetter| {
        let attempts = letter.attempts.map_or_else(|| "?".to_owned(), |attempts| attempts.to_string());
        let DeadLetter { id, at, service, event, code, reason, .. } = letter;
        vec![id.to_string(), format!("{at:.0}"), service.clone(), event.clone(), attempts, format!("{code}: {reason}")]
    };
    screen::table(&["id", "since", "service", "event", "attempts", "reason"], letters.iter().map(row))
}
