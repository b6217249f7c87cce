//! The NATS nodes on EC2: what they are, what they should be, and the way there, by scripts that Systems Manager runs on them. What
//! differs is decided by [`crate::nats::node::plan`]; the scripts are that module's, too.

mod balancer;
mod check;
mod command;
pub(crate) mod roll;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::command::{Instances, Outcomes, Script};
use super::identities::{self, Made};
use super::ledger::{Ensured, Ledger, State};
use super::{AT_ONCE, Aws, lock};
use crate::error::Hinted;
use crate::nats::accounts;
use crate::nats::identity::AccountToken;
use crate::nats::node::plan::{Effect, NodePlan, refusals};
use crate::nats::node::state::NodeState;
use crate::nats::node::{ClusterSpec, NodeSpec, OBSERVE_SCRIPT, upload_scripts};
use crate::nats::permissions;
use crate::nats::pki::ServerName;
use crate::nats::server::Trust;
use crate::pipeline::history::{Record, StepRecord};
use crate::pipeline::lock::IfHeld;
use crate::problem::counted;
use crate::screen::note;

/// How long a node may take to say what there is.
const OBSERVING: Duration = Duration::from_secs(60);
/// How long a node may take to be as planned: download, start, and contact with a leader.
const APPLYING: Duration = Duration::from_secs(900);
/// Bytes of a part of the accounts in one command; Systems Manager takes 64 KiB of parameters.
const PART: usize = 40_000;
/// Said first, as the answers take seconds.
const ASKING: &str = "asking the nodes what they have";
/// Certificates of servers are valid for a year, and renewed by `apply` in the last month.
const LOOK_AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 330);

/// What is to be done, on which nodes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodesPlan {
    /// Secrets that are to be written.
    pub(crate) secrets: Vec<String>,
    pub(crate) nodes: Vec<NodePlan>,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Applied {
    /// Secrets that were written.
    pub(crate) secrets: Vec<String>,
    /// What each node did, in words; those that had nothing to do are left out.
    pub(crate) nodes: BTreeMap<String, Vec<String>>,
    /// The leader of JetStream's cluster.
    pub(crate) leader: String,
    /// What remains: only a roll does it.
    pub(crate) remains: Vec<NodePlan>,
}

/// A plan with everything that carrying it out takes.
struct Prepared {
    plan: NodesPlan,
    made: Made,
    specs: BTreeMap<String, NodeSpec>,
    states: BTreeMap<String, NodeState>,
}

/// What differs from what the nodes should be. Nothing is changed.
///
/// # Errors
/// Nodes that cannot be reached, or that are others than they should be: all of them.
pub(crate) async fn plan(aws: &Aws) -> anyhow::Result<NodesPlan> {
    note(ASKING);
    Ok(prepare(aws).await?.plan)
}

/// Brings the nodes to what they should be, as far as that takes no restart.
///
/// # Errors
/// Those of [`plan`]; a node that did not get there, when the nodes before it have; another change, if `if_held` is not to wait.
pub(crate) async fn apply(aws: &Aws, if_held: IfHeld) -> anyhow::Result<Applied> {
    note(ASKING);
    let prepared = prepare(aws).await?;
    let state = Ledger::of(aws).state().await?;
    let is_recorded = state.nats.as_ref().is_some_and(|before| before.digest == digest(aws).unwrap_or_default());
    if !prepared.plan.applies() && is_recorded {
        return applied(&prepared, Vec::new(), BTreeMap::new(), &prepared.states);
    }
    lock::locked(aws, if_held, carry_out(aws)).await
}

/// What people should know of NATS before services are deployed: that its nodes are not as planned, as far as the ledger knows.
pub(crate) fn notice(aws: &Aws, state: &State) -> Option<String> {
    const SHOWS: &str = "`natsctl nats plan` shows it, `natsctl nats apply` or `deploy --with-nats` does it";
    let wanted = digest(aws).ok()?;
    match &state.nats {
        None => Some(format!("natsctl has not set up NATS in this environment: {SHOWS}")),
        Some(before) if before.digest != wanted => {
            Some(format!("the NATS nodes are not as the manifests describe them: {SHOWS}"))
        }
        Some(before) if jiff::Timestamp::now().duration_since(before.at) > LOOK_AGAIN => {
            Some(format!("the certificates of the NATS nodes expire soon: {SHOWS}"))
        }
        Some(_) => None,
    }
}

impl NodesPlan {
    /// Whether there is anything to do that `apply` does.
    pub(crate) fn applies(&self) -> bool {
        !self.secrets.is_empty() || self.nodes.iter().any(NodePlan::applies)
    }

    /// Whether everything is as planned.
    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.nodes.iter().all(|node| node.changes.is_empty())
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let secrets = self.secrets.iter().map(|name| format!("+ secret {name}: is written"));
        let lines: Vec<String> = secrets.chain(self.nodes.iter().map(NodePlan::text)).collect();
        let rolls = self.nodes.iter().filter(|node| node.needs_roll()).count();
        let verdict = match (self.is_empty(), rolls) {
            (true, _) => "the NATS nodes are as planned".to_owned(),
            (false, 0) => "`natsctl nats apply` does it".to_owned(),
            (false, rolls) => format!(
                "`natsctl nats apply` does what takes no restart; {} to be restarted, one at a time",
                if rolls == 1 { "one node has".to_owned() } else { format!("{rolls} nodes have") }
            ),
        };
        format!("{}\n\n{verdict}", lines.join("\n"))
    }
}

impl Applied {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let secrets = self.secrets.iter().map(|name| format!("written: {name}"));
        let nodes = self.nodes.iter().map(|(name, did)| format!("{name}: {}", did.join(", ")));
        let leader = format!("every node is healthy, `{}` leads JetStream", self.leader);
        let remains = self.remains.iter().map(NodePlan::text);
        let remains: Vec<String> = remains.collect();
        let verdict = match (self.secrets.is_empty() && self.nodes.is_empty(), remains.len()) {
            (true, 0) => "nothing had to be done".to_owned(),
            (false, 0) => "the NATS nodes are as planned".to_owned(),
            (_, number) => format!("{} to be restarted for what is above", counted(number, "node")),
        };
        let lines = secrets.chain(nodes).chain([leader]).chain(remains).chain([verdict]);
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The cluster that manifests and handover describe.
fn cluster(aws: &Aws) -> anyhow::Result<ClusterSpec> {
    let handover = &aws.handover;
    let problems = check::in_handover(handover, aws.described.nats.nodes);
    refuse(
        problems,
        "`terraform apply` in the environment's folder writes the handover; `nats.nodes` is in the environment's manifest",
    )?;
    let address = |(name, node): (&String, &crate::handover::Node)| anyhow::Ok((name.clone(), node.address.parse()?));
    let settings = &aws.manifests.project.nats;
    Ok(ClusterSpec {
        name: format!("{}-{}", handover.project, handover.environment),
        region: handover.region.clone(),
        nodes: handover.nats.nodes.iter().map(address).collect::<Result<_, _>>()?,
        host: handover.nats.host.clone(),
        release: aws.described.nats.release(),
        max_payload: settings.max_payload.bytes(),
        max_file: aws.manifests.max_file_store().bytes(),
    })
}

/// The same for the same nodes, whatever keys and certificates they have.
fn digest(aws: &Aws) -> anyhow::Result<String> {
    let cluster = cluster(aws)?;
    let empty = AccountToken { id: String::new(), jwt: String::new() };
    let trust = Trust { operator: String::new(), system: empty, accounts: Vec::new() };
    let mut hash = Sha256::new();
    hash.update(accounts::digest(&permissions::accounts_on_aws(&aws.manifests)));
    hash.update(format!("{:?}", cluster.release));
    for name in cluster.nodes.keys() {
        hash.update(format!("{:?}", cluster.server_name(name)));
        if let Some(node) = cluster.node(name, "", "", &trust) {
            hash.update(node.config);
            hash.update(node.unit.text);
        }
    }
    Ok(data_encoding::HEXLOWER.encode(&hash.finalize()))
}

/// One error about everything that is wrong.
fn refuse(problems: Vec<String>, hint: &str) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("the NATS nodes are not ready:\n  {}", problems.join("\n  "));
    Err(Hinted::new(message, format!("{hint}; nothing was changed")).into())
}

async fn prepare(aws: &Aws) -> anyhow::Result<Prepared> {
    let cluster = cluster(aws)?;
    let servers: Vec<ServerName> = cluster.nodes.keys().map(|name| cluster.server_name(name)).collect();
    let problems = check::problems(aws).await?;
    refuse(problems, "see the instances in the EC2 console, and `terraform apply` in the environment's folder")?;
    let (states, made) = futures::try_join!(observe(aws), identities::prepare(aws, &servers))?;
    let specs: BTreeMap<String, NodeSpec> = made
        .certificates
        .iter()
        .filter_map(|(name, certificates)| {
            let node = cluster.node(name, &aws.handover.nats_secret(name), certificates, &made.trust)?;
            Some((name.clone(), node))
        })
        .collect();
    let pairs = || specs.iter().filter_map(|(name, spec)| Some((spec, states.get(name)?)));
    let problems = pairs().flat_map(|(spec, state)| refusals(spec, state)).collect();
    refuse(problems, "see docs/nats-on-aws.md, \"Refused\"")?;
    let nodes = pairs().map(|(spec, state)| NodePlan::new(spec, state, &made.accounts)).collect();
    let plan = NodesPlan { secrets: made.unwritten(aws), nodes };
    Ok(Prepared { plan, made, specs, states })
}

/// What there is on every node.
async fn observe(aws: &Aws) -> anyhow::Result<BTreeMap<String, NodeState>> {
    let script = Script { comment: "natsctl nats: what is there", text: OBSERVE_SCRIPT, timeout: OBSERVING };
    let outcomes = command::run(aws.clients.ssm(), &instances(aws, |_| true), &script).await?;
    let mut states = BTreeMap::new();
    for (node, output) in all(outcomes)? {
        let state = NodeState::parse(&output).with_context(|| format!("`{node}` did not say what is there"))?;
        states.insert(node, state);
    }
    Ok(states)
}

/// The instances of these nodes.
fn instances(aws: &Aws, is_meant: impl Fn(&str) -> bool) -> Instances {
    let nodes = aws.handover.nats.nodes.iter().filter(|(name, _)| is_meant(name));
    nodes.map(|(name, node)| (node.instance.clone(), name.clone())).collect()
}

/// What all nodes answered, or one error about all that did not.
fn all(outcomes: Outcomes) -> anyhow::Result<BTreeMap<String, String>> {
    let mut answers = BTreeMap::new();
    let mut failures: Vec<Hinted> = Vec::new();
    for (node, outcome) in outcomes {
        match outcome {
            Ok(output) => drop(answers.insert(node, output)),
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() {
        return Ok(answers);
    }
    let hint = failures.iter().find_map(Hinted::hint).map(str::to_owned);
    let messages: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Err(Hinted::with(messages.join("\n  "), hint).into())
}

/// Under the lock: planned again, done, and recorded.
async fn carry_out(aws: &Aws) -> anyhow::Result<Applied> {
    let prepared = prepare(aws).await?;
    let ledger = Ledger::of(aws);
    let outcome = if prepared.plan.applies() {
        let mut record = Record::start(&aws.caller, &aws.command_line, &aws.workspace, BTreeSet::new());
        ledger.put_record(&record).await?;
        let outcome = change(aws, &prepared, &mut record).await;
        record.end(&outcome);
        ledger.put_record(&record).await?;
        outcome?
    } else {
        applied(&prepared, Vec::new(), BTreeMap::new(), &prepared.states)?
    };
    let ensured = Ensured { digest: digest(aws)?, at: jiff::Timestamp::now() };
    let nats = outcome.remains.is_empty().then_some(ensured);
    let mut state = State { nats, ..ledger.state().await? };
    identities::record(aws, &mut state);
    ledger.put_state(&state).await?;
    Ok(outcome)
}

async fn change(aws: &Aws, prepared: &Prepared, record: &mut Record) -> anyhow::Result<Applied> {
    let step = |step: String| StepRecord { step, from: None, to: None, image: None, result: "done".to_owned() };
    let secrets = prepared.made.write(aws).await?;
    record.steps.extend(secrets.iter().map(|name| step(format!("write secret {name}"))));
    let concerned: BTreeSet<&str> =
        prepared.plan.nodes.iter().filter(|node| node.applies()).map(|node| node.node.as_str()).collect();
    let mut done = BTreeMap::new();
    if !concerned.is_empty() {
        upload(aws, prepared, &concerned).await?;
    }
    for wave in waves(&prepared.plan.nodes) {
        let wave = run_wave(aws, prepared, &wave).await?;
        record.steps.extend(wave.iter().map(|(node, did)| step(format!("{node}: {}", did.join(", ")))));
        done.extend(wave);
    }
    let states = if done.is_empty() { prepared.states.clone() } else { observe(aws).await? };
    applied(prepared, secrets, done, &states)
}

/// Nodes that are done at the same time, in order. A configuration that only looked right stops at the first server that reloads it.
fn waves(nodes: &[NodePlan]) -> Vec<Vec<&NodePlan>> {
    let reloads = |node: &NodePlan| node.changes.iter().any(|change| change.effect == Effect::Reload);
    let concerned = || nodes.iter().filter(|node| node.applies());
    let others: Vec<&NodePlan> = concerned().filter(|node| !reloads(node)).collect();
    let mut reloading = concerned().filter(|node| reloads(node));
    let first: Vec<&NodePlan> = reloading.next().into_iter().collect();
    let waves = [others, first, reloading.collect()];
    waves.into_iter().filter(|wave| !wave.is_empty()).collect()
}

/// Sends the accounts to nodes that have others.
async fn upload(aws: &Aws, prepared: &Prepared, concerned: &BTreeSet<&str>) -> anyhow::Result<()> {
    let lacks = |name: &str| {
        let (spec, state) = (prepared.specs.get(name), prepared.states.get(name));
        let wanted = spec.map(NodeSpec::accounts_digest);
        concerned.contains(name) && state.map(|state| &state.accounts_file) != wanted.as_ref()
    };
    let instances = instances(aws, lacks);
    let Some(spec) = prepared.specs.values().next().filter(|_| !instances.is_empty()) else { return Ok(()) };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(spec.accounts.as_bytes())?;
    let encoded = data_encoding::BASE64.encode(&encoder.finish()?);
    let digest = spec.accounts_digest();
    let scripts = upload_scripts(&digest, &encoded, PART);
    for (number, text) in scripts.iter().enumerate() {
        let comment = format!("natsctl nats apply: accounts, part {} of {}", number + 1, scripts.len());
        let script = Script { comment: &comment, text, timeout: OBSERVING };
        all(command::run(aws.clients.ssm(), &instances, &script).await?)?;
    }
    Ok(())
}

/// Runs the scripts of a wave. Gives what each node did.
async fn run_wave(aws: &Aws, prepared: &Prepared, wave: &[&NodePlan]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let names = wave.iter().map(|node| node.node.as_str()).collect::<Vec<_>>().join(", ");
    note(&format!("working on {names}"));
    let one = |node: NodePlan| async move {
        let spec = prepared.specs.get(&node.node).context("a plan for a node that is not there")?;
        let comment = format!("natsctl nats apply: {}", node.node);
        let text = spec.apply_script(node.reload());
        let script = Script { comment: &comment, text: &text, timeout: APPLYING };
        let instances = instances(aws, |name| name == node.node);
        let outcomes = command::run(aws.clients.ssm(), &instances, &script).await?;
        if let Some(Ok(output)) = outcomes.get(&node.node) {
            note(&format!("{}: {}", node.node, did(output).join(", ")));
        }
        anyhow::Ok(outcomes)
    };
    let plans = wave.iter().map(|node| one((*node).clone()));
    let outcomes: Vec<Outcomes> = futures::stream::iter(plans).buffer_unordered(AT_ONCE).try_collect().await?;
    let outputs = all(outcomes.into_iter().flatten().collect())?;
    Ok(outputs.into_iter().map(|(node, output)| (node, did(&output))).collect())
}

/// What a script says that it has done.
fn did(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_prefix("did: ")).map(str::to_owned).collect()
}

/// What was done, proved by what the nodes say afterwards.
fn applied(
    prepared: &Prepared,
    secrets: Vec<String>,
    nodes: BTreeMap<String, Vec<String>>,
    states: &BTreeMap<String, NodeState>,
) -> anyhow::Result<Applied> {
    let mut leaders: BTreeMap<&str, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, state) in states {
        match &state.running {
            None => problems.push(format!("`{name}` does not run: {}", state.state)),
            Some(running) if !running.is_healthy() => {
                problems.push(format!("`{name}` is not healthy: {}", running.health));
            }
            Some(running) => *leaders.entry(&running.leader).or_default() += 1,
        }
    }
    let leader = leaders.iter().max_by_key(|(_, followers)| **followers).map(|(name, _)| (*name).to_owned());
    if leaders.len() > 1 {
        let said = leaders.iter().map(|(leader, nodes)| format!("{nodes} follow `{leader}`")).collect::<Vec<_>>();
        problems.push(format!("the nodes do not agree on a leader: {}", said.join(", ")));
    }
    if !problems.is_empty() {
        let hint = "the logs are in the environment's log group for EC2; run it again: it goes on from there";
        return Err(Hinted::new(problems.join("\n  "), hint).into());
    }
    let plans = prepared
        .specs
        .iter()
        .filter_map(|(name, spec)| Some(NodePlan::new(spec, states.get(name)?, &prepared.made.accounts)));
    let remains: Vec<NodePlan> = plans.filter(|plan| !plan.changes.is_empty()).collect();
    Ok(Applied { secrets, nodes, leader: leader.unwrap_or_default(), remains })
}
