//! `natsctl logs`

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use crate::invocation::Invocation;
use crate::local::logs::{self, Follower, Line};
use crate::nats::Advised;
use crate::options::Format;
use crate::report::{self, Report};

/// Show what a service logs.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on as more is written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    lines: usize,
    /// Which service, or which NATS node
    service: String,
}

impl Logs {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let local = invocation.local()?;
        let description = local.describe().await?.ok_or_else(|| local.not_deployed())?;
        let known: BTreeSet<&String> = description.services.keys().chain(description.nodes.keys()).collect();
        if !known.contains(&self.service) {
            let names: Vec<&str> = known.into_iter().map(String::as_str).collect();
            return Err(Advised::new(
                format!("nothing called `{}` is deployed", self.service),
                format!("there are: {}", names.join(", ")),
            )
            .into());
        }
        let format = invocation.global.output;
        if self.follow {
            let mut follower = Follower::new(local.dir(), &self.service, self.lines)?;
            loop {
                report::line(&written(&follower.next().await?, format))?;
            }
        }
        for line in logs::tail(local.dir(), &self.service, self.lines)? {
            report::line(&written(&line, format))?;
        }
        Ok(Report::silent())
    }
}

fn written(line: &Line, format: Format) -> String {
    match format {
        Format::Table => format!("{}  {}", line.task, line.text),
        Format::Json => json!({ "task": line.task, "line": line.text }).to_string(),
    }
}
