//! Shows that what was deployed runs and answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::apply::{POLL_INTERVAL, SETTLE, settled};
use super::cluster_files::ADMIN;
use super::environment::{CONNECT, Local};
use super::protocol::{Description, ServiceStatus as Running, TaskState};
use super::supervisor::probe;
use crate::error::Hinted;
use crate::nats::bus::{self, ExpectedTasks, RESPONSE_TIMEOUT};
use crate::problem::counted;

impl Local {
    /// Asks the bus and the gateway whether what was deployed answers: every task, with the revision that it should have.
    pub(crate) async fn prove(&self, services: &BTreeSet<String>) -> anyhow::Result<Vec<String>> {
        if self.describe().await?.is_some_and(|description| description.supervisor.is_none()) {
            let hint = "`natsctl deploy --all` starts it and everything else";
            return Err(Hinted::new("nothing runs, because the supervisor does not run", hint).into());
        }
        let endpoints = self.endpoints()?;
        settled(&self.supervisor().await?, &endpoints, &BTreeSet::new()).await?;
        let description = self.complete(services).await?;
        let client = endpoints.of(ADMIN)?.connect("natsctl", CONNECT).await?;
        let deployed = || description.services.iter().filter(|(name, _)| services.contains(*name));
        let gateways = deployed().filter_map(|(name, service)| Some((name, service.http?, service.desired)));
        let gateways = try_join_all(gateways.map(|(name, address, tasks)| async move {
            if tasks == 0 {
                return Ok((name.clone(), bus::stopped(name)));
            }
            prove_gateway(address).await.map(|()| (name.clone(), format!("{name} takes HTTP at http://{address}")))
        }));
        let workers = deployed().filter(|(_, service)| service.http.is_none());
        let workers = workers.map(|(name, service)| (name.clone(), expected(service))).collect();
        let (gateways, found) = futures::try_join!(gateways, bus::find(&client, &workers, RESPONSE_TIMEOUT))?;
        let mut proofs: BTreeMap<String, String> = gateways.into_iter().collect();
        for (name, tasks) in found {
            let proof = workers[&name].proof(&name, &tasks)?;
            proofs.insert(name, proof);
        }
        Ok(proofs.into_values().collect())
    }

    /// Waits until these services have all their tasks: one that has just lost its server or was killed comes back by itself.
    async fn complete(&self, services: &BTreeSet<String>) -> anyhow::Result<Description> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let description = self.describe().await?.ok_or_else(|| self.not_deployed())?;
            let deployed = description.services.iter().filter(|(name, _)| services.contains(*name));
            let Some((name, short)) = deployed.into_iter().find(|(_, service)| service.ready() < service.desired)
            else {
                return Ok(description);
            };
            if Instant::now() >= deadline {
                let message = format!(
                    "`{name}` is deployed, but only {} of {} ready",
                    short.ready(),
                    counted(short.desired, "task")
                );
                return Err(Hinted::new(message, format!("see `natsctl status` and `natsctl logs {name}`")).into());
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// Which tasks of a service, of which revision, take requests.
pub(super) fn ready_tasks(service: &Running) -> BTreeSet<&str> {
    let ready =
        |task: &&super::protocol::TaskStatus| task.state == TaskState::Ready && task.revision == service.revision;
    service.tasks.iter().filter(ready).map(|task| task.id.as_str()).collect()
}

/// What should answer on the bus: the tasks that take requests.
pub(super) fn expected(service: &Running) -> ExpectedTasks {
    let known: BTreeSet<String> = ready_tasks(service).into_iter().map(str::to_owned).collect();
    ExpectedTasks { revision: service.revision, tasks: u32::try_from(known.len()).unwrap_or(u32::MAX), known }
}

async fn prove_gateway(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    loop {
        match probe::get(address.port(), "/readyz", CONNECT).await {
            Ok(()) => return Ok(()),
            Err(got) if Instant::now() >= deadline => {
                let message = format!("the gateway at http://{address} is not ready: `/readyz` {got}");
                return Err(Hinted::new(message, "see `natsctl logs gateway`").into());
            }
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}
