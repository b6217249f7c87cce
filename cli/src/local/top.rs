//! What the tasks of the local environment have counted: each shows metrics of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::environment::Local;
use super::lists::memory_mib;
use super::protocol::{TaskState, TaskStatus};
use super::supervisor::probe;
use crate::model::top::{Answer, Counters, Sample, TaskSample};

/// How long a task may take to answer.
const LIMIT: Duration = Duration::from_secs(1);

impl Local {
    /// What the tasks of these services, or of all, have counted since they started, and the memory that they use. Samples that are
    /// compared have the same `origin`.
    ///
    /// # Errors
    /// Nothing is deployed; a name of no service that is deployed; the supervisor cannot be asked.
    pub(crate) async fn sample(&self, names: &[String], origin: Instant) -> anyhow::Result<Sample> {
        let services = self.deployed_services().await?;
        for name in names {
            self.deployed(&services, name)?;
        }
        let names: BTreeSet<&String> = names.iter().collect();
        let shown = services.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
        let at = origin.elapsed();
        let asked = shown.map(async |(name, service)| {
            let tasks = service.tasks.iter().map(async |task| (task.id.clone(), task_sample(task).await));
            (name.clone(), join_all(tasks).await.into_iter().collect::<BTreeMap<_, _>>())
        });
        Ok(Sample { at, services: join_all(asked).await.into_iter().collect() })
    }
}

async fn task_sample(task: &TaskStatus) -> TaskSample {
    TaskSample { answer: answer(task).await, memory_mib: task.pid.and_then(memory_mib) }
}

async fn answer(task: &TaskStatus) -> Answer {
    let (Some(_), Some(port)) = (task.pid, task.health_port) else {
        let exit = task.last_exit.as_ref().map(ToString::to_string);
        return Answer::Silent(task.reason.clone().or(exit).unwrap_or_else(|| "it does not run".to_owned()));
    };
    let counted = probe::body(port, "/metrics", LIMIT).await.and_then(|text| Counters::parse(&text));
    match counted {
        Ok(counters) => Answer::Counted(counters),
        Err(_) if task.state == TaskState::Starting => Answer::Starting,
        Err(reason) => Answer::Silent(format!("`/metrics` {reason}")),
    }
}
