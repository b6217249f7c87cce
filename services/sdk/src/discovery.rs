//! Service discovery by ADR-32: `$SRV.PING`, `INFO` and `STATS`, so that the standard tools see every worker.
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{SubscribeError, Subscriber};
use futures::StreamExt as _;
use futures::stream::SelectAll;
use jiff::{SignedDuration, Timestamp};
use proto::rpc::Service;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::breaker::OpenCircuit;
use crate::caller::discovery_inbox;
use crate::fleet::Fleet;
use crate::metrics::ServerMetrics;
use crate::settings::Settings;

/// The delay before another attempt to subscribe.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Answers discovery requests until it is stopped or dropped.
pub(crate) struct Discovery(JoinHandle<()>);

/// A contract that a worker serves.
pub(crate) struct Served {
    pub(crate) service: &'static Service,
    /// Its queue group.
    pub(crate) group: String,
    pub(crate) metrics: Arc<ServerMetrics>,
}

impl Discovery {
    /// Answers on the current connection. `served` is empty for a worker that only calls.
    pub(crate) async fn answer(fleet: &Fleet, served: Vec<Served>) -> Result<Self, SubscribeError> {
        let connection = fleet.connection();
        let instance = Instance::new(fleet.settings(), served);
        let mut requests: SelectAll<Subscriber> = SelectAll::new();
        for verb in ["PING", "INFO", "STATS"] {
            for scope in [String::new(), format!(".{}", instance.name), format!(".{}.{}", instance.name, instance.id)] {
                requests.push(connection.client.subscribe(format!("$SRV.{verb}{scope}")).await?);
            }
        }
        let (client, fleet) = (connection.client.clone(), fleet.clone());
        Ok(Self(tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let Some(caller) = discovery_inbox(&request) else { continue };
                let verb = request.subject.split('.').nth(1).unwrap_or_default();
                let answer = match verb {
                    "PING" => instance.response("ping"),
                    "INFO" => instance.info(),
                    _ => instance.stats(&fleet.destinations().open_circuits()),
                };
                // The caller retries if it gets no response.
                let _ = client.publish(caller, answer.to_string().into()).await;
            }
        })))
    }

    pub(crate) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers discovery for a worker that only calls, on every connection that it gets.
pub(crate) async fn answer_as_caller(fleet: Fleet) {
    let mut connection_changes = fleet.connection_changes();
    loop {
        match Discovery::answer(&fleet, Vec::new()).await {
            Ok(_answering) => {
                if connection_changes.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "failed to subscribe to discovery requests");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// One worker, as discovery describes it.
struct Instance {
    name: String,
    id: String,
    version: String,
    metadata: Value,
    started: String,
    served: Vec<Served>,
}

impl Instance {
    fn new(settings: &Settings, served: Vec<Served>) -> Self {
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let worker = WORKERS.fetch_add(1, Ordering::Relaxed);
        Self {
            name: settings.service.clone(),
            id: format!("{}-{worker}", settings.task),
            version: settings.version.clone(),
            metadata: json!({ "task": settings.task, "revision": settings.revision, "worker": worker.to_string() }),
            started: Timestamp::now().to_string(),
            served,
        }
    }

    fn response(&self, kind: &str) -> Value {
        json!({
            "type": format!("io.nats.micro.v1.{kind}_response"),
            "name": self.name,
            "id": self.id,
            "version": self.version,
            "metadata": self.metadata,
        })
    }

    fn info(&self) -> Value {
        let mut response = self.response("info");
        let described: Vec<&str> = self.served.iter().map(|served| served.service.name).collect();
        response["description"] = if described.is_empty() { self.name.clone() } else { described.join(", ") }.into();
        let endpoints = self.served.iter().flat_map(|served| {
            served.service.methods.iter().map(|method| {
                json!({
                    "name": method.name,
                    "subject": method.subject,
                    "queue_group": served.group,
                    "metadata": {
                        "idempotent": method.idempotent.to_string(),
                        "streaming": method.streaming.to_string(),
                    },
                })
            })
        });
        response["endpoints"] = endpoints.collect();
        response
    }

    /// The circuits are in `data` of the instance: they belong to all of its endpoints, and a worker that only calls has
    /// none.
    fn stats(&self, circuits: &[OpenCircuit]) -> Value {
        let mut response = self.response("stats");
        response["started"] = self.started.as_str().into();
        response["data"] = json!({ "open_circuits": circuits.iter().map(described).collect::<Value>() });
        let endpoints = self.served.iter().flat_map(|served| {
            served.metrics.stats().map(|(method, stats)| {
                let (requests, nanoseconds) =
                    (stats.requests.load(Ordering::Relaxed), stats.nanoseconds.load(Ordering::Relaxed));
                json!({
                    "name": method.name,
                    "subject": method.subject,
                    "queue_group": served.group,
                    "num_requests": requests,
                    "num_errors": stats.errors.load(Ordering::Relaxed),
                    "last_error": stats.last_error(),
                    "processing_time": nanoseconds,
                    "average_processing_time": nanoseconds.checked_div(requests).unwrap_or(0),
                })
            })
        });
        response["endpoints"] = endpoints.collect();
        response
    }
}

fn described(circuit: &OpenCircuit) -> Value {
    let open_for = SignedDuration::try_from(circuit.open_for).unwrap_or(SignedDuration::MAX);
    let since = Timestamp::now().checked_sub(open_for).unwrap_or(Timestamp::MIN);
    json!({
        "destination": circuit.destination,
        "since": format!("{since:.3}"),
        "retry_after_ms": u64::try_from(circuit.retry_after.as_millis()).unwrap_or(u64::MAX),
    })
}
