//! `natsctl nats step-down`

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use crate::commands::change::LockOptions;
use crate::commands::invocation::Invocation;
use crate::pipeline::step_down::{Led, Moved};
use crate::screen::Report;

/// Have streams, or the cluster, get another leader, and show that they did
#[derive(Debug, Args)]
pub(crate) struct NatsStepDown {
    /// Streams; that of a bucket begins with `KV_`
    #[arg(value_name = "STREAM", required_unless_present = "meta")]
    streams: Vec<String>,
    /// The meta leader, which makes and changes streams
    #[arg(long)]
    meta: bool,
    /// The server that should lead then
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Show who leads, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    lock: LockOptions,
}

impl NatsStepDown {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let streams = self.streams.into_iter().map(Led::Stream);
        let wanted: BTreeSet<Led> = streams.chain(self.meta.then_some(Led::Meta)).collect();
        let (local, to) = (invocation.local()?, self.to.as_deref());
        if self.dry_run {
            let leaders = local.leaders(&wanted, to).await?;
            let line =
                |(what, leader): (&Led, &String)| format!("{}: {leader} -> {}", what.name(), to.unwrap_or("another"));
            let text = wanted.iter().zip(&leaders).map(line).collect::<Vec<_>>().join("\n");
            let moves = wanted.iter().zip(&leaders).map(|(what, from)| json!({ "what": what, "from": from, "to": to }));
            return Ok(Report::new(
                &json!({ "moves": moves.collect::<Vec<_>>() }),
                format!("{text}\nnothing was changed"),
            ));
        }
        let moved = local.step_down(&wanted, to, self.lock.if_held()).await?;
        let line = |Moved { what, from, to }: &Moved| format!("{}: {from} -> {to}", what.name());
        let text = moved.iter().map(line).collect::<Vec<_>>().join("\n");
        Ok(Report::new(&json!({ "moved": moved }), text))
    }
}
