//! `natsctl status`

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::error;
use crate::model::status;
use crate::screen::status::{Space, environment, unknown};
use crate::screen::watch::Canvas;
use crate::screen::{self, Format, Report, UNHEALTHY};

/// How often `--watch` asks a local environment.
const EVERY: Duration = Duration::from_secs(2);
/// How often it asks AWS, which limits the rate of calls.
const EVERY_ON_AWS: Duration = Duration::from_secs(5);

/// Show the status of the environment: what is wrong, its services, NATS, the gateway
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Refresh every two seconds (on AWS five), until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Only these services; by default all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

impl Status {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        if self.watch {
            return self.watch(&platform, invocation.global.output).await;
        }
        let status = platform.status(&self.services).await?;
        let space = screen::width().map_or(Space::Unlimited, Space::Columns);
        let text = environment(&status, Timestamp::now(), space);
        Ok(Report::new(&status, text).code(if status.healthy { 0 } else { UNHEALTHY }))
    }

    /// Has no end but Ctrl-C, and what is wrong from the start: a name that no service has.
    async fn watch(&self, platform: &Platform, format: Format) -> anyhow::Result<Report> {
        let mut seen = Seen { environment: platform.manifests().name.clone(), last: None, error: None };
        seen.is_now(Ok(platform.status(&self.services).await?));
        let mut resized = signal(SignalKind::window_change())?;
        let mut canvas = Canvas::new();
        loop {
            match format {
                Format::Table => draw_until(&mut canvas, &seen, every(platform), &mut resized).await?,
                Format::Json | Format::Prometheus => {
                    screen::line(&seen.json()?)?;
                    tokio::time::sleep(every(platform)).await;
                }
            }
            seen.is_now(platform.status(&self.services).await);
        }
    }
}

fn every(platform: &Platform) -> Duration {
    if platform.is_local() { EVERY } else { EVERY_ON_AWS }
}

/// Draws, for so long, and again whenever the window has another size.
async fn draw_until(canvas: &mut Canvas, seen: &Seen, pause: Duration, resized: &mut Signal) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + pause;
    loop {
        canvas.draw(&seen.text(canvas.size().map_or(Space::Unlimited, Space::Window)))?;
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(()),
            _ = resized.recv() => {}
        }
    }
}

/// What is known of an environment that is watched.
struct Seen {
    environment: String,
    /// How it was when it was last asked successfully, and when.
    last: Option<(status::Status, Timestamp)>,
    /// Why it is not known now.
    error: Option<anyhow::Error>,
}

impl Seen {
    fn is_now(&mut self, asked: anyhow::Result<status::Status>) {
        match asked {
            Ok(status) => (self.last, self.error) = (Some((status, Timestamp::now())), None),
            Err(error) => self.error = Some(error),
        }
    }

    fn text(&self, space: Space) -> String {
        let last = self.last.as_ref().map(|(status, at)| (status, *at));
        match (&self.error, last) {
            (Some(error), last) => unknown(&self.environment, &format!("{error:#}"), last, space),
            (None, Some((status, at))) => environment(status, at, space),
            (None, None) => String::new(),
        }
    }

    /// On one line, with the time.
    fn json(&self) -> anyhow::Result<String> {
        let mut document = match (&self.error, &self.last) {
            (Some(error), _) => json!({ "error": { "message": format!("{error:#}"), "hint": error::hint(error) } }),
            (None, Some((status, _))) => serde_json::to_value(status)?,
            (None, None) => json!({}),
        };
        document["time"] = json!(Timestamp::now().to_string());
        Ok(serde_json::to_string(&document)?)
    }
}
