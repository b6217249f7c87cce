//! Rolls the servers of an environment: under its lock, in its history, and so that it can be resumed.
//!
//! That is no plan of steps as of other changes: which server comes next is decided when the one before is back.

mod text;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep;

use self::text::Lines;
use super::history::{Record, StepRecord};
use super::lock::IfHeld;
use super::recorded;
use super::run::{Platform, with_lock};
use crate::error::Hinted;
use crate::nats::roll::{
    Accepted, End, Event, Executor, Goal, Machine, NodeGoal, Observation, Obstacle, Patience, Roll, drive,
};
use crate::screen::note;

/// How a roll is carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) if_held: IfHeld,
    pub(crate) patience: Patience,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `None`: go on with the roll that was interrupted.
    pub(crate) goal: Option<Goal>,
    /// Only this server.
    pub(crate) only: Option<String>,
    pub(crate) accepted: Accepted,
}

/// The nodes of a platform, ready to be rolled.
pub(crate) struct Prepared<E> {
    pub(crate) executor: E,
    /// What each server is to be; those that are it already are left alone.
    pub(crate) goals: BTreeMap<String, NodeGoal>,
}

/// What a roll would do.
#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    pub(crate) goal: Goal,
    /// The order in which servers would be taken if nothing moves.
    pub(crate) nodes: Vec<Turn>,
    /// Why it would not begin.
    pub(crate) obstacles: Vec<Obstacle>,
}

/// A server that would be taken, and what is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct Turn {
    pub(crate) node: String,
    pub(crate) version: Option<String>,
    pub(crate) meta_leader: bool,
    /// Streams and consumers that it leads, which others lead then.
    pub(crate) leads: usize,
    /// Clients that move to other servers.
    pub(crate) clients: u64,
    /// Streams and consumers of which it has a replica.
    pub(crate) replicas: usize,
    /// What it becomes.
    pub(crate) to: NodeGoal,
}

/// What a roll did.
#[derive(Debug, Serialize)]
pub(crate) struct Rolled {
    pub(crate) goal: Goal,
    /// The servers in the order in which they were taken.
    pub(crate) nodes: Vec<RolledNode>,
    pub(crate) seconds: f64,
    /// Id of its record; `None` if nothing had to be done.
    pub(crate) record: Option<String>,
}

/// A server that was rolled.
#[derive(Debug, Serialize)]
pub(crate) struct RolledNode {
    pub(crate) node: String,
    /// From its lame duck until everything was well again, in seconds.
    pub(crate) seconds: f64,
    pub(crate) version: Option<String>,
}

/// What a roll would do now. Nothing is changed.
///
/// # Errors
/// There is nothing to resume, or the platform cannot be asked.
pub(crate) async fn preview<P: Platform, E: Executor>(
    platform: &P,
    request: &Request,
    patience: Patience,
    prepare: impl AsyncFnOnce(Goal, Option<&Roll>) -> anyhow::Result<Prepared<E>>,
) -> anyhow::Result<Preview> {
    let resumed = resumed(platform, request).await?;
    let goal = goal(request, resumed.as_ref())?;
    let Prepared { mut executor, goals } = prepare(goal, resumed.as_ref()).await?;
    let mut observation = executor.observe(None).await;
    let roll = match resumed {
        Some(roll) => roll,
        None => begin(request, goal, goals, &executor, &observation)?,
    };
    let mut machine = Machine::new(roll.clone(), patience);
    let deadline = Instant::now() + MOMENTS;
    // Under load, some replica lags at every moment.
    let unwell = loop {
        let unwell = machine.look_at(&observation);
        if unwell.is_empty() || Instant::now() >= deadline {
            break unwell;
        }
        sleep(POLL).await;
        observation = executor.observe(None).await;
    };
    let turn = |node: String| {
        let server = observation.server(&node);
        let has = observation.assets.iter().filter(|asset| asset.members().contains(node.as_str())).count();
        Turn {
            version: server.map(|server| server.version.to_string()),
            meta_leader: observation.meta_leader() == Some(&node),
            leads: observation.led_by(&node),
            clients: server.map_or(0, |server| server.clients),
            replicas: has,
            to: roll.nodes[&node].clone(),
            node,
        }
    };
    let nodes: Vec<Turn> = roll.pending(&observation).into_iter().map(turn).collect();
    let refusals = roll.refusals(&observation).into_iter().chain(executor.timing().obstacle());
    let obstacles = if nodes.is_empty() { Vec::new() } else { refusals.chain(unwell).collect() };
    Ok(Preview { goal, nodes, obstacles })
}

/// How long a preview looks at what is not well, and how often.
const MOMENTS: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// Rolls.
///
/// # Errors
/// It stopped. What was done stays, and the message says why, and how to go on.
pub(crate) async fn run<P: Platform, E: Executor>(
    platform: &P,
    request: &Request,
    options: Options,
    prepare: impl AsyncFnOnce(Goal, Option<&Roll>) -> anyhow::Result<Prepared<E>>,
) -> anyhow::Result<Rolled> {
    with_lock(platform, options.if_held, locked(platform, request, options, prepare)).await
}

async fn locked<P: Platform, E: Executor>(
    platform: &P,
    request: &Request,
    options: Options,
    prepare: impl AsyncFnOnce(Goal, Option<&Roll>) -> anyhow::Result<Prepared<E>>,
) -> anyhow::Result<Rolled> {
    let resumed = resumed(platform, request).await?;
    let goal = goal(request, resumed.as_ref())?;
    let Prepared { mut executor, goals } = prepare(goal, resumed.as_ref()).await?;
    if let Some(obstacle) = executor.timing().obstacle() {
        return Err(stopped(&[obstacle], None, Resumable::No));
    }
    let observation = executor.observe(None).await;
    let roll = match resumed {
        Some(roll) => roll,
        None => {
            let roll = begin(request, goal, goals, &executor, &observation)?;
            if roll.nodes.is_empty() {
                return Ok(Rolled { goal, nodes: Vec::new(), seconds: 0.0, record: None });
            }
            let refusals = roll.refusals(&observation);
            if !refusals.is_empty() {
                return Err(stopped(&refusals, None, Resumable::No));
            }
            roll
        }
    };
    let (who, command) = platform.caller();
    let mut record = Record::start(who, command, platform.workspace(), [].into());
    record.roll = Some(roll.clone());
    let work = async |record: &mut Record| roll_out(&mut executor, roll, options.patience, record).await;
    let (nodes, seconds) = recorded::run(platform, &mut record, work).await?;
    Ok(Rolled { goal, nodes, seconds, record: Some(record.id) })
}

/// The roll to go on with, if that is asked for.
async fn resumed<P: Platform>(platform: &P, request: &Request) -> anyhow::Result<Option<Roll>> {
    let last = platform.records(RECORDS).await?.into_iter().find(|record| record.roll.is_some());
    let open = last.filter(|record| record.result.is_unfinished());
    match (open, request.goal) {
        (Some(record), None) => {
            note(&format!("going on with `{}` of {:.0}", record.command, record.started));
            let fragile = request.accepted.fragile;
            Ok(record.roll.map(|mut roll| {
                roll.accepted.fragile |= fragile;
                roll
            }))
        }
        (None, None) => {
            let hint = "`natsctl history` lists changes; `natsctl nats roll --restart` begins another one";
            Err(Hinted::new("no roll was interrupted", hint).into())
        }
        (Some(record), Some(_)) => {
            let (command, started) = (record.command, record.started);
            note(&format!(
                "`{command}` of {started:.0} was not finished; this begins anew, `--resume` would go on with it"
            ));
            Ok(None)
        }
        (None, Some(_)) => Ok(None),
    }
}

/// So many of the last changes are searched for a roll.
const RECORDS: usize = 100;

fn goal(request: &Request, resumed: Option<&Roll>) -> anyhow::Result<Goal> {
    resumed.map(|roll| roll.goal).or(request.goal).ok_or_else(|| anyhow::anyhow!("there is nothing to roll out"))
}

fn begin<E: Executor>(
    request: &Request,
    goal: Goal,
    mut goals: BTreeMap<String, NodeGoal>,
    executor: &E,
    observation: &Observation,
) -> anyhow::Result<Roll> {
    let cluster = executor.nodes();
    if let Some(only) = &request.only {
        if !cluster.contains(only) {
            let known: Vec<String> = cluster.iter().map(|node| format!("`{node}`")).collect();
            return Err(
                Hinted::new(format!("there is no server `{only}`"), format!("there are {}", known.join(", "))).into()
            );
        }
        goals.retain(|node, _| node == only);
    }
    Ok(Roll::begin(goal, cluster, goals, observation, request.accepted.clone()))
}

async fn roll_out<E: Executor>(
    executor: &mut E,
    roll: Roll,
    patience: Patience,
    record: &mut Record,
) -> anyhow::Result<(Vec<RolledNode>, f64)> {
    let start = Instant::now();
    let (mut nodes, mut lines) = (Vec::new(), Lines::default());
    let mut machine = Machine::new(roll, patience);
    let end = drive(executor, &mut machine, |event| {
        match &event {
            Event::Taken { node, observation } => {
                let from = observation.server(node).map(|server| server.version.to_string());
                let step = format!("roll node {node}");
                record.steps.push(StepRecord { step, from, to: None, image: None, result: "started".to_owned() });
            }
            Event::Back { node, after, observation } => {
                let version = observation.server(node).map(|server| server.version.to_string());
                if let Some(step) = record.steps.last_mut() {
                    (step.to, step.result) = (version.clone(), "done".to_owned());
                }
                nodes.push(RolledNode { node: (*node).to_owned(), seconds: rounded(*after), version });
            }
            Event::Waiting { .. } => {}
        }
        lines.tell(&event, patience.gate);
        Ok(())
    });
    match end.await {
        Ok(End::Finished) => Ok((nodes, rounded(start.elapsed()))),
        Ok(End::Aborted { node, obstacles }) => Err(stopped(&obstacles, node.as_deref(), Resumable::Yes)),
        Err(error) => {
            let hint = crate::error::hint(&error).map(|hint| format!("{hint}; ")).unwrap_or_default();
            Err(Hinted::new(format!("{error:#}"), format!("{hint}`natsctl nats roll --resume` goes on")).into())
        }
    }
}

/// In seconds, with one digit after the point.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// Whether something was begun that can be resumed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resumable {
    Yes,
    No,
}

/// So many obstacles are listed: the first is usually why there are others.
const LISTED: usize = 8;

fn stopped(obstacles: &[Obstacle], node: Option<&str>, resumable: Resumable) -> anyhow::Error {
    let what = match (resumable, node) {
        (Resumable::No, _) => "nothing was rolled: ".to_owned(),
        (Resumable::Yes, None) => "the roll stopped before the next server was taken: ".to_owned(),
        (Resumable::Yes, Some(node)) => format!("the roll stopped while `{node}` was away: "),
    };
    let mut texts: Vec<String> = obstacles.iter().take(LISTED).map(ToString::to_string).collect();
    if obstacles.len() > LISTED {
        texts.push(format!("and {} more", obstacles.len() - LISTED));
    }
    let mut hints: Vec<String> = Vec::new();
    for hint in obstacles.iter().map(Obstacle::repair) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints.truncate(3);
    if resumable == Resumable::Yes {
        hints.push("then `natsctl nats roll --resume` goes on".to_owned());
    }
    Hinted::new(what + &texts.join("; "), hints.join("; ")).into()
}
