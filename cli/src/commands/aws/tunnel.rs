//! `natsctl tunnel`

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::aws::Aws;
use crate::aws::exec::{session_target, session_task};
use crate::aws::session::{self, Destination, Plugin, SessionManager};
use crate::commands::invocation::Invocation;
use crate::model::task::HEALTH_PORT;
use crate::screen::{self, Report};

/// Forward a local port to NATS or to a task, until Ctrl-C
#[derive(Debug, Args)]
pub(crate) struct Tunnel {
    /// `nats`, a task, or a service: its newest task
    #[arg(value_name = "nats|SERVICE|TASK")]
    target: String,
    /// Local port; by default a free one
    local_port: Option<u16>,
    /// Port of the task
    #[arg(long, default_value_t = HEALTH_PORT)]
    port: u16,
}

impl Tunnel {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let plugin = Plugin::find().await?;
        let aws = invocation.aws().await?;
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let asked_to_stop =
            futures::future::select_all(signals.iter_mut().flatten().map(|signal| Box::pin(signal.recv())));
        let to = self.destination(&aws).await?;
        let mut tunnel = session::Tunnel::open(&SessionManager::new(&aws, &plugin), &to, self.local_port).await?;
        let (port, target, through) = (tunnel.local_port, &self.target, &tunnel.through);
        let data = json!({ "address": format!("127.0.0.1:{port}"), "through": through });
        let text = format!("127.0.0.1:{port} is forwarded to {target} through {through}; Ctrl-C closes it");
        screen::item(&data, &text, invocation.global.output)?;
        let ended = tokio::select! {
            ended = tunnel.closed() => ended,
            _ = asked_to_stop => Ok(()),
        };
        tunnel.close().await;
        ended.map(|()| Report::silent())
    }

    async fn destination(&self, aws: &Aws) -> anyhow::Result<Destination> {
        if self.target == "nats" {
            return Ok(Destination::nats(&aws.handover));
        }
        let task = session_task(aws, &self.target).await?;
        Ok(Destination::Task { target: session_target(aws.cluster(), &task), port: self.port })
    }
}
