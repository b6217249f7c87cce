//! Streams, buckets and consumers: what is there, and how to make it what it should be.

mod consumers;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, Source, StorageType, SubjectTransform};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, jetstream};
use futures::TryStreamExt;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::error::Hinted;
use crate::model::desired::{Bucket, Stream};
use crate::model::observed::Assets;

/// JetStream of the account that the client belongs to.
#[derive(Clone)]
pub struct JetStream {
    context: Context,
}

/// One request waits this long: without a leader there is no answer, and asking again finds the new one.
const PATIENCE: Duration = Duration::from_millis(750);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long all replicas of a new stream are waited for.
const COMPLETE: Duration = Duration::from_secs(5);
/// What a server says that cannot store a stream, and does not say why.
const NO_STORE: &str = "error creating store for stream";
/// Longest time for which a bucket remembers a message id.
const BUCKET_WINDOW: Duration = Duration::from_secs(120);

/// In the metadata of a bucket's stream: for how many seconds it keeps the events of its outbox. The SDK reads it.
const OUTBOX_SECONDS: &str = "outbox_seconds";

/// What the name of the stream behind a bucket begins with.
const BUCKET_PREFIX: &str = "KV_";

/// The stream behind a bucket.
pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("{BUCKET_PREFIX}{bucket}")
}

/// The subjects of all keys of a bucket.
pub(super) fn bucket_subjects(bucket: &str) -> String {
    format!("$KV.{bucket}.>")
}

impl JetStream {
    /// Uses the client's account.
    pub fn new(client: Client) -> Self {
        let mut context = jetstream::new(client);
        context.set_timeout(PATIENCE);
        Self { context }
    }

    /// Everything that is there, also what natsctl did not make.
    pub async fn observe(&self, within: Duration) -> anyhow::Result<Assets> {
        let mut assets = Assets::default();
        let listing = async || {
            let listed: Vec<stream::Info> = self.context.streams().try_collect().await.map_err(unavailable)?;
            let consumers = self.consumers(&listed).await?;
            assets = listed.into_iter().map(|info| info.config).collect();
            assets.consumers = consumers;
            Ok(())
        };
        patiently(listing, within).await.context("failed to list the streams")?;
        Ok(assets)
    }

    /// Names of all streams that the meta leader knows of, also of those that no server can say more of.
    pub async fn names(&self, within: Duration) -> anyhow::Result<BTreeSet<String>> {
        let listed = timeout_at(Instant::now() + within, self.context.stream_names().try_collect()).await;
        let listed = listed.context("the meta leader does not answer")?;
        listed.context("failed to list the names of the streams")
    }

    /// Makes the stream, or changes what differs. Messages that it holds stay.
    pub async fn put_stream(&self, name: &str, wanted: &Stream, within: Duration) -> anyhow::Result<()> {
        let put = async || self.put(name, |config| stream_config(config, wanted)).await;
        patiently(put, within).await.with_context(|| format!("failed to put stream `{name}`"))
    }

    /// Makes the bucket, or changes what differs. Values that it holds stay.
    pub async fn put_bucket(&self, name: &str, wanted: &Bucket, within: Duration) -> anyhow::Result<()> {
        let stream = bucket_stream(name);
        let put = async || self.put(&stream, |config| bucket_config(config, name, wanted)).await;
        patiently(put, within).await.with_context(|| format!("failed to put bucket `{name}`"))
    }

    async fn put(&self, name: &str, configure: impl Fn(stream::Config) -> stream::Config) -> Result<(), Failure> {
        let existing: Response<stream::Info> = self.request(&format!("STREAM.INFO.{name}"), &json!({})).await?;
        let (verb, wanted) = match existing {
            Response::Ok(info) => {
                let wanted = configure(info.config.clone());
                if wanted == info.config {
                    return Ok(());
                }
                ("UPDATE", wanted)
            }
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                ("CREATE", configure(stream::Config { name: name.to_owned(), ..stream::Config::default() }))
            }
            Response::Err { error } => return Err(refusal(&error)),
        };
        match self.request(&format!("STREAM.{verb}.{name}"), &wanted).await? {
            Response::Ok(stream::Info { .. }) if verb == "CREATE" => self.until_complete(name).await,
            Response::Ok(stream::Info { .. }) => Ok(()),
            Response::Err { error } => Err(refusal(&error)),
        }
    }

    /// Waits until all replicas of a new stream are there. A server that is assigned one while it still reads the account rejects it,
    /// and the meta leader then deletes the stream, although its creation was confirmed (nats-server 2.15.1).
    async fn until_complete(&self, name: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + COMPLETE;
        loop {
            match self.request(&format!("STREAM.INFO.{name}"), &json!({})).await? {
                Response::Ok(info) if is_complete(&info) => return Ok(()),
                // It has a quorum, and catches up.
                Response::Ok(_) if Instant::now() >= deadline => return Ok(()),
                Response::Ok(_) => tokio::time::sleep(PAUSE / 2).await,
                Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    return Err(unavailable("a server has rejected its replica of the new stream"));
                }
                Response::Err { error } => return Err(refusal(&error)),
            }
        }
    }

    async fn request<T: serde::de::DeserializeOwned>(
        &self,
        subject: &str,
        payload: &impl serde::Serialize,
    ) -> Result<Response<T>, Failure> {
        let answer = self.context.request(subject.to_owned(), payload).await;
        answer.map_err(unavailable)
    }
}

/// Whether a stream has a leader, and every replica has what the leader has.
fn is_complete(info: &stream::Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let current = cluster.replicas.iter().filter(|replica| replica.current && !replica.offline).count();
    cluster.leader.is_some() && current + 1 >= info.config.num_replicas.max(1)
}

/// Tries again until there is an answer, since the meta leader may be moving, or until the time is over.
async fn patiently(mut attempt: impl AsyncFnMut() -> Result<(), Failure>, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let mut reason = "no answer".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failure::Refused(error))) => return Err(error.into()),
            Ok(Err(Failure::Unavailable(last))) if Instant::now() + PAUSE < deadline => reason = last,
            Ok(Err(Failure::Unavailable(last))) => return Err(without_quorum(&last).into()),
            Err(_) => return Err(without_quorum(&reason).into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn without_quorum(reason: &str) -> Hinted {
    let hint = "a majority of the servers must run: see `natsctl nats status`";
    Hinted::new(format!("JetStream is not available: {reason}"), hint)
}

impl FromIterator<stream::Config> for Assets {
    fn from_iter<I: IntoIterator<Item = stream::Config>>(configs: I) -> Self {
        let mut assets = Self::default();
        for config in configs {
            match config.name.strip_prefix(BUCKET_PREFIX) {
                Some(name) => assets.buckets.insert(name.to_owned(), bucket(name, &config)).is_some(),
                None => assets.streams.insert(config.name.clone(), stream(&config)).is_some(),
            };
        }
        assets
    }
}

/// Why an attempt failed, as far as trying again depends on it.
enum Failure {
    /// No server could answer, which passes.
    Unavailable(String),
    /// A server refused, and will again.
    Refused(Hinted),
}

fn refusal(error: &jetstream::Error) -> Failure {
    let passing = [
        ErrorCode::CLUSTER_NOT_AVAILABLE,
        ErrorCode::CLUSTER_NOT_LEADER,
        ErrorCode::CLUSTER_NOT_ACTIVE,
        ErrorCode::CLUSTER_NO_PEERS,
        ErrorCode::CLUSTER_INCOMPLETE,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STREAM_OFFLINE,
        ErrorCode::STREAM_TOO_MANY_REQUESTS,
        // A server that has just started may not have read the account yet.
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ];
    // The same, a moment later: it has read the account, and has no folder for it yet.
    let has_no_folder = error.error_code() == ErrorCode::STREAM_CREATE && error.to_string().contains(NO_STORE);
    if has_no_folder || passing.contains(&error.error_code()) {
        return unavailable(error);
    }
    let hint = match error.error_code() {
        ErrorCode::STREAM_SUBJECT_OVERLAP => "another stream has one of its subjects: see `nats stream ls --subject`",
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => "one server cannot keep several replicas; it needs a cluster",
        ErrorCode::JETSTREAM_NOT_ENABLED => "the servers run without JetStream; `natsctl deploy --all` configures them",
        _ => "what the server keeps cannot be changed into this; see its log",
    };
    Failure::Refused(Hinted::new(error.to_string(), hint))
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::Unavailable(error.to_string())
}

/// What the subjects of events begin with.
const EVENTS: &str = "evt";
/// What the subjects of audit events begin with.
const AUDIT: &str = "audit";

/// How a stream takes events over from the outbox of a bucket. It stays the same whatever events there are: a stream whose
/// source is changed takes everything over once more.
fn outbox_source(bucket: &str, prefix: &str) -> Source {
    let subjects = format!("{prefix}.>");
    let transform = SubjectTransform { source: format!("outbox.{bucket}.*.{subjects}"), destination: subjects };
    Source { name: bucket_stream(bucket), subject_transforms: vec![transform], ..Source::default() }
}

/// The bucket from whose outbox a source takes events over, if it is such a source.
fn outbox_of(source: &Source) -> Option<&str> {
    let bucket = source.name.strip_prefix(BUCKET_PREFIX)?;
    [EVENTS, AUDIT].into_iter().any(|prefix| *source == outbox_source(bucket, prefix)).then_some(bucket)
}

/// What the subjects of a stream's events begin with.
fn events_prefix(stream: &Stream) -> &'static str {
    if stream.subjects.iter().any(|subject| proto::naming::is_audit(subject)) { AUDIT } else { EVENTS }
}

/// The sources of a stream with those from outboxes that are wanted; the others stay.
fn sources(existing: Option<Vec<Source>>, stream: &Stream) -> Option<Vec<Source>> {
    let wanted = &stream.outboxes;
    let names: BTreeSet<String> = wanted.iter().map(|bucket| bucket_stream(bucket)).collect();
    let is_other = |source: &Source| outbox_of(source).is_none() && !names.contains(&source.name);
    let others = existing.into_iter().flatten().filter(is_other);
    let sources: Vec<Source> =
        others.chain(wanted.iter().map(|bucket| outbox_source(bucket, events_prefix(stream)))).collect();
    (!sources.is_empty()).then_some(sources)
}

/// The configuration with what is ours in it; the rest stays as it is.
fn stream_config(mut existing: stream::Config, wanted: &Stream) -> stream::Config {
    stream::Config {
        sources: sources(existing.sources.take(), wanted),
        subjects: wanted.subjects.clone(),
        num_replicas: wanted.replicas,
        max_age: Duration::from_secs(wanted.max_age_seconds),
        duplicate_window: Duration::from_secs(wanted.duplicate_window_seconds),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        allow_direct: true,
        ..unlimited(existing)
    }
}

/// As every client of key-value buckets expects the stream behind one to be.
fn bucket_config(mut existing: stream::Config, name: &str, wanted: &Bucket) -> stream::Config {
    let ttl = Duration::from_secs(wanted.ttl_seconds);
    let has_outbox = wanted.outbox_seconds > 0;
    existing.metadata.remove(OUTBOX_SECONDS);
    if has_outbox {
        existing.metadata.insert(OUTBOX_SECONDS.to_owned(), wanted.outbox_seconds.to_string());
    }
    let outbox = has_outbox.then(|| Bucket::outbox_subjects(name));
    stream::Config {
        subjects: [bucket_subjects(name)].into_iter().chain(outbox).collect(),
        allow_atomic_publish: has_outbox,
        // Once it is on, servers refuse to switch it off.
        allow_message_ttl: has_outbox || existing.allow_message_ttl,
        num_replicas: wanted.replicas,
        max_messages_per_subject: wanted.history,
        max_age: ttl,
        // Must not be longer than a value lives.
        duplicate_window: if ttl.is_zero() { BUCKET_WINDOW } else { ttl.min(BUCKET_WINDOW) },
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..unlimited(existing)
    }
}

/// What servers make of limits that are not set.
fn unlimited(config: stream::Config) -> stream::Config {
    let or_none = |limit: i64| if limit == 0 { -1 } else { limit };
    stream::Config {
        max_bytes: or_none(config.max_bytes),
        max_messages: or_none(config.max_messages),
        max_messages_per_subject: or_none(config.max_messages_per_subject),
        max_message_size: if config.max_message_size == 0 { -1 } else { config.max_message_size },
        max_consumers: if config.max_consumers == 0 { -1 } else { config.max_consumers },
        ..config
    }
}

fn stream(config: &stream::Config) -> Stream {
    let mut subjects = config.subjects.clone();
    subjects.sort();
    Stream {
        subjects,
        replicas: config.num_replicas,
        max_age_seconds: config.max_age.as_secs(),
        duplicate_window_seconds: config.duplicate_window.as_secs(),
        outboxes: config.sources.iter().flatten().filter_map(outbox_of).map(str::to_owned).collect(),
    }
}

fn bucket(name: &str, config: &stream::Config) -> Bucket {
    let seconds = config.metadata.get(OUTBOX_SECONDS).and_then(|text| text.parse().ok());
    let is_complete = config.allow_atomic_publish
        && config.allow_message_ttl
        && config.subjects.contains(&Bucket::outbox_subjects(name));
    Bucket {
        outbox_seconds: seconds.filter(|_| is_complete).unwrap_or_default(),
        replicas: config.num_replicas,
        history: config.max_messages_per_subject,
        ttl_seconds: config.max_age.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_stream_is_complete_when_every_replica_has_what_its_leader_has() {
        let check = |cluster: Value, expected: bool| {
            let config = json!({ "name": "S", "num_replicas": 3, "retention": "limits", "storage": "file", "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0 });
            let state = json!({ "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z", "last_seq": 0, "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0 });
            let info =
                json!({ "config": config, "created": "2026-01-01T00:00:00Z", "state": state, "cluster": cluster });
            assert_eq!(is_complete(&serde_json::from_value(info).unwrap()), expected, "{cluster}");
        };
        let peer = |name: &str, current: bool| json!({ "name": name, "current": current, "active": 1 });
        check(json!({ "name": "c", "leader": "a", "replicas": [peer("b", true), peer("c", true)] }), true);
        check(json!({ "name": "c", "leader": "a", "replicas": [peer("b", true), peer("c", false)] }), false);
        check(json!({ "name": "c", "leader": "a", "replicas": [peer("b", true)] }), false);
        check(json!({ "name": "c", "replicas": [peer("a", true), peer("b", true), peer("c", true)] }), false);
        check(Value::Null, true);
    }
}
