//! The DynamoDB table of an environment: the lock, what was last deployed, and the history.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Aws;
use super::error::failed;
use crate::model::desired::{Definition, Identity};
use crate::model::ecs::Autoscaling;
use crate::pipeline::history::Record;

/// Longer texts are compressed.
const READABLE: usize = 64 << 10;
/// How long DynamoDB keeps the record of a run.
const RECORD_LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(400 * 24);

/// The table; partition key `pk`, sort key `sk`, both texts.
#[derive(Clone)]
pub(super) struct Ledger {
    pub(super) client: aws_sdk_dynamodb::Client,
    pub(super) table: String,
}

/// What was last deployed. It can be lost: it saves calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// By service.
    pub(crate) services: BTreeMap<String, DeployedService>,
    /// The streams and buckets that were last put, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assets: Option<String>,
    /// When the identities on NATS were last ensured, and with which permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identities: Option<Ensured>,
    /// What the identities on NATS were then, by user.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) identity_specs: BTreeMap<String, Identity>,
    /// When the NATS nodes were last as described, and how they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nats: Option<Ensured>,
}

/// When something was ensured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ensured {
    /// Of the desired state.
    pub(crate) digest: String,
    pub(crate) at: jiff::Timestamp,
}

/// What was last deployed of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeployedService {
    /// Its name on ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ecs_name: Option<String>,
    /// ARN of its task definition, which never changes.
    pub(crate) task_definition: String,
    /// Digest of the definition that it was made of.
    pub(crate) definition: String,
    /// What it reports on the bus.
    pub(crate) version: String,
    /// Its image, with the digest.
    pub(crate) image: String,
    /// What names the content of the image, if it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// Number of tasks in the manifest.
    pub(crate) declared_tasks: u32,
    /// Scalable target and policies that were put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) autoscaling: Option<Autoscaling>,
}

/// The same for the same definition.
pub(crate) fn digest(definition: &Definition) -> String {
    use sha2::Digest as _;
    let text = serde_json::to_vec(definition).unwrap_or_default();
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(text))
}

impl Ledger {
    /// The ledger of the environment.
    pub(super) fn of(aws: &Aws) -> Self {
        Self { client: aws.clients.dynamodb().clone(), table: aws.handover.ledger.clone() }
    }

    /// What was last deployed.
    pub(crate) async fn state(&self) -> anyhow::Result<State> {
        let item = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = item.key("pk", text("state")).key("sk", text("services")).send().await;
        let answer = answer.map_err(|error| failed(&format!("read the ledger `{}`", self.table), error))?;
        answer.item().map_or_else(|| Ok(State::default()), json)
    }

    /// Writes what was deployed.
    pub(crate) async fn put_state(&self, state: &State) -> anyhow::Result<()> {
        let item =
            self.client.put_item().table_name(&self.table).item("pk", text("state")).item("sk", text("services"));
        let put = item.item("json", packed(state)?).send().await;
        put.map_err(|error| failed(&format!("write the ledger `{}`", self.table), error)).map(drop)
    }

    /// Writes a run as it is now.
    pub(crate) async fn put_record(&self, record: &Record) -> anyhow::Result<()> {
        let expires = record.started.checked_add(RECORD_LIFETIME)?.as_second();
        let item = self.client.put_item().table_name(&self.table).item("pk", text("run")).item("sk", text(&record.id));
        let item = item.item("json", packed(record)?).item("expires", number(expires));
        item.send().await.map_err(|error| failed(&format!("write the ledger `{}`", self.table), error)).map(drop)
    }

    /// The last runs, the newest first.
    pub(crate) async fn records(&self, limit: i32) -> anyhow::Result<Vec<Record>> {
        let query = self.client.query().table_name(&self.table).consistent_read(true).limit(limit);
        let query = query.key_condition_expression("pk = :run").expression_attribute_values(":run", text("run"));
        let answer = query.scan_index_forward(false).send().await;
        let answer = answer.map_err(|error| failed(&format!("read the ledger `{}`", self.table), error))?;
        answer.items().iter().map(json).collect()
    }
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// JSON as an item holds it: as it is while it is short, so that people can read it, and compressed beyond. DynamoDB takes 400 KB,
/// which a thousand services would exceed.
fn packed(value: &impl Serialize) -> anyhow::Result<AttributeValue> {
    let json = serde_json::to_string(value)?;
    if json.len() <= READABLE {
        return Ok(text(json));
    }
    Ok(AttributeValue::B(Blob::new(zstd::encode_all(json.as_bytes(), 0)?)))
}

fn json<T: DeserializeOwned>(item: &HashMap<String, AttributeValue>) -> anyhow::Result<T> {
    let damaged = "an item of the ledger is damaged; natsctl of another version may have written it";
    match item.get("json") {
        Some(AttributeValue::S(text)) => serde_json::from_str(text).context(damaged),
        Some(AttributeValue::B(bytes)) => {
            serde_json::from_slice(&zstd::decode_all(bytes.as_ref()).context(damaged)?).context(damaged)
        }
        _ => Err(anyhow::anyhow!(damaged)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(services: usize) -> State {
        let known = |number: usize| DeployedService {
            ecs_name: Some(format!("service-{number}-nats")),
            task_definition: format!("arn:aws:ecs:us-east-1:123456789012:task-definition/service-{number}-nats:7"),
            definition: format!("{number:064x}"),
            version: "0.1.0+0123456789ab".to_owned(),
            image: format!("123456789012.dkr.ecr.us-east-1.amazonaws.com/x/service-{number}@sha256:{number:064x}"),
            tag: Some(format!("{number:016x}")),
            declared_tasks: 2,
            autoscaling: None,
        };
        let services = (0..services).map(|number| (format!("service-{number}"), known(number)));
        State { services: services.collect(), ..State::default() }
    }

    #[test]
    fn a_fleet_of_a_thousand_fits_into_an_item() {
        for services in [0, 23, 1000] {
            let state = state(services);
            let value = packed(&state).unwrap();
            let size = match &value {
                AttributeValue::S(text) => text.len(),
                AttributeValue::B(bytes) => bytes.as_ref().len(),
                _ => unreachable!(),
            };
            assert!(size < 200_000, "{services} services: {size} bytes");
            assert_eq!(json::<State>(&HashMap::from([("json".to_owned(), value)])).unwrap(), state);
        }
        assert!(json::<State>(&HashMap::from([("json".to_owned(), text("{"))])).is_err());
    }
}
