//! `natsctl dlq show`

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use crate::commands::invocation::Invocation;
use crate::nats::dead_letters::DeadLetter;
use crate::screen::Report;

/// Show one dead letter: the event, its headers and why it could not be handled
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which, as `natsctl dlq list` shows it
    id: u64,
}

impl Show {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let letter = invocation.platform().await?.dead_letters().await?.get(self.id).await?;
        let mut data = serde_json::to_value(&letter)?;
        data["payload"] = json!(letter.decoded());
        Ok(Report::new(&data, text(&letter)))
    }
}

fn text(letter: &DeadLetter) -> String {
    let DeadLetter { id, service, event, code, reason, at, stream, .. } = letter;
    let attempts = letter.attempts.map_or_else(|| "an unknown number of".to_owned(), |attempts| attempts.to_string());
    let unknown = || "unknown".to_owned();
    let mut out = format!(
        "dead letter {id} of {service}\nevent     {event}\nreason    {reason} ({code}), after {attempts} attempts\nsince     {at:.0}\n"
    );
    let more = [
        ("event id", letter.event_id.clone().unwrap_or_else(unknown)),
        ("stored", letter.event_at.clone().unwrap_or_else(unknown)),
        ("stream", stream.clone()),
        ("trace", letter.trace_id.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    for (name, value) in more {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {value}");
    }
    let _ = match letter.decoded() {
        Some(event) => write!(out, "{event:#}"),
        None => write!(out, "{} bytes, which cannot be decoded: see `--output json`", letter.payload.len()),
    };
    out
}
