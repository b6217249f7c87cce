//! What each NATS user may publish and subscribe to, and what its account shares with others, derived from the manifests
//! and the protocol. Nothing else is allowed.
//!
//! Replies are permitted by naming the inboxes of all callers. The server could do it by itself (`allow_responses`),
//! but it stores an entry for every reply that is still permitted and, past 4096 of them, scans all of them at each
//! message: ruinous for a worker.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::accounts::{Account, Accounts, Border, DISCOVERY, STORE};
use super::jetstream::{bucket_stream, bucket_subjects};
use crate::manifest::consumes::{self, Delivery};
use crate::manifest::{Manifests, ServiceManifest};
use crate::model::desired::Role;

/// The user that natsctl itself acts as: everything in [`STORE`].
pub const NATSCTL: &str = "natsctl";

/// The user for people and their tools: may call services and read what is stored.
pub const OPERATOR: &str = "operator";

/// The user of the remote task: a natsctl that runs inside the network for one that runs outside. It discovers services
/// and makes streams, buckets and consumers. Terraform's name for its secret ends in it.
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
}

/// The accounts of the fleet: one for each service and for [`OPERATOR`], and [`STORE`] with [`NATSCTL`].
pub fn accounts(manifests: &Manifests) -> Accounts {
    let mut accounts = accounts_with(manifests, &[STORE, OPERATOR], []);
    accounts.insert(OPERATOR.to_owned(), of_operator(manifests));
    accounts
}

/// The same with [`REMOTE_TASK`] in place of [`OPERATOR`]: people connect to an environment on AWS through natsctl. It is
/// in [`STORE`], as natsctl is, because nobody makes streams through an import.
pub fn accounts_on_aws(manifests: &Manifests) -> Accounts {
    accounts_with(manifests, &[STORE], [(REMOTE_TASK.to_owned(), of_remote_task())])
}

/// `tools` are the accounts of those who discover services, `helpers` the users beside natsctl's.
fn accounts_with(
    manifests: &Manifests,
    tools: &[&str],
    helpers: impl IntoIterator<Item = (String, Permissions)>,
) -> Accounts {
    let services = || manifests.services.values().filter(|service| service.role != Role::Standalone);
    let mut accounts: Accounts =
        services().map(|service| (service.name.to_string(), of_service(manifests, service, tools))).collect();
    let everything = || BTreeSet::from([">".to_owned()]);
    let natsctl = Permissions { publish: everything(), subscribe: everything() };
    let discovered = services().map(|service| service.name.to_string());
    let users = helpers.into_iter().chain([(NATSCTL.to_owned(), natsctl)]).collect();
    accounts.insert(STORE.to_owned(), Account::store(users, discovered));
    accounts
}

/// What a user may do: its permissions, and what crosses the border of its account for it.
#[derive(Default)]
struct Rights {
    permissions: Permissions,
    border: Border,
}

impl Rights {
    /// Publishes to other accounts.
    fn sends<S: Into<String>>(&mut self, subjects: impl IntoIterator<Item = S>) {
        for subject in subjects {
            let subject = subject.into();
            self.border.sends.insert(subject.clone());
            self.permissions.publish.insert(subject);
        }
    }

    /// Uses what is stored.
    fn stores<S: Into<String>>(&mut self, subjects: impl IntoIterator<Item = S>) {
        for subject in subjects {
            let subject = subject.into();
            self.border.stores.insert(subject.clone());
            self.permissions.publish.insert(subject);
        }
    }

    /// Takes what another account sends on a subject.
    fn hears(&mut self, account: &str, subject: impl Into<String>) {
        self.border.hears.insert((account.to_owned(), subject.into(), None));
    }

    fn subscribes<S: Into<String>>(&mut self, subjects: impl IntoIterator<Item = S>) {
        self.permissions.subscribe.extend(subjects.into_iter().map(Into::into));
    }

    fn account(self, user: &str) -> Account {
        Account::of(user, self.permissions, self.border)
    }
}

fn of_service(manifests: &Manifests, service: &ServiceManifest, tools: &[&str]) -> Account {
    let name = &*service.name;
    let mut rights = Rights::default();

    // Serves, and replies to its callers.
    let group = format!("svc-{name}-workers");
    rights.subscribes(serves(service).map(|served| format!("{}.> {group}", served.subject)));
    let fillers = serves(service).map(|served| format!("{}.{}", served.subject, proto::rpc::FILLER));
    rights.permissions.publish.extend(fillers);
    let callers = manifests.services.values().filter(|caller| manifests.callees(caller).contains(name));
    for caller in callers.filter(|_| !service.serves.is_empty()) {
        rights.sends([inbox(&caller.name)]);
        let methods = manifests.callable(caller, service);
        for method in &methods {
            rights.takes_call(&caller.name, method);
        }
        if methods.iter().any(|method| method.streaming) {
            rights.hears(&caller.name, control(name));
        }
    }
    if tools.contains(&OPERATOR) {
        for method in methods(service) {
            rights.takes_call(OPERATOR, method);
        }
        if streams(service) {
            rights.hears(OPERATOR, control(name));
        }
    }
    rights.subscribes(streams(service).then(|| control(name)));

    // Calls, takes answers, and controls streams that it is sent.
    rights.subscribes([inbox(name)]);
    for callee in manifests.callees(service) {
        let Some(callee) = manifests.services.get(&callee) else {
            continue;
        };
        let methods = manifests.callable(service, callee);
        rights.sends(methods.iter().map(|method| method.subject));
        rights.sends(methods.iter().any(|method| method.streaming).then(|| control(&callee.name)));
        rights.hears(&callee.name, inbox(name));
    }

    // Can be discovered.
    for verb in ["PING", "INFO", "STATS"] {
        let subject = format!("$SRV.{verb}");
        rights.subscribes([format!("{subject}.{name}.*"), format!("{subject}.{name}"), subject]);
    }
    for account in tools {
        rights.hears(account, DISCOVERY);
    }
    rights.sends([DEFAULT_INBOX]);

    // Stores.
    rights.stores(&service.publishes);
    rights.stores(service.buckets.keys().flat_map(|bucket| uses_bucket(bucket)));
    rights.stores(service.buckets.keys().flat_map(|bucket| writes_events(bucket, &service.publishes)));
    for (event, settings) in &service.consumes {
        let publishers = manifests.services.values().filter(|other| other.publishes.contains(&**event));
        for stream in publishers.map(ServiceManifest::event_stream) {
            match settings.delivery {
                Delivery::Shared => rights.stores(uses_consumer(&stream, &consumes::durable(name, event))),
                Delivery::EveryTask => rights.stores(reads_stream(&stream)),
            }
        }
    }
    rights.stores(service.shared_events().map(|(event, _)| consumes::dead_letters(name, event)));
    if !rights.border.stores.is_empty() {
        rights.stores([api("INFO")]);
    }
    rights.account(name)
}

impl Rights {
    /// Takes calls of a method by a caller, whose name the servers append to the subject.
    fn takes_call(&mut self, caller: &str, method: &proto::rpc::Method) {
        let local = format!("{}.{caller}", method.subject);
        self.border.hears.insert((caller.to_owned(), method.subject.to_owned(), Some(local)));
    }

    /// Discovers all services.
    fn discovers(&mut self, manifests: &Manifests) {
        self.sends([DISCOVERY]);
        self.subscribes([DEFAULT_INBOX]);
        for service in manifests.services.values() {
            self.hears(&service.name, DEFAULT_INBOX);
        }
    }
}

/// Calls any service, finds them, reads streams and buckets, and can change nothing that is stored. It has no consumers:
/// one that delivers to a subject writes there with all rights of [`STORE`].
fn of_operator(manifests: &Manifests) -> Account {
    let mut rights = Rights::default();
    rights.sends(["svc.>"]);
    rights.discovers(manifests);
    let reads = [
        "INFO",
        "STREAM.LIST",
        "STREAM.NAMES",
        "STREAM.INFO.*",
        "STREAM.MSG.GET.*",
        "DIRECT.GET.*",
        "DIRECT.GET.*.>",
        "CONSUMER.LIST.*",
        "CONSUMER.NAMES.*",
        "CONSUMER.INFO.*.*",
    ];
    rights.stores(reads.map(api));
    let streaming = manifests.services.values().filter(|service| streams(service));
    rights.sends(streaming.map(|service| control(&service.name)));
    rights.account(OPERATOR)
}

/// Discovers services, and makes streams, buckets and consumers.
fn of_remote_task() -> Permissions {
    let streams = [
        "STREAM.LIST",
        "STREAM.INFO.*",
        "STREAM.CREATE.*",
        "STREAM.UPDATE.*",
        "CONSUMER.LIST.*",
        "CONSUMER.INFO.*.*",
        "CONSUMER.CREATE.*.*",
        "CONSUMER.CREATE.*.*.>",
        "CONSUMER.DELETE.*.*",
    ]
    .map(api);
    Permissions {
        publish: streams.into_iter().chain(["$SRV.PING.*".to_owned()]).collect(),
        subscribe: BTreeSet::from([DEFAULT_INBOX.to_owned()]),
    }
}

fn serves(service: &ServiceManifest) -> impl Iterator<Item = &'static proto::rpc::Service> {
    let served = |known: &&&proto::rpc::Service| service.serves.contains(known.package);
    proto::SERVICES.iter().filter(served).copied()
}

fn methods(service: &ServiceManifest) -> impl Iterator<Item = &'static proto::rpc::Method> {
    serves(service).flat_map(|served| served.methods)
}

fn streams(service: &ServiceManifest) -> bool {
    methods(service).any(|method| method.streaming)
}

/// Answers for a service.
fn inbox(service: &str) -> String {
    format!("_INBOX_{service}.>")
}

/// Where a service that streams takes credit from its callers. Not its inbox, or they could forge its answers.
fn control(service: &str) -> String {
    format!("_STREAM_{service}.>")
}

fn api(request: &str) -> String {
    format!("$JS.API.{request}")
}

/// Everything that a client of a bucket sends to read, write and list. It makes no consumers, with which it could do more.
fn uses_bucket(bucket: &str) -> Vec<String> {
    let stream = bucket_stream(bucket);
    vec![
        bucket_subjects(bucket),
        api(&format!("STREAM.INFO.{stream}")),
        api(&format!("STREAM.MSG.GET.{stream}")),
        api(&format!("DIRECT.GET.{stream}")),
        api(&format!("DIRECT.GET.{stream}.>")),
    ]
}

/// Everything that is sent to write a value of a bucket together with one of these events. The id of the event comes before
/// its subject.
fn writes_events(bucket: &str, events: &BTreeSet<String>) -> impl Iterator<Item = String> {
    events.iter().map(move |event| format!("outbox.{bucket}.*.{event}"))
}

/// Everything that a durable consumer takes, which natsctl makes.
fn uses_consumer(stream: &str, durable: &str) -> Vec<String> {
    let consumer = format!("{stream}.{durable}");
    vec![
        api(&format!("CONSUMER.INFO.{consumer}")),
        api(&format!("CONSUMER.MSG.NEXT.{consumer}")),
        // Newer servers can put domain and account before the stream.
        format!("$JS.ACK.{consumer}.>"),
        format!("$JS.ACK.*.*.{consumer}.>"),
    ]
}

/// Reads the messages of a stream one by one, without a consumer.
fn reads_stream(stream: &str) -> Vec<String> {
    vec![api(&format!("STREAM.INFO.{stream}")), api(&format!("STREAM.MSG.GET.{stream}"))]
}

#[cfg(test)]
mod attempts;
#[cfg(test)]
mod concurrent;
#[cfg(test)]
mod tests;
