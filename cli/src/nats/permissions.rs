//! What each NATS user may publish and subscribe to, derived from the manifests and the protocol. Nothing else is
//! allowed.
//!
//! Replies are permitted by naming the inboxes of all callers. The server could do it by itself (`allow_responses`),
//! but it stores an entry for every reply that is still permitted and, past 4096 of them, scans all of them at each
//! message: ruinous for a worker.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::jetstream::{bucket_stream, bucket_subjects};
use crate::manifest::{Manifests, ServiceManifest};

/// The user that natsctl itself acts as: everything in the account.
pub const NATSCTL: &str = "natsctl";

/// The user for people and their tools: may call services and read what is stored.
pub const OPERATOR: &str = "operator";

/// The user of the remote task: a natsctl that runs inside the network for one that runs outside. It discovers services
/// and makes streams and buckets. Terraform's name for its secret ends in it.
pub const REMOTE_TASK: &str = "errand";

/// Inboxes of clients that choose none of their own: the users above.
pub(super) const DEFAULT_INBOX: &str = "_INBOX.>";

/// Subjects that a user may use; what is not named is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Subjects that it may publish to.
    pub publish: BTreeSet<String>,
    /// Subjects that it may subscribe to, each with an optional queue group after a space.
    pub subscribe: BTreeSet<String>,
}

impl Permissions {
    /// SHA-256, the same for the same permissions.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (verb, subjects) in [("publish", &self.publish), ("subscribe", &self.subscribe)] {
            for subject in subjects {
                hash.update(format!("{verb} {subject}\n"));
            }
        }
        HEXLOWER.encode(&hash.finalize())
    }

    fn may_publish<S: Into<String>>(&mut self, subjects: impl IntoIterator<Item = S>) {
        self.publish.extend(subjects.into_iter().map(Into::into));
    }

    fn may_subscribe<S: Into<String>>(&mut self, subjects: impl IntoIterator<Item = S>) {
        self.subscribe.extend(subjects.into_iter().map(Into::into));
    }
}

/// The permissions of every user: one for each service, [`OPERATOR`] and [`NATSCTL`].
pub fn users(manifests: &Manifests) -> BTreeMap<String, Permissions> {
    let services = manifests.services.values();
    let mut users: BTreeMap<String, Permissions> =
        services.map(|service| (service.name.to_string(), of_service(manifests, service))).collect();
    users.insert(OPERATOR.to_owned(), of_operator(manifests));
    let everything = || BTreeSet::from([">".to_owned()]);
    users.insert(NATSCTL.to_owned(), Permissions { publish: everything(), subscribe: everything() });
    users
}

/// The permissions of [`REMOTE_TASK`].
pub fn of_remote_task() -> Permissions {
    let mut permissions = Permissions::default();
    permissions.may_publish(["$SRV.PING.*"]);
    permissions.may_publish(["STREAM.LIST", "STREAM.INFO.*", "STREAM.CREATE.*", "STREAM.UPDATE.*"].map(api));
    permissions.may_subscribe([DEFAULT_INBOX]);
    permissions
}

fn of_service(manifests: &Manifests, service: &ServiceManifest) -> Permissions {
    let name = &*service.name;
    let mut permissions = Permissions::default();

    // Serves, and replies to its callers.
    let group = format!("svc-{name}-workers");
    let subjects = serves(service).map(|served| format!("{}.* {group}", served.subject));
    permissions.may_subscribe(subjects);
    if !service.serves.is_empty() {
        let callers = manifests.services.values();
        let callers = callers.filter(|caller| manifests.callees(caller).contains(name));
        permissions.may_publish(callers.map(|caller| inbox(&caller.name)));
    }

    // Calls, takes answers, and controls streams that it is sent.
    permissions.may_subscribe([inbox(name)]);
    for callee in manifests.callees(service) {
        let Some(callee) = manifests.services.get(&callee) else {
            continue;
        };
        let methods = serves(callee).flat_map(|served| served.methods);
        permissions.may_publish(methods.map(|method| method.subject));
        permissions.may_publish(streams(callee).then(|| inbox(&callee.name)));
    }

    // Can be discovered.
    for verb in ["PING", "INFO", "STATS"] {
        let subject = format!("$SRV.{verb}");
        permissions.may_subscribe([format!("{subject}.{name}.*"), format!("{subject}.{name}"), subject]);
    }
    permissions.may_publish([DEFAULT_INBOX]);

    permissions.may_publish(serves(service).map(|served| format!("{}.{}", served.subject, proto::rpc::FILLER)));
    permissions.may_publish(&service.publishes);
    permissions.may_publish(service.buckets.keys().flat_map(|bucket| uses_bucket(bucket)));
    for publisher in manifests.services.values() {
        if !publisher.publishes.is_disjoint(&service.consumes) {
            permissions.may_publish(consumes(&publisher.event_stream(), name));
        }
    }
    permissions
}

/// Calls any service, finds them, reads streams and buckets, and can change nothing that is stored.
fn of_operator(manifests: &Manifests) -> Permissions {
    let mut permissions = Permissions::default();
    permissions.may_publish(["svc.>", "$SRV.>"]);
    permissions.may_publish(
        [
            "INFO",
            "STREAM.INFO.>",
            "STREAM.LIST",
            "STREAM.NAMES",
            "STREAM.MSG.GET.>",
            "DIRECT.GET.>",
            "CONSUMER.INFO.>",
            "CONSUMER.LIST.>",
            "CONSUMER.NAMES.>",
            "CONSUMER.CREATE.>", // Reading a stream takes a consumer; one of one's own goes away by itself.
            "CONSUMER.MSG.NEXT.>",
        ]
        .map(api),
    );
    permissions.may_publish(["$JS.ACK.>", "$JS.FC.>"]);
    let streaming = manifests.services.values().filter(|service| streams(service));
    permissions.may_publish(streaming.map(|service| inbox(&service.name)));
    permissions.may_subscribe([DEFAULT_INBOX, "evt.>"]);
    permissions
}

fn serves(service: &ServiceManifest) -> impl Iterator<Item = &'static proto::rpc::Service> {
    let served = |known: &&&proto::rpc::Service| service.serves.contains(known.package);
    proto::SERVICES.iter().filter(served).copied()
}

fn streams(service: &ServiceManifest) -> bool {
    serves(service).flat_map(|served| served.methods).any(|method| method.streaming)
}

/// Answers and stream control for a service. A prefix of its own, so that no other service can subscribe.
fn inbox(service: &str) -> String {
    format!("_INBOX_{service}.>")
}

fn api(request: &str) -> String {
    format!("$JS.API.{request}")
}

/// Everything that a client of a bucket sends: reads, writes, and short-lived consumers for listings and watches.
fn uses_bucket(bucket: &str) -> Vec<String> {
    let stream = bucket_stream(bucket);
    let mut subjects = vec![
        bucket_subjects(bucket),
        api(&format!("STREAM.INFO.{stream}")),
        api(&format!("STREAM.MSG.GET.{stream}")),
        api(&format!("DIRECT.GET.{stream}")),
        api(&format!("DIRECT.GET.{stream}.>")),
        api(&format!("CONSUMER.CREATE.{stream}")),
        api(&format!("CONSUMER.CREATE.{stream}.>")),
        api(&format!("CONSUMER.INFO.{stream}.>")),
        api(&format!("CONSUMER.MSG.NEXT.{stream}.>")),
        api(&format!("CONSUMER.DELETE.{stream}.>")),
    ];
    subjects.extend(replies("ACK", &stream));
    subjects.extend(replies("FC", &stream));
    subjects
}

/// Everything that the only durable consumer of a service on one stream of events sends; it bears the service's name.
fn consumes(stream: &str, service: &str) -> Vec<String> {
    let consumer = format!("{stream}.{service}");
    let mut subjects = vec![
        api(&format!("STREAM.INFO.{stream}")),
        api(&format!("CONSUMER.CREATE.{consumer}")),
        api(&format!("CONSUMER.CREATE.{consumer}.>")),
        api(&format!("CONSUMER.INFO.{consumer}")),
        api(&format!("CONSUMER.MSG.NEXT.{consumer}")),
    ];
    subjects.extend(replies("ACK", &consumer));
    subjects
}

/// Where messages of a stream are answered. Newer servers can put domain and account before the stream.
fn replies(kind: &str, of: &str) -> [String; 2] {
    [format!("$JS.{kind}.{of}.>"), format!("$JS.{kind}.*.*.{of}.>")]
}

#[cfg(test)]
mod tests;
