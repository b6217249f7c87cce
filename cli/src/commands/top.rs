//! `natsctl top`

use clap::Args;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::watch::{EVERY, Watched, watch};
use crate::commands::invocation::Invocation;
use crate::local::environment::Local;
use crate::model::top::{Sample, Top as Load};
use crate::screen::status::Space;
use crate::screen::{self, Format, Report};

/// Show requests, errors, latencies and memory of services, live
///
/// Each row is what a service did in the last two seconds, by the metrics of its tasks: requests and errors per second (those of callers,
/// too), the percentiles 50 and 99 of how long they took, memory, and requests that are being handled. Percentiles are estimates from
/// histograms.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one table after two seconds; the default without a terminal and with `--output json`
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Refresh every two seconds, until Ctrl-C; the default at a terminal
    #[arg(short, long)]
    watch: bool,
    /// Only these services; by default all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Top {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let environment = &invocation.global.env;
        let elsewhere = format!(
            "`natsctl tunnel SERVICE --env {environment}` forwards a port to `/metrics` of a task, and CloudWatch has a dashboard of the \
             services"
        );
        let mut meter = Meter::start(invocation.local_or(&elsewhere)?, self.services).await?;
        let format = invocation.global.output;
        let is_live = self.watch || !self.once && format == Format::Table && screen::width().is_some();
        if !is_live {
            let load = meter.measure_interval().await?;
            let space = screen::width().map_or(Space::Unlimited, Space::Columns);
            return Ok(Report::new(&load, screen::top::top(&load, space)));
        }
        // At a terminal there is something to see at once.
        let first = match format {
            Format::Table => Load::new(environment, None, &meter.last),
            Format::Json | Format::Prometheus => meter.measure_interval().await?,
        };
        watch(environment, format, EVERY, first, async || meter.measure().await).await
    }
}

impl Watched for Load {
    fn text(&self, _: Timestamp, space: Space) -> String {
        screen::top::top(self, space)
    }
}

/// Measures what the services do from one time to the next.
struct Meter {
    local: Local,
    services: Vec<String>,
    origin: Instant,
    last: Sample,
}

impl Meter {
    async fn start(local: Local, services: Vec<String>) -> anyhow::Result<Self> {
        let origin = Instant::now();
        let last = local.sample(&services, origin).await?;
        Ok(Self { local, services, origin, last })
    }

    /// Since it was measured last.
    async fn measure(&mut self) -> anyhow::Result<Load> {
        let now = self.local.sample(&self.services, self.origin).await?;
        let load = Load::new(&self.local.manifests.name, Some(&self.last), &now);
        self.last = now;
        Ok(load)
    }

    async fn measure_interval(&mut self) -> anyhow::Result<Load> {
        sleep(EVERY).await;
        self.measure().await
    }
}
