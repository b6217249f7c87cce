//! Service discovery by ADR-32: `$SRV.PING`, `INFO` and `STATS`, so that the standard tools see every worker.
//! (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md>)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{SubscribeError, Subscriber};
use futures::StreamExt as _;
use futures::stream::SelectAll;
use proto::rpc::{Server, Service};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::caller::discovery_inbox;
use crate::connection::Connection;
use crate::serve::Worker;
use crate::settings::Settings;

/// Answers discovery requests until it is stopped or dropped.
pub(crate) struct Discovery(JoinHandle<()>);

impl Discovery {
    pub(crate) async fn answer<S: Server>(
        connection: &Arc<Connection>,
        settings: &Settings,
        group: &str,
        service: &'static Service,
        worker: Arc<Worker<S>>,
    ) -> Result<Self, SubscribeError> {
        let instance = Instance::new(settings, group);
        let mut requests: SelectAll<Subscriber> = SelectAll::new();
        for verb in ["PING", "INFO", "STATS"] {
            for scope in [String::new(), format!(".{}", instance.name), format!(".{}.{}", instance.name, instance.id)] {
                requests.push(connection.client.subscribe(format!("$SRV.{verb}{scope}")).await?);
            }
        }
        let client = connection.client.clone();
        Ok(Self(tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let Some(caller) = discovery_inbox(&request) else { continue };
                let verb = request.subject.split('.').nth(1).unwrap_or_default();
                let answer = match verb {
                    "PING" => instance.response("ping"),
                    "INFO" => instance.info(service),
                    _ => instance.stats(&worker),
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

/// The fields that all responses share.
struct Instance {
    name: String,
    id: String,
    version: String,
    group: String,
    metadata: Value,
    started: String,
}

impl Instance {
    fn new(settings: &Settings, group: &str) -> Self {
        static WORKERS: AtomicU64 = AtomicU64::new(0);
        let worker = WORKERS.fetch_add(1, Ordering::Relaxed);
        Self {
            name: settings.service.clone(),
            id: format!("{}-{worker}", settings.task),
            version: settings.version.clone(),
            group: group.to_owned(),
            metadata: json!({ "task": settings.task, "revision": settings.revision, "worker": worker.to_string() }),
            started: jiff::Timestamp::now().to_string(),
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

    fn info(&self, service: &Service) -> Value {
        let mut response = self.response("info");
        response["description"] = service.name.into();
        let endpoint = |method: &proto::rpc::Method| {
            json!({
                "name": method.name,
                "subject": method.subject,
                "queue_group": self.group,
                "metadata": {
                    "idempotent": method.idempotent.to_string(),
                    "streaming": method.streaming.to_string(),
                },
            })
        };
        response["endpoints"] = service.methods.iter().map(endpoint).collect();
        response
    }

    fn stats<S>(&self, worker: &Worker<S>) -> Value {
        let mut response = self.response("stats");
        response["started"] = self.started.as_str().into();
        response["endpoints"] = worker
            .metrics
            .stats()
            .map(|(method, stats)| {
                let (requests, nanoseconds) =
                    (stats.requests.load(Ordering::Relaxed), stats.nanoseconds.load(Ordering::Relaxed));
                json!({
                    "name": method.name,
                    "subject": method.subject,
                    "queue_group": self.group,
                    "num_requests": requests,
                    "num_errors": stats.errors.load(Ordering::Relaxed),
                    "last_error": stats.last_error(),
                    "processing_time": nanoseconds,
                    "average_processing_time": nanoseconds.checked_div(requests).unwrap_or(0),
                })
            })
            .collect();
        response
    }
}
