//! `natsctl trace`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::commands::invocation::Invocation;
use crate::error::Hinted;
use crate::local::environment::Local;
use crate::local::protocol::FoundTraces;
use crate::manifest::Environment;
use crate::model::trace::{LINK_PLACEHOLDER, Span, TracePrefix};
use crate::problem::{counted, listed};
use crate::screen::{self, Report};

/// How long spans that are on their way are waited for: tasks send them a second after their end at the latest.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Show what happened because of one request, in all services
///
/// The id is in the log lines of a request (`trace_id`) and, if the trace is recorded, in the header `traceresponse` of
/// the gateway's response. Locally the latest spans are kept; elsewhere, the link of the environment's manifest is shown.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The trace's id, its first digits, or a `traceparent`
    #[arg(value_name = "ID")]
    id: TracePrefix,
}

impl Trace {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let manifests = invocation.load()?;
        let environment = &manifests.name;
        if let Some(link) = manifests.environment.traces().and_then(|traces| traces.link.as_deref()) {
            let id = self.id.whole().ok_or_else(|| {
                let message = format!("`{}` is only the beginning of an id", self.id);
                Hinted::new(message, "a link needs all of its 32 digits")
            })?;
            let link = link.replace(LINK_PLACEHOLDER, id);
            return Ok(Report::new(&json!({ "trace_id": id, "link": link }), link.clone()));
        }
        if !matches!(manifests.environment, Environment::Local(_)) {
            let message = format!("environment `{environment}` does not say where its traces are");
            let file = invocation.manifests_dir()?.join(format!("environments/{environment}.yaml"));
            let hint =
                format!("write `traces: {{ link: \"https://…/{LINK_PLACEHOLDER}\" }}` into `{}`", file.display());
            return Err(Hinted::new(message, hint).into());
        }
        let found = collect(&invocation.local()?, &self.id).await?;
        match found.ids.as_slice() {
            [id] => {
                let text = screen::trace::trace(id, &found.spans, screen::width());
                Ok(Report::new(&json!({ "trace_id": id, "spans": found.spans }), text))
            }
            [] => Err(self.unknown(&found).into()),
            _ => Err(self.ambiguous(&found).into()),
        }
    }

    fn unknown(&self, found: &FoundTraces) -> Hinted {
        let message = match self.id.whole() {
            Some(id) => format!("no span of trace `{id}` is stored"),
            None => format!("no stored trace begins with `{}`", self.id),
        };
        let stored = match found.since_ns.and_then(|since| jiff::Timestamp::from_nanosecond(since.into()).ok()) {
            Some(since) => format!("{} since {since:.0} are stored", counted(found.stored, "span")),
            None => "no spans are stored: either no request was traced, or the tasks export elsewhere".to_owned(),
        };
        let hint =
            format!("{stored}; those of a supervisor that has ended are gone, and not every request may be sampled");
        Hinted::new(message, hint)
    }

    fn ambiguous(&self, found: &FoundTraces) -> Hinted {
        let message = format!("{} begin with `{}`", counted(found.matching, "trace"), self.id);
        let more = if found.matching > found.ids.len() { ", and more" } else { "" };
        Hinted::new(message, format!("they are {}{more}", listed(found.ids.iter().map(String::as_str))))
    }
}

/// The traces whose ids begin with `id`, once no span of them is on its way any more.
pub(super) async fn collect(local: &Local, id: &TracePrefix) -> anyhow::Result<FoundTraces> {
    let deadline = Instant::now() + ON_ITS_WAY;
    loop {
        let found = local.find_traces(id).await?;
        let is_over = match found.ids.as_slice() {
            [_] => is_complete(&found.spans),
            [] => false,
            _ => true,
        };
        if is_over || Instant::now() >= deadline {
            return Ok(found);
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Whether no span of the trace can still be on its way: it is over for so long, or all parents are there.
fn is_complete(spans: &[Span]) -> bool {
    let ended_ns = spans.iter().map(|span| i128::from(span.start_ns) + i128::from(span.duration_ns)).max();
    let is_over = ended_ns.is_some_and(|ended| {
        let now = jiff::Timestamp::now().as_nanosecond();
        now - ended > ON_ITS_WAY.as_nanos().try_into().unwrap_or(i128::MAX)
    });
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    is_over || spans.iter().filter_map(|span| span.parent_id.as_deref()).all(|parent| ids.contains(parent))
}
