//! `natsctl nats roll`

use clap::Args;

use crate::commands::change::LockOptions;
use crate::commands::confirmation::Confirmation;
use crate::commands::invocation::Invocation;
use crate::commands::platform::Platform;
use crate::model::units::Span;
use crate::nats::locate::Version;
use crate::nats::roll::{Accepted, Goal, Patience};
use crate::pipeline::roll::{Options, Preview, Request};
use crate::screen::{CHANGES, Report};

/// Restart the NATS servers one by one, without losing a message or a request
///
/// Each server leaves by lame duck: its clients and leaders move to others first. The next one follows when it is back, every stream
/// and consumer is complete again, and the cluster agrees; the meta leader comes last. It stops and says why when that does not happen.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(crate) struct NatsRoll {
    #[command(flatten)]
    goal: Goals,
    /// Show the order and what is known of each server, and change nothing; exits with 2 if there is something to do
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Accept that streams and consumers with one or two replicas are away while their server is
    #[arg(long)]
    accept_r1: bool,
    /// Accept an older version, for this reason, which the history shows
    #[arg(long, value_name = "REASON")]
    force: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    waiting: Waiting,
}

/// How long is waited, and for what.
#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// How long one server may take until it is back and everything is complete, for example `5 min`; 2 min if absent, on AWS 10 min
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
    #[command(flatten)]
    lock: LockOptions,
}

impl Waiting {
    pub(super) fn options(&self, platform: &Platform) -> Options {
        let usual = platform.patience();
        let gate = self.timeout.map_or(usual.gate, Span::duration);
        let patience = Patience { gate, start: usual.start.min(gate), ..usual };
        Options { if_held: self.lock.if_held(), patience }
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Goals {
    /// Restart every server as it is
    #[arg(long)]
    restart: bool,
    /// Restart the servers whose configuration or version differs from what the manifests and this machine say
    #[arg(long)]
    config: bool,
    /// Make new certificates for all servers, and have them use these
    #[arg(long)]
    certificates: bool,
    /// Bring the servers to this version of nats-server
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<Version>,
    /// Go on with the roll that was interrupted
    #[arg(long)]
    resume: bool,
}

fn version(typed: &str) -> Result<Version, String> {
    Version::try_from(typed.strip_prefix('v').unwrap_or(typed).to_owned())
}

impl Goals {
    /// `None`: that of the roll which was interrupted.
    fn goal(&self) -> Option<Goal> {
        let goals = [
            (self.restart, Goal::Restart),
            (self.config, Goal::Config),
            (self.certificates, Goal::Certificates),
            (self.version.is_some(), Goal::Version),
        ];
        goals.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, goal)| goal)
    }
}

impl NatsRoll {
    pub(crate) async fn run(self, invocation: &Invocation) -> anyhow::Result<Report> {
        let platform = invocation.platform().await?;
        let accepted = Accepted { fragile: self.accept_r1, downgrade: self.force };
        let request = Request { goal: self.goal.goal(), only: None, accepted };
        if self.dry_run {
            return Ok(previewed(&platform.preview_roll(&request, self.goal.version).await?));
        }
        let options = self.waiting.options(&platform);
        self.confirmation.roll(&platform, "restart the NATS servers one by one").await?;
        let rolled = platform.roll(&request, self.goal.version, options).await?;
        Ok(Report::new(&rolled, rolled.to_string()))
    }
}

/// What a roll would do.
pub(super) fn previewed(preview: &Preview) -> Report {
    let code = if preview.nodes.is_empty() { 0 } else { CHANGES };
    Report::new(preview, preview.to_string()).diff().code(code)
}
