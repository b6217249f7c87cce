//! The NATS nodes on EC2, as a roll needs them: looked at and restarted by scripts that Systems Manager runs on them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::command::{self, Script};
use super::survey::NodeSurvey;
use super::{OBSERVING, all, balancer, instances, prepare};
use crate::aws::Aws;
use crate::error::Hinted;
use crate::model::observed::Seen;
use crate::nats::locate::Version;
use crate::nats::node::state::NodeState;
use crate::nats::node::unit::AFTER_LAME_DUCK;
use crate::nats::node::{LAME_DUCK, NodeSpec, RESTART_SCRIPT, Reload, survey_script};
use crate::nats::roll::{
    Downgrade, Executor, Goal, NodeGoal, Observation, Patience, Roll, StopTiming, Survey, Traffic, refuse_jump,
};
use crate::pipeline::roll::{self, Options, Prepared, Preview, Request, Rolled};

/// How long things take on AWS: clients have two minutes to leave, and each look is a command of Systems Manager.
pub(crate) const PATIENCE: Patience =
    Patience { gate: Duration::from_secs(600), start: Duration::from_secs(60), steady: Duration::from_secs(5) };

/// Between two looks, of which one alone could be a moment.
const MOMENT: Duration = Duration::from_secs(1);

/// Rolls the servers; `version` is the one that is wanted.
///
/// # Errors
/// See [`roll::run`].
pub(crate) async fn roll(
    aws: &Aws,
    request: &Request,
    version: Option<Version>,
    options: Options,
) -> anyhow::Result<Rolled> {
    let prepare = async |goal: Goal, resumed: Option<&Roll>| prepared(aws, goal, version, resumed).await;
    roll::run(aws, request, options, prepare).await
}

/// What [`roll`] would do.
///
/// # Errors
/// See [`roll::preview`].
pub(crate) async fn preview(aws: &Aws, request: &Request, version: Option<Version>) -> anyhow::Result<Preview> {
    let prepare = async |goal: Goal, resumed: Option<&Roll>| prepared(aws, goal, version, resumed).await;
    roll::preview(aws, request, PATIENCE, prepare).await
}

/// What the servers say, and what they say a moment later.
///
/// # Errors
/// None: what cannot be read is unknown in the answers.
pub(crate) async fn survey_twice(aws: &Aws) -> anyhow::Result<(Observation, Observation)> {
    let mut nodes = Nodes { aws, specs: None };
    let before = nodes.observe(None).await;
    sleep(MOMENT).await;
    Ok((before, nodes.observe(None).await))
}

async fn prepared<'a>(
    aws: &'a Aws,
    goal: Goal,
    version: Option<Version>,
    resumed: Option<&Roll>,
) -> anyhow::Result<Prepared<Nodes<'a>>> {
    let names = || aws.handover.nats.nodes.keys().cloned();
    if goal == Goal::Restart {
        let goals = names().map(|node| (node, NodeGoal::default())).collect();
        return Ok(Prepared { executor: Nodes { aws, specs: None }, goals });
    }
    if goal == Goal::Certificates && resumed.is_none() {
        let hint =
            "`natsctl nats apply` renews them in time; `natsctl nats roll --config` has the servers use the new ones";
        return Err(Hinted::new("on AWS a roll makes no certificates", hint).into());
    }
    let planned = prepare(aws).await?;
    let release = &planned_release(aws);
    if let Some(wanted) = version.filter(|wanted| wanted.to_string() != *release) {
        let message = format!("the environment's manifest asks for nats-server {release}, not {wanted}");
        let hint = "set `nats.version` there, and its digests if natsctl does not know them; then `natsctl nats apply`";
        return Err(Hinted::new(message, hint).into());
    }
    let unready: Vec<&str> =
        planned.plan.nodes.iter().filter(|node| node.applies()).map(|node| node.node.as_str()).collect();
    if !unready.is_empty() {
        let message = format!("`{}` lack what takes no restart", unready.join("`, `"));
        let hint = "`natsctl nats apply` installs it; then roll";
        return Err(Hinted::new(message, hint).into());
    }
    let wanted: Version = release.parse().map_err(|()| anyhow::anyhow!("`{release}` is no version"))?;
    let running = planned.states.values().filter_map(|state| state.running.as_ref()?.version.parse().ok()).collect();
    refuse_jump(&running, wanted, &[], Downgrade::Forced)
        .map_err(|obstacle| Hinted::new(obstacle.to_string(), obstacle.repair()))?;
    let goals = planned.specs.iter().map(|(name, spec)| {
        let config = (goal != Goal::Version).then(|| wanted_config(spec));
        (name.clone(), NodeGoal { was: None, version: Some(wanted), config })
    });
    let goals = goals.collect();
    Ok(Prepared { executor: Nodes { aws, specs: Some(planned.specs) }, goals })
}

fn planned_release(aws: &Aws) -> String {
    aws.described.nats.release().version
}

/// The nodes of an environment.
struct Nodes<'a> {
    aws: &'a Aws,
    /// What they become; `None`: what they are.
    specs: Option<BTreeMap<String, NodeSpec>>,
}

impl Executor for Nodes<'_> {
    fn timing(&self) -> StopTiming {
        // The script does not wait for the server, so it needs no time of its own.
        StopTiming { lame_duck: LAME_DUCK, stop: LAME_DUCK + AFTER_LAME_DUCK, command: None }
    }

    fn nodes(&self) -> BTreeSet<String> {
        self.aws.handover.nats.nodes.keys().cloned().collect()
    }

    async fn observe(&mut self, _: Option<&str>) -> Observation {
        // Each node is asked by its own agent, so one that is away hinders no other.
        match self.observed().await {
            Ok(observation) => observation,
            Err(error) => Observation::unknown(self.nodes(), &format!("cannot be asked: {error:#}")),
        }
    }

    async fn drain(&mut self, node: &str) -> anyhow::Result<()> {
        balancer::drain(self.aws, node).await
    }

    async fn restart(&mut self, node: &str) -> anyhow::Result<()> {
        let planned = self.specs.as_ref().and_then(|specs| specs.get(node));
        let text = planned.map_or(RESTART_SCRIPT.to_owned(), |spec| spec.apply_script(Reload::Restart));
        let comment = format!("natsctl nats roll: {node}");
        let script = Script { comment: &comment, text: &text, timeout: RESTARTING };
        let instances = instances(self.aws, |name| name == node);
        all(command::run(self.aws.clients.ssm(), &instances, &script).await?).map(drop)
    }

    async fn admit(&mut self, node: &str) -> anyhow::Result<()> {
        balancer::admit(self.aws, node).await
    }
}

/// How long a node may take to begin its restart: another release may have to be unpacked first.
const RESTARTING: Duration = Duration::from_secs(600);

impl Nodes<'_> {
    async fn observed(&self) -> anyhow::Result<Observation> {
        let text = survey_script();
        let script = Script { comment: "natsctl nats: how the servers are", text: &text, timeout: OBSERVING };
        let instances = instances(self.aws, |_| true);
        let asked = command::run(self.aws.clients.ssm(), &instances, &script);
        let (outcomes, traffic) = futures::try_join!(asked, balancer::traffic(self.aws))?;
        let (mut survey, mut configs, mut silent) = (Survey::default(), BTreeMap::new(), BTreeMap::new());
        for (node, outcome) in outcomes {
            let answer = outcome.map_err(anyhow::Error::from).and_then(|output| NodeSurvey::parse(&output));
            match answer {
                Ok(NodeSurvey { state, documents }) => {
                    configs.extend(running_config(&state).map(|config| (node.clone(), config)));
                    if documents.is_empty() {
                        silent.insert(node.clone(), format!("does not run: {}", state.state));
                    }
                    let own = documents.iter().find(|(name, _)| name == "varz");
                    let own = own.and_then(|(_, varz)| varz["server_name"].as_str()).unwrap_or(&node).to_owned();
                    documents.into_iter().for_each(|(name, document)| survey.take(&own, &name, document));
                }
                Err(error) => drop(silent.insert(node, format!("cannot be asked: {error:#}"))),
            }
        }
        let mut observation = survey.observation(&self.nodes());
        for (node, reason) in silent {
            observation.servers.insert(node, Seen::Unknown(reason));
        }
        observation.add_configs(|node| configs.get(node).cloned());
        observation.add_traffic(|node| traffic.get(node).copied().unwrap_or(Traffic::Out));
        Ok(observation)
    }
}

/// What a server is started with: its configuration, and its unit.
fn wanted_config(spec: &NodeSpec) -> String {
    digest(&spec.config, &spec.unit.digest)
}

/// The same of what runs; another text if that is not what is in the files.
fn running_config(state: &NodeState) -> Option<String> {
    let (running, config) = (state.running.as_ref()?, state.config.as_ref()?);
    let is_taken = running.config == running.config_in_files;
    Some(if is_taken { digest(config, &running.unit) } else { format!("another one: {}", running.config) })
}

fn digest(config: &str, unit: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(config);
    hash.update(unit);
    data_encoding::HEXLOWER.encode(&hash.finalize())
}
