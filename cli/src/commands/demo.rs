//! `natsctl demo`

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use super::smoke::{Ending, Session};
use super::trace::collect;
use crate::commands::invocation::Invocation;
use crate::error::{Code, Hinted};
use crate::problem::counted;
use crate::screen::{self, Report};

/// Play a session of the game, and show what each service does
///
/// A player logs in, gets a quest, walks, sees the weather turn, and is given money back. Each line is a call: a method, what it took, and
/// what happened. All calls are one trace, which `natsctl trace` shows in full. Game time goes on by some hours.
#[derive(Debug, Args)]
pub(crate) struct Demo {}

impl Demo {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        if !platform.is_local() {
            let message = format!("environment `{}` is not on this machine", platform.manifests().name);
            let hint = "`natsctl smoke` plays there what changes nothing for players";
            return Err(Hinted::new(message, hint).code(Code::WrongPlatform).into());
        }
        let url = super::smoke::gateway(&platform, None).await?;
        let ending = Session { platform: &platform, url, format: invocation.global.output }.play().await?;
        let found = collect(&invocation.local()?, &ending.trace_id.parse().map_err(anyhow::Error::msg)?).await?;
        let services: BTreeSet<&str> = found.spans.iter().map(|span| span.service.as_str()).collect();
        let trace = format!(
            "\n{} by {}: natsctl trace {}",
            counted(found.spans.len(), "span"),
            counted(services.len(), "service"),
            ending.trace_id
        );
        if invocation.global.output == screen::Format::Table {
            // A closed pipe is no reason to fail.
            let _ = screen::line(&trace);
        }
        let more = json!({ "spans": found.spans.len(), "services": services });
        Ending::report(ending, Some(&more))
    }
}
