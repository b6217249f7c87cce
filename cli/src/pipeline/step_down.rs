//! Moves leaders to other servers: under the environment's lock, in its history, and only when it was seen to have happened.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::history::{Record, StepRecord};
use super::lock::IfHeld;
use super::recorded;
use super::run::{Platform, with_lock};
use crate::error::Hinted;
use crate::nats::roll::{Asset, AssetKind, Executor, Observation};

/// What is to get another leader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Led {
    /// The cluster.
    Meta,
    /// A stream by its name.
    Stream(String),
}

/// A leader that has moved.
#[derive(Debug, Serialize)]
pub(crate) struct Moved {
    pub(crate) what: Led,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// Asks a leader to step down.
pub(crate) trait StepDown {
    /// `to` is who should lead then, if it can.
    ///
    /// # Errors
    /// It was refused, or there is no answer.
    async fn step_down(&mut self, what: &Led, to: Option<&str>) -> anyhow::Result<()>;
}

/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(15);
/// Between two observations.
const POLL: Duration = Duration::from_millis(100);

/// Has these get other leaders, one after the other.
///
/// # Errors
/// One of them has no leader, or cannot have another one; nothing was moved then. Or a move was not seen; what has moved before stays.
pub(crate) async fn run<P: Platform, E: Executor + StepDown>(
    platform: &P,
    executor: &mut E,
    wanted: &BTreeSet<Led>,
    to: Option<&str>,
    if_held: IfHeld,
) -> anyhow::Result<Vec<Moved>> {
    with_lock(platform, if_held, async {
        let observation = executor.observe(None).await;
        for what in wanted {
            refuse_impossible(what, to, &observation)?;
        }
        let (who, command) = platform.caller();
        let mut record = Record::start(who, command, platform.workspace(), BTreeSet::new());
        recorded::run(platform, &mut record, async |record| {
            let mut moved = Vec::new();
            for what in wanted {
                record.steps.push(StepRecord {
                    step: format!("step down {}", what.name()),
                    from: None,
                    to: None,
                    image: None,
                    result: "started".to_owned(),
                });
                let one = step_down(executor, what, to).await?;
                if let Some(step) = record.steps.last_mut() {
                    (step.from, step.to) = (Some(one.from.clone()), Some(one.to.clone()));
                    "done".clone_into(&mut step.result);
                }
                moved.push(one);
            }
            Ok(moved)
        })
        .await
    })
    .await
}

/// Who leads these, in their order.
///
/// # Errors
/// One of them has no leader, or cannot have another one.
pub(crate) fn leaders(
    wanted: &BTreeSet<Led>,
    to: Option<&str>,
    observation: &Observation,
) -> Result<Vec<String>, Hinted> {
    let leader = |what: &Led| {
        refuse_impossible(what, to, observation)?;
        Ok(what.leader(observation).unwrap_or_default())
    };
    wanted.iter().map(leader).collect()
}

impl Led {
    /// As in a sentence.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Meta => "the meta leader".to_owned(),
            Self::Stream(name) => format!("stream `{name}`"),
        }
    }

    fn leader(&self, observation: &Observation) -> Option<String> {
        match self {
            Self::Meta => observation.meta_leader().map(str::to_owned),
            Self::Stream(name) => stream(name, observation)?.leader().map(str::to_owned),
        }
    }
}

fn stream<'a>(name: &str, observation: &'a Observation) -> Option<&'a Asset> {
    observation.assets.iter().find(|asset| asset.kind == AssetKind::Stream && asset.name == name)
}

fn refuse_impossible(what: &Led, to: Option<&str>, observation: &Observation) -> Result<(), Hinted> {
    let members: BTreeSet<&str> = match what {
        Led::Meta => observation.servers.keys().map(String::as_str).collect(),
        Led::Stream(name) => {
            let found = stream(name, observation);
            let hint = "`natsctl nats status` lists the streams; that of a bucket begins with `KV_`";
            found.ok_or_else(|| Hinted::new(format!("no server has a stream `{name}`"), hint))?.members()
        }
    };
    let listed = || members.iter().map(|node| format!("`{node}`")).collect::<Vec<_>>().join(", ");
    if members.len() == 1 {
        let hint = "only a stream with more replicas has another server to lead it";
        return Err(Hinted::new(format!("{} is on {} alone", what.name(), listed()), hint));
    }
    if let Some(to) = to.filter(|to| !members.contains(to)) {
        return Err(Hinted::new(format!("`{to}` cannot lead {}", what.name()), format!("these can: {}", listed())));
    }
    match what.leader(observation) {
        Some(leader) if Some(leader.as_str()) == to => Err(Hinted::new(
            format!("`{leader}` leads {} already", what.name()),
            "name another server, or leave out `--to`",
        )),
        Some(_) => Ok(()),
        None => {
            let hint = "`natsctl nats check` says more; it gets one when a majority of its replicas is well";
            Err(Hinted::new(format!("{} has no leader now", what.name()), hint))
        }
    }
}

async fn step_down<E: Executor + StepDown>(executor: &mut E, what: &Led, to: Option<&str>) -> anyhow::Result<Moved> {
    let observation = executor.observe(None).await;
    let from = what.leader(&observation).ok_or_else(|| anyhow::anyhow!("{} has no leader now", what.name()))?;
    executor.step_down(what, to).await?;
    let deadline = Instant::now() + ELECTION;
    loop {
        let now = what.leader(&executor.observe(None).await);
        if let Some(leader) = now.as_ref().filter(|leader| **leader != from && to.is_none_or(|to| to == *leader)) {
            return Ok(Moved { what: what.clone(), from, to: leader.clone() });
        }
        if Instant::now() >= deadline {
            let leads = now.map_or("nobody leads it".to_owned(), |leader| format!("`{leader}` leads it"));
            let hint = "a server that is not current cannot take over: `natsctl nats check` says more";
            return Err(
                Hinted::new(format!("{} has not moved from `{from}` as asked: {leads}", what.name()), hint).into()
            );
        }
        sleep(POLL).await;
    }
}
