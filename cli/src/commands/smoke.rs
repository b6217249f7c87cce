//! `natsctl smoke`

use std::time::Instant;

use clap::Args;
use proto::rpc::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::platform::Platform;
use crate::commands::invocation::Invocation;
use crate::demo::{Caller, Gateway, Interruption, SCENES, Stage, Step};
use crate::error::Hinted;
use crate::problem::counted;
use crate::screen::{self, Format, Report};

/// Test a deployment: play a session of the game through the gateway
///
/// It calls what a player calls, as a player of its own whose records stay. What needs an operator is done where operators reach NATS, on
/// this machine, and is named as skipped elsewhere. Exit code 1 if anything fails that should not.
#[derive(Debug, Args)]
pub(crate) struct Smoke {
    /// Where the gateway is, if not where the environment says
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Smoke {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let url = gateway(&platform, self.url).await?;
        Session { platform: &platform, url, format: invocation.global.output }.play().await?.report(None)
    }
}

/// Where the gateway is.
///
/// # Errors
/// The environment has none.
pub(super) async fn gateway(platform: &Platform, typed: Option<String>) -> anyhow::Result<String> {
    let url = match typed {
        Some(url) => Some(url),
        None => platform.gateway_url().await?,
    };
    url.ok_or_else(|| {
        let message = format!("environment `{}` has no gateway that runs", platform.manifests().name);
        Hinted::new(message, "deploy it with `natsctl deploy gateway`, or name another one with `--url`").into()
    })
}

/// A session that is to be played.
pub(super) struct Session<'a> {
    pub(super) platform: &'a Platform,
    pub(super) url: String,
    pub(super) format: Format,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Ending {
    pub(super) trace_id: String,
    gateway: String,
    player: String,
    took_ms: u64,
    steps: Vec<Step>,
    /// Scenes that were not played to their end, and why.
    skipped: Vec<SkippedScene>,
    /// Titles of the scenes that failed.
    failed: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct SkippedScene {
    title: &'static str,
    reason: String,
}

impl Session<'_> {
    /// Plays all scenes, and prints each call as soon as it is done.
    pub(super) async fn play(self) -> anyhow::Result<Ending> {
        let manifests = self.platform.manifests();
        let service_of = |method: &Method| {
            let serving = manifests.services.values().find(|service| service.serves.contains(method.package));
            serving.map(|service| service.name.to_string())
        };
        let say = |line: &str| {
            if self.format == Format::Table {
                // A closed pipe is no reason to stop.
                let _ = screen::line(line);
            }
        };
        let watch = |step: &Step| say(&row(step));
        let gateway = Gateway::new(&self.url)?;
        let operator = self.platform.operator().await?;
        let mut stage = Stage::new(gateway, operator, &service_of, &watch);
        let (mut skipped, mut failed) = (Vec::new(), Vec::new());
        let started = Instant::now();
        for scene in SCENES {
            say(&format!("{}{}", if stage.steps.is_empty() { "" } else { "\n" }, scene.title));
            match (scene.play)(&mut stage).await {
                Ok(()) => {}
                Err(Interruption::Failed) => failed.push(scene.title),
                Err(Interruption::Skipped(reason)) => {
                    say(&format!("  skipped: {reason}"));
                    skipped.push(SkippedScene { title: scene.title, reason });
                }
            }
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let trace_id = stage.trace_id().to_owned();
        let Stage { player, steps, .. } = stage;
        Ok(Ending { trace_id, gateway: self.url, player, took_ms, steps, skipped, failed })
    }
}

impl Ending {
    /// The verdict; `more` is added for programs.
    pub(super) fn report(self, more: Option<&Value>) -> anyhow::Result<Report> {
        let passed = self.steps.iter().filter(|step| step.passed).count();
        let mut text = format!("\n{} passed in {} ms", counted(passed, "call"), self.took_ms);
        if !self.skipped.is_empty() {
            text.push_str(&format!(", {} skipped", counted(self.skipped.len(), "scene")));
        }
        let code = if self.failed.is_empty() { 0 } else { screen::FAILED };
        if !self.failed.is_empty() {
            let step = self.steps.iter().find(|step| !step.passed);
            let what = step.map_or_else(String::new, |step| format!(": {} {}", step.method, step.message));
            text.push_str(&format!(
                ", {} failed{what}\nhint: `natsctl trace {}` shows the calls, `natsctl logs {}` what the service says",
                counted(self.failed.len(), "scene"),
                self.trace_id,
                step.and_then(|step| step.service.as_deref()).unwrap_or("gateway"),
            ));
        }
        let mut data = json!(self);
        if let (Some(data), Some(more)) = (data.as_object_mut(), more.and_then(Value::as_object)) {
            data.extend(more.clone());
        }
        Ok(Report::new(&data, text).code(code))
    }
}

/// A call on a line of its own. What happened comes last, because it may be long.
fn row(step: &Step) -> String {
    let service = step.service.as_deref().unwrap_or("unknown");
    let method = step.method.rsplit_once('/').map_or(step.method, |(_, name)| name);
    let message = if step.passed { step.message.clone() } else { format!("FAILED: {}", step.message) };
    let operator = if step.caller == Caller::Operator { " (operator)" } else { "" };
    format!("  {service:<23} {method:<14} {:>5} ms  {message}{operator}", step.took_ms)
}
