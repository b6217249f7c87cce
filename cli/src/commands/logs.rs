//! `natsctl logs`

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;

use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::model::log::{Filter, Level, Moment};
use crate::pipeline::logs::Query;
use crate::screen::logs::{Style, line};
use crate::screen::{Format, Report};

/// Lines that are shown without `--lines` and `--since`.
const LINES: usize = 100;

/// Show the logs of services, also of tasks that have stopped
///
/// Each line has its time (UTC), level, service and task, then what it says, and its fields at the end. Lines of several services are in the
/// order of their times.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Show new lines as they are written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest lines; 100 by default, with `--since` all
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "N")]
    lines: Option<usize>,
    /// Only lines that are not older than this: `10m` ago, at `17:00` or `2026-11-30T17:00:10Z`
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only lines that are not newer than this
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Moment>,
    /// Only lines of this level and above: `trace`, `debug`, `info`, `warn` or `error`; lines that say no level are shown too
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only lines of tasks that run no more
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Show each line as the service wrote it, and nothing else
    #[arg(long)]
    raw: bool,
    /// Which services (locally also NATS servers), or which of their tasks by the beginning of its id; by default all
    #[arg(value_name = "SERVICE[/TASK]")]
    services: Vec<String>,
}

impl Logs {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let style = self.style(invocation.global.output);
        let platform = invocation.platform().await?;
        let query = Query { filter: self.filter(&platform).await?, lines: self.lines(), follow: self.follow };
        platform.show_logs(&self.names(), query, |found| line(found, style)).await?;
        Ok(Report::silent())
    }

    fn style(&self, format: Format) -> Style {
        match format {
            Format::Table if self.raw => Style::Raw,
            Format::Table => Style::Formatted,
            Format::Json | Format::Prometheus => Style::Json,
        }
    }

    /// The services, each once.
    fn names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.services.iter().map(|typed| service_and_task(typed).0).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    async fn filter(&self, platform: &Platform) -> anyhow::Result<Filter> {
        let now = Timestamp::now();
        let tasks = self.services.iter().map(|typed| service_and_task(typed));
        let whole: BTreeSet<&str> = tasks.clone().filter(|(_, task)| task.is_none()).map(|(name, _)| name).collect();
        let tasks = tasks.filter(|(name, _)| !whole.contains(name));
        Ok(Filter {
            since: self.since.map(|moment| moment.at(now)),
            until: self.until.map(|moment| moment.at(now)),
            grep: self.grep.clone(),
            level: self.level,
            tasks: tasks.filter_map(|(name, task)| Some((name.to_owned(), task?.to_owned()))).collect(),
            except: if self.previous { platform.running_tasks().await? } else { BTreeSet::new() },
        })
    }

    fn lines(&self) -> usize {
        self.lines.unwrap_or(if self.since.is_some() { usize::MAX } else { LINES })
    }
}

/// `quest-system` or `quest-system/734c`.
fn service_and_task(typed: &str) -> (&str, Option<&str>) {
    match typed.split_once('/') {
        Some((service, task)) => (service, Some(task).filter(|task| !task.is_empty())),
        None => (typed, None),
    }
}
