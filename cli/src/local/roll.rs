//! The NATS servers of this machine, as a roll needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::client::Client;
use super::cluster_files::{ADMIN, ClusterFiles, Endpoints, LAME_DUCK};
use super::environment::{CONNECT, Local};
use super::protocol::{Description, NodeSpec, NodeStatus};
use super::supervisor::LEAVE_TIMEOUT;
use crate::error::Hinted;
use crate::nats::connect::Access;
use crate::nats::identity::{META_STEP_DOWN, SYSTEM_USER};
use crate::nats::leadership;
use crate::nats::locate::{self, NatsServer, Version};
use crate::nats::roll::{
    Downgrade, Executor, Goal, NodeGoal, Observation, Patience, Roll, StopTiming, Survey, refuse_jump,
};
use crate::pipeline::lock::IfHeld;
use crate::pipeline::roll::{self, Options, Prepared, Preview, Request, Rolled};
use crate::pipeline::step_down::{self, Led, Moved, StepDown};

/// How long all servers may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Between two looks, of which one alone could be a moment.
const MOMENT: Duration = Duration::from_millis(500);

/// How long things take on one machine.
pub(crate) const PATIENCE: Patience =
    Patience { gate: Duration::from_secs(120), start: Duration::from_secs(15), steady: Duration::from_secs(1) };

impl Local {
    /// Rolls the servers; `version` is the one that is wanted.
    pub(crate) async fn roll(
        &self,
        request: &Request,
        version: Option<Version>,
        options: Options,
    ) -> anyhow::Result<Rolled> {
        let prepare =
            async |goal: Goal, resumed: Option<&Roll>| self.prepare(goal, version, resumed, Keys::Renewed).await;
        roll::run(self, request, options, prepare).await
    }

    /// What [`Local::roll`] would do.
    pub(crate) async fn preview_roll(&self, request: &Request, version: Option<Version>) -> anyhow::Result<Preview> {
        let prepare =
            async |goal: Goal, resumed: Option<&Roll>| self.prepare(goal, version, resumed, Keys::AsTheyAre).await;
        roll::preview(self, request, PATIENCE, prepare).await
    }

    /// What the servers say, and what they say a moment later.
    pub(crate) async fn survey_twice(&self) -> anyhow::Result<(Observation, Observation)> {
        let mut nodes = self.nodes(Change::AsIs).await?;
        let before = nodes.observe(None).await;
        sleep(MOMENT).await;
        Ok((before, nodes.observe(None).await))
    }

    /// Has these get other leaders.
    pub(crate) async fn step_down(
        &self,
        wanted: &BTreeSet<Led>,
        to: Option<&str>,
        if_held: IfHeld,
    ) -> anyhow::Result<Vec<Moved>> {
        let mut nodes = self.nodes(Change::AsIs).await?;
        step_down::run(self, &mut nodes, wanted, to, if_held).await
    }

    /// Who leads these now, in their order.
    ///
    /// # Errors
    /// One of them has no leader, or cannot have another one.
    pub(crate) async fn leaders(&self, wanted: &BTreeSet<Led>, to: Option<&str>) -> anyhow::Result<Vec<String>> {
        let observation = self.nodes(Change::AsIs).await?.observe(None).await;
        Ok(step_down::leaders(wanted, to, &observation)?)
    }

    async fn nodes(&self, change: Change) -> anyhow::Result<LocalNodes> {
        let description = self.describe().await?.ok_or_else(|| self.not_deployed())?;
        if description.nodes.is_empty() {
            return Err(self.not_deployed());
        }
        let supervisor = Client::connect(&self.dir).await?.ok_or_else(|| {
            Hinted::new(
                "the supervisor does not run, so no server does",
                "`natsctl deploy --all` starts everything again",
            )
        })?;
        let names = description.nodes.keys().cloned().collect();
        Ok(LocalNodes { supervisor, endpoints: self.endpoints()?, names, change, client: None })
    }

    async fn prepare(
        &self,
        goal: Goal,
        version: Option<Version>,
        resumed: Option<&Roll>,
        keys: Keys,
    ) -> anyhow::Result<Prepared<LocalNodes>> {
        let nodes = self.nodes(Change::AsIs).await?;
        let goals = |of: &dyn Fn(&str) -> NodeGoal| nodes.names.iter().map(|node| (node.clone(), of(node))).collect();
        let (change, goals): (Change, BTreeMap<String, NodeGoal>) = match goal {
            Goal::Restart => (Change::AsIs, goals(&|_| NodeGoal::default())),
            Goal::Version => {
                let rolled = || resumed?.nodes.values().find_map(|goal| goal.version);
                let wanted = version.or_else(rolled).ok_or_else(|| anyhow::anyhow!("no version is wanted"))?;
                let running = nodes.supervisor.describe().await?.nodes;
                refuse_way(&running, wanted)?;
                let server = locate::of_version(&self.workspace, wanted)?;
                running.values().try_for_each(|node| server.check(&node.spec.config_path))?;
                (Change::Version(server), goals(&|_| NodeGoal { version: Some(wanted), ..NodeGoal::default() }))
            }
            Goal::Config | Goal::Certificates => {
                let server = locate::locate(&self.workspace)?;
                // What is resumed has made them.
                if goal == Goal::Certificates && resumed.is_none() && keys == Keys::Renewed {
                    ClusterFiles::renew_certificates(&self.manifests, &self.dir)?;
                }
                let files = match keys {
                    Keys::Renewed => ClusterFiles::prepare(&self.manifests, &self.dir, &server)?,
                    Keys::AsTheyAre => ClusterFiles::preview(&self.manifests, &self.dir, &server)?,
                };
                refuse_other_nodes(&files, &nodes.names)?;
                if keys == Keys::Renewed {
                    nodes.names.iter().try_for_each(|node| files.check_config(node, &server))?;
                }
                let desired = files.desired();
                let is_known = goal == Goal::Config || keys == Keys::Renewed;
                let goals = goals(&|node| NodeGoal {
                    was: None,
                    version: Some(server.version),
                    // That of certificates that are not made yet is not known.
                    config: Some(if is_known { desired[node].config.clone() } else { String::new() }),
                });
                (Change::Files(Box::new(files), server), goals)
            }
        };
        Ok(Prepared { executor: LocalNodes { change, ..nodes }, goals })
    }
}

/// A way that no server may go is refused before anything is looked for. Whether a way back was asked for is seen later.
fn refuse_way(running: &BTreeMap<String, NodeStatus>, wanted: Version) -> Result<(), Hinted> {
    let versions = running.values().filter_map(|node| node.spec.node.version.parse().ok()).collect();
    refuse_jump(&versions, wanted, &[], Downgrade::Forced)
        .map_err(|obstacle| Hinted::new(obstacle.to_string(), obstacle.repair()))
}

/// A roll neither starts servers nor removes any.
fn refuse_other_nodes(files: &ClusterFiles, running: &BTreeSet<String>) -> anyhow::Result<()> {
    let wanted: BTreeSet<String> = files.nodes.keys().cloned().collect();
    if wanted == *running {
        return Ok(());
    }
    let message = format!("the environment's manifest asks for {} servers, and {} run", wanted.len(), running.len());
    Err(Hinted::new(message, "`natsctl deploy --all` starts those that are missing; then roll").into())
}

/// Whether certificates are made anew where that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    Renewed,
    AsTheyAre,
}

/// What servers become when they are restarted.
enum Change {
    /// What they are.
    AsIs,
    /// Of this configuration.
    Files(Box<ClusterFiles>, NatsServer),
    /// Of this version.
    Version(NatsServer),
}

/// The servers that the supervisor keeps.
pub(super) struct LocalNodes {
    supervisor: Client,
    endpoints: Endpoints,
    names: BTreeSet<String>,
    change: Change,
    /// Of the system account, with the name of the server that it is connected to.
    client: Option<(async_nats::Client, String)>,
}

impl Executor for LocalNodes {
    fn timing(&self) -> StopTiming {
        StopTiming { lame_duck: LAME_DUCK, stop: LEAVE_TIMEOUT, command: None }
    }

    fn nodes(&self) -> BTreeSet<String> {
        self.names.clone()
    }

    async fn observe(&mut self, away: Option<&str>) -> Observation {
        match self.observed(away).await {
            Ok(observation) => observation,
            Err(error) => {
                self.client = None;
                Observation::unknown(self.names.clone(), &format!("cannot be asked: {error:#}"))
            }
        }
    }

    /// Clients choose a server by themselves.
    async fn drain(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }

    async fn restart(&mut self, node: &str) -> anyhow::Result<()> {
        let spec = self.spec(node).await?;
        Ok(self.supervisor.roll_node(node, spec).await?)
    }

    async fn admit(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

impl StepDown for LocalNodes {
    async fn step_down(&mut self, what: &Led, to: Option<&str>) -> anyhow::Result<()> {
        let (user, subject) = match what {
            Led::Meta => (SYSTEM_USER, META_STEP_DOWN.to_owned()),
            Led::Stream(name) => (ADMIN, format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}")),
        };
        let client = self.endpoints.of(user)?.connect("natsctl", CONNECT).await?;
        leadership::step_down(&client, subject, to, ANSWER * 5).await.map_err(|error| {
            let message = format!("failed to have {} step down: {error:#}", what.name());
            let hint = "if another natsctl has deployed it, `natsctl deploy --all` first gives this one the right to ask for it";
            Hinted::new(message, hint).into()
        })
    }
}

impl LocalNodes {
    async fn observed(&mut self, away: Option<&str>) -> anyhow::Result<Observation> {
        let description = self.supervisor.describe().await?;
        self.client.take_if(|(_, server)| Some(server.as_str()) == away);
        let client = match &self.client {
            Some((client, _)) => client.clone(),
            None => self.connect(away).await?,
        };
        let survey = Survey::ask(&client, &self.names, ANSWER).await?;
        if survey.answers.is_empty() {
            // The connection may be to one that hangs.
            self.client = None;
        }
        let mut observation = survey.observation(&self.names);
        observation.add_configs(|node| config(&description, node));
        Ok(observation)
    }

    async fn connect(&mut self, away: Option<&str>) -> anyhow::Result<async_nats::Client> {
        let access = self.endpoints.of(SYSTEM_USER)?;
        let others = self.endpoints.nodes.iter().filter(|(node, _)| Some(node.as_str()) != away);
        let urls = others.map(|(_, url)| url.clone()).collect();
        let client = Access { urls, ..access.clone() }.connect("natsctl", CONNECT).await?;
        let server = client.server_info().server_name;
        self.client = Some((client.clone(), server));
        Ok(client)
    }

    /// What a server becomes.
    async fn spec(&self, node: &str) -> anyhow::Result<NodeSpec> {
        let running = async || {
            let mut nodes = self.supervisor.describe().await?.nodes;
            let status = nodes.remove(node).ok_or_else(|| anyhow::anyhow!("the supervisor has no server `{node}`"))?;
            anyhow::Ok(status.spec)
        };
        match &self.change {
            Change::AsIs => running().await,
            Change::Files(files, server) => Ok(files.write_config(node, server)?.clone()),
            Change::Version(server) => {
                let mut spec = running().await?;
                spec.node.version = server.version.to_string();
                spec.program = PathBuf::from(&server.path);
                Ok(spec)
            }
        }
    }
}

/// Digest of the configuration that a server runs with or, where it does not run, starts with.
fn config(description: &Description, node: &str) -> Option<String> {
    description.nodes.get(node).map(|status| status.spec.node.config.clone())
}
