//! Durable consumers: what is there, and how to make it what it should be. Their configurations are kept as JSON, so that
//! a change keeps what natsctl does not know.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, JetStream, bucket_stream, patiently, refusal};
use crate::model::desired::{Consumer, ConsumerStart};

/// Key of the metadata by which natsctl knows the consumers that it made. Its value is the service.
const SERVICE: &str = "natsctl-service";

#[derive(Deserialize)]
struct Page {
    total: usize,
    limit: usize,
    consumers: Option<Vec<Info>>,
}

#[derive(Deserialize)]
struct Info {
    config: Value,
}

impl JetStream {
    /// The durable consumers of these streams, by stream and name.
    pub(super) async fn consumers(&self, streams: &[stream::Info]) -> Result<BTreeMap<String, Consumer>, Failure> {
        let mut found = BTreeMap::new();
        for stream in streams.iter().filter(|stream| stream.state.consumer_count > 0) {
            let stream = &stream.config.name;
            if stream.starts_with(&bucket_stream("")) {
                continue;
            }
            let mut offset = 0;
            loop {
                let request = json!({ "offset": offset });
                let page: Page = match self.request(&format!("CONSUMER.LIST.{stream}"), &request).await? {
                    Response::Ok(page) => page,
                    // It was deleted since it was listed.
                    Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => break,
                    Response::Err { error } => return Err(refusal(&error)),
                };
                let configs = page.consumers.iter().flatten().map(|info| &info.config);
                found.extend(configs.filter_map(|config| {
                    let name = config["durable_name"].as_str()?;
                    Some((format!("{stream}/{name}"), consumer(config)))
                }));
                offset += page.limit.max(1);
                if offset >= page.total {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Makes the durable consumer, or changes what differs. It goes on where it is. `name` is its stream and its name.
    pub async fn put_consumer(&self, name: &str, wanted: &Consumer, within: Duration) -> anyhow::Result<()> {
        let (stream, durable) = parts(name)?;
        let put = async || self.put_durable(stream, durable, wanted).await;
        patiently(put, within).await.with_context(|| format!("failed to put consumer `{name}`"))
    }

    async fn put_durable(&self, stream: &str, durable: &str, wanted: &Consumer) -> Result<(), Failure> {
        let existing: Response<Info> = self.request(&format!("CONSUMER.INFO.{stream}.{durable}"), &json!({})).await?;
        let (before, action) = match existing {
            Response::Ok(info) => (info.config, "update"),
            Response::Err { error } if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                (json!({ "deliver_policy": policy(wanted.start) }), "create")
            }
            Response::Err { error } => return Err(refusal(&error)),
        };
        let config = configured(before.clone(), durable, wanted);
        if config == before {
            return Ok(());
        }
        let request = json!({ "stream_name": stream, "config": config, "action": action });
        match self.request(&format!("CONSUMER.CREATE.{stream}.{durable}"), &request).await? {
            Response::Ok(Info { .. }) => Ok(()),
            Response::Err { error } => Err(refusal(&error)),
        }
    }

    /// Deletes a durable consumer. `name` is its stream and its name.
    pub async fn delete_consumer(&self, name: &str, within: Duration) -> anyhow::Result<()> {
        let (stream, durable) = parts(name)?;
        let delete = async || match self.request(&format!("CONSUMER.DELETE.{stream}.{durable}"), &json!({})).await? {
            Response::<Value>::Ok(_) => Ok(()),
            Response::Err { error }
                if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&error.error_code()) =>
            {
                Ok(())
            }
            Response::Err { error } => Err(refusal(&error)),
        };
        patiently(delete, within).await.with_context(|| format!("failed to delete consumer `{name}`"))
    }
}

fn parts(name: &str) -> anyhow::Result<(&str, &str)> {
    name.split_once('/').with_context(|| format!("`{name}` is not the name of a consumer: it has no stream"))
}

fn policy(start: ConsumerStart) -> &'static str {
    match start {
        ConsumerStart::All => "all",
        ConsumerStart::New => "new",
    }
}

/// The configuration with what is ours in it; the rest stays as it is.
fn configured(mut config: Value, durable: &str, wanted: &Consumer) -> Value {
    let Some(fields) = config.as_object_mut() else { return config };
    fields.remove("filter_subject");
    fields.remove("deliver_subject");
    fields.remove("deliver_group");
    let ours = [
        ("durable_name", json!(durable)),
        ("name", json!(durable)),
        ("ack_policy", json!("explicit")),
        ("replay_policy", json!("instant")),
        ("filter_subjects", json!(wanted.subjects)),
        ("ack_wait", json!(wanted.ack_wait_ms.saturating_mul(1_000_000))),
        ("max_ack_pending", json!(wanted.max_ack_pending)),
        ("max_deliver", json!(wanted.max_deliver)),
    ];
    fields.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    if let Some(metadata) = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
        metadata.extend(wanted.service.iter().map(|service| (SERVICE.to_owned(), json!(service))));
    }
    config
}

fn consumer(config: &Value) -> Consumer {
    let is_ours = config["deliver_subject"].is_null() && config["ack_policy"] == "explicit";
    let service = config["metadata"][SERVICE].as_str().filter(|_| is_ours);
    let listed = config["filter_subjects"].as_array().into_iter().flatten();
    let subjects = listed.chain([&config["filter_subject"]]).filter_map(Value::as_str).filter(|text| !text.is_empty());
    let mut subjects: Vec<String> = subjects.map(str::to_owned).collect();
    subjects.sort();
    Consumer {
        service: service.map(str::to_owned),
        subjects,
        start: if config["deliver_policy"] == "all" { ConsumerStart::All } else { ConsumerStart::New },
        ack_wait_ms: config["ack_wait"].as_u64().unwrap_or_default() / 1_000_000,
        max_ack_pending: config["max_ack_pending"].as_i64().unwrap_or_default(),
        max_deliver: config["max_deliver"].as_i64().unwrap_or(-1),
    }
}
