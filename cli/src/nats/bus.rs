//! What natsctl asks of the bus: whether what was deployed answers, and that streams and buckets are as desired. Asked
//! from this process where it can reach NATS, and otherwise by a remote task: so requests and replies have a written
//! form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use async_nats::Client;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::discovery::{Instance, Question, instances};
use super::jetstream::JetStream;
use crate::error::Hinted;
use crate::model::observed::Assets;
use crate::problem::counted;

/// How long a deployed service may take to answer.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long JetStream may take to make a stream; a new meta leader may have to be elected meanwhile.
pub const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(20);
/// The command by which natsctl runs as a remote task.
pub(crate) const TASK_COMMAND: &str = "remote-task";
/// Version of the written form of requests and replies.
pub const PROTOCOL: &str = "1";
/// Services that are asked at the same time.
const AT_ONCE: usize = 32;
/// What a written answer begins with, among other lines.
const MARKER: &str = "natsctl-bus ";

/// The tasks of a service that should answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedTasks {
    /// What they run.
    pub revision: u64,
    /// How many there should be.
    pub tasks: u32,
    /// Those that are known by their ids.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub known: BTreeSet<String>,
}

/// A task that answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RespondingTask {
    /// Its id.
    pub task: String,
    /// What it runs.
    pub revision: String,
    /// Its version.
    pub version: String,
}

/// Tasks that answered, by service.
pub type RespondingTasks = BTreeMap<String, BTreeSet<RespondingTask>>;

/// The tasks behind the instances of a service: each worker of a task is one.
pub fn tasks(instances: &[Instance], service: &str) -> BTreeSet<RespondingTask> {
    let of_service = instances.iter().filter(|instance| instance.service == service);
    let task = |instance: &Instance| {
        let said = |key: &str| instance.metadata.get(key).cloned();
        Some(RespondingTask { task: said("task")?, revision: said("revision")?, version: instance.version.clone() })
    };
    of_service.filter_map(task).collect()
}

impl ExpectedTasks {
    /// The ids of the tasks that answered with the revision that they should have.
    pub fn answering<'a>(&self, found: &'a BTreeSet<RespondingTask>) -> BTreeSet<&'a str> {
        let revision = self.revision.to_string();
        found.iter().filter(|one| one.revision == revision).map(|one| one.task.as_str()).collect()
    }

    /// Whether all that should answer did.
    pub fn is_met(&self, found: &BTreeSet<RespondingTask>) -> bool {
        let answering = self.answering(found);
        answering.len() >= self.tasks as usize && self.known.iter().all(|task| answering.contains(&**task))
    }

    /// The proof that service `name` does what was asked for.
    ///
    /// # Errors
    /// Which of its tasks do not answer.
    pub fn proof(&self, name: &str, found: &BTreeSet<RespondingTask>) -> Result<String, Hinted> {
        let (answering, revision) = (self.answering(found), self.revision);
        if self.is_met(found) && answering.is_empty() {
            return Ok(stopped(name));
        }
        if self.is_met(found) {
            let version = found.iter().find(|one| answering.contains(&*one.task)).map_or("", |one| &one.version);
            let count = answering.len();
            return Ok(format!("{name} answers on the bus: {} of r{revision}, {version}", counted(count, "task")));
        }
        let mut message = format!("`{name}` is deployed, but of revision {revision} ");
        let silent: Vec<&str> =
            self.known.iter().map(String::as_str).filter(|task| !answering.contains(task)).collect();
        // Writing to a string does not fail.
        let _ = if silent.is_empty() {
            write!(message, "only {} of {} answer on the bus", answering.len(), counted(self.tasks, "task"))
        } else {
            write!(message, "these tasks do not answer on the bus: {}", silent.join(", "))
        };
        let others: BTreeSet<&str> =
            found.iter().filter(|one| !answering.contains(&*one.task)).map(|one| &*one.revision).collect();
        if !others.is_empty() {
            let others: Vec<&str> = others.into_iter().collect();
            let _ = write!(message, "; tasks of revision {} do", others.join(", "));
        }
        Err(Hinted::new(message, format!("see `natsctl logs {name}`")))
    }
}

/// Asks until those that should answer have, or the time is over.
pub async fn find(
    client: &Client,
    expected: &BTreeMap<String, ExpectedTasks>,
    within: Duration,
) -> anyhow::Result<RespondingTasks> {
    let one = |(name, expected): (String, ExpectedTasks)| async move {
        let enough = |found: &[Instance]| expected.is_met(&tasks(found, &name));
        let found = instances(client, Question::Ping, Some(&name), within, enough).await?;
        let tasks = tasks(&found, &name);
        Ok::<_, anyhow::Error>((name, tasks))
    };
    futures::stream::iter(expected.clone()).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

/// Makes streams, buckets and consumers, or changes what differs.
///
/// # Errors
/// Which of them the servers refuse, or that they cannot do it now.
pub async fn ensure(client: &Client, assets: &Assets) -> anyhow::Result<()> {
    let jetstream = JetStream::new(client.clone());
    let there = jetstream.observe(JETSTREAM_TIMEOUT).await?;
    for (name, bucket) in assets.buckets.iter().filter(|(name, bucket)| there.buckets.get(*name) != Some(*bucket)) {
        jetstream.put_bucket(name, bucket, JETSTREAM_TIMEOUT).await?;
    }
    for (name, stream) in assets.streams.iter().filter(|(name, stream)| there.streams.get(*name) != Some(*stream)) {
        jetstream.put_stream(name, stream, JETSTREAM_TIMEOUT).await?;
    }
    for (name, consumer) in assets.consumers.iter().filter(|(name, it)| there.consumers.get(*name) != Some(*it)) {
        jetstream.put_consumer(name, consumer, JETSTREAM_TIMEOUT).await?;
    }
    Ok(())
}

/// Deletes consumers, by stream and name.
///
/// # Errors
/// Which of them the servers refuse to delete, or that they cannot do it now.
pub async fn delete_consumers(client: &Client, names: &BTreeSet<String>) -> anyhow::Result<()> {
    let jetstream = JetStream::new(client.clone());
    for name in names {
        jetstream.delete_consumer(name, JETSTREAM_TIMEOUT).await?;
    }
    Ok(())
}

/// What is asked, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusRequest {
    /// Which tasks of these services answer.
    Find(BTreeMap<String, ExpectedTasks>),
    /// That these streams, buckets and consumers are there.
    Ensure(Assets),
    /// That these consumers are not there, by stream and name.
    DeleteConsumers(BTreeSet<String>),
}

/// A part of the reply, written as one line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyLine {
    /// The tasks of one service that answered.
    Found {
        /// Its name.
        service: String,
        /// Those that did.
        tasks: BTreeSet<RespondingTask>,
    },
    /// The last: nothing is missing.
    Done,
    /// The last: it failed.
    Failed {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl BusRequest {
    /// The same in parts that are no longer than `most` when written; what cannot be parted is left as it is.
    pub fn parts(self, most: usize) -> Vec<Self> {
        let is_short = serde_json::to_string(&self).is_ok_and(|text| text.len() <= most);
        let halves = match &self {
            _ if is_short => None,
            Self::Find(services) => halves(services).map(|(a, b)| (Self::Find(a), Self::Find(b))),
            Self::DeleteConsumers(_) => None,
            Self::Ensure(assets) => split(assets).map(|(a, b)| (Self::Ensure(a), Self::Ensure(b))),
        };
        match halves {
            None => vec![self],
            Some((first, second)) => [first.parts(most), second.parts(most)].concat(),
        }
    }

    /// Does what is asked; `say` is given each part of what comes of it.
    pub async fn perform(&self, client: &Client, mut say: impl FnMut(ReplyLine)) -> anyhow::Result<()> {
        match self {
            Self::Find(expected) => {
                for (service, tasks) in find(client, expected, RESPONSE_TIMEOUT).await? {
                    say(ReplyLine::Found { service, tasks });
                }
            }
            Self::Ensure(assets) => ensure(client, assets).await?,
            Self::DeleteConsumers(names) => delete_consumers(client, names).await?,
        }
        Ok(())
    }
}

/// Two parts of assets, the first of which does not need the second: streams need the buckets that they take events over
/// from, and consumers need their streams.
fn split(assets: &Assets) -> Option<(Assets, Assets)> {
    let Assets { streams, buckets, consumers } = assets.clone();
    let of_streams = |streams| Assets { streams, ..Assets::default() };
    let of_buckets = |buckets| Assets { buckets, ..Assets::default() };
    let of_consumers = |consumers| Assets { consumers, ..Assets::default() };
    match [streams.is_empty(), buckets.is_empty(), consumers.is_empty()] {
        [false, true, true] => halves(&streams).map(|(a, b)| (of_streams(a), of_streams(b))),
        [true, false, true] => halves(&buckets).map(|(a, b)| (of_buckets(a), of_buckets(b))),
        [true, true, false] => halves(&consumers).map(|(a, b)| (of_consumers(a), of_consumers(b))),
        [true, true, true] => None,
        [_, false, _] => Some((of_buckets(buckets), Assets { streams, consumers, ..Assets::default() })),
        [false, true, false] => Some((of_streams(streams), of_consumers(consumers))),
    }
}

fn halves<T: Clone>(map: &BTreeMap<String, T>) -> Option<(BTreeMap<String, T>, BTreeMap<String, T>)> {
    let middle = map.keys().nth(map.len() / 2).filter(|_| map.len() > 1)?.clone();
    let mut first = map.clone();
    let second = first.split_off(&middle);
    Some((first, second))
}

/// What is said of a service of which no task should run.
pub(crate) fn stopped(name: &str) -> String {
    format!("{name} is scaled to 0: no task of it runs")
}

impl ReplyLine {
    /// One line among others.
    pub fn write(&self) -> anyhow::Result<String> {
        Ok(format!("{MARKER}{}", serde_json::to_string(self)?))
    }

    /// The part in this line, if there is one.
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim_end().strip_prefix(MARKER)?).ok()
    }
}

/// All that was found, by the lines that say so; `None` as long as the last is not among them.
pub fn parse_reply<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<anyhow::Result<RespondingTasks>> {
    let mut found = RespondingTasks::new();
    for part in lines.into_iter().filter_map(ReplyLine::read) {
        match part {
            ReplyLine::Found { service, tasks } => {
                found.insert(service, tasks);
            }
            ReplyLine::Done => return Some(Ok(found)),
            ReplyLine::Failed { message, hint } => {
                let hint = hint.unwrap_or_else(|| "see `natsctl nats status`".to_owned());
                return Some(Err(Hinted::new(message, hint).into()));
            }
        }
    }
    None
}

#[cfg(test)]
mod live;
#[cfg(test)]
mod tests;
