//! The accounts of a fleet: which messages reach whom.
//!
//! Permissions of users bound what a user publishes, but not which reply subject it names; whoever answers publishes
//! there with rights of its own, and JetStream with all rights in its account. Therefore each service has an account of
//! its own, so that nothing but what is imported can be reached, however a message is made:
//!
//! - Calls, answers and discovery are *streams* that one account exports and another imports. They cost the servers
//!   nothing per request. A call arrives under its subject and the name of the account that made it.
//! - What is stored is in [`STORE`], which exports the API of JetStream as *services*: the server replaces the reply
//!   subject, so an answer reaches only the account that asked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::permissions::{DEFAULT_INBOX, Permissions};

/// The account with JetStream, in which natsctl alone has users.
pub const STORE: &str = "STORE";

/// The account in which servers answer questions about themselves.
pub const SYSTEM: &str = "SYS";

/// Accounts by name.
pub type Accounts = BTreeMap<String, Account>;

/// What one account shares with others, and who is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Whether it may store anything.
    pub storage: Storage,
    /// What others may import.
    pub exports: BTreeSet<Export>,
    /// What it takes from others.
    pub imports: BTreeSet<Import>,
    /// The permissions of its users by name.
    pub users: BTreeMap<String, Permissions>,
}

/// Whether an account has JetStream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// It has no streams, and its users cannot reach JetStream except by imports.
    #[default]
    None,
    /// Without a limit of its own.
    JetStream,
}

/// Subjects that other accounts may import.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Export {
    /// May have wildcards. No two exports of one kind may overlap.
    pub subject: String,
    /// How it is used.
    pub kind: Kind,
}

/// Subjects of another account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The account that exports them.
    pub account: String,
    /// The subject there.
    pub subject: String,
    /// The subject here, if it is another one.
    pub local_subject: Option<String>,
    /// As it is exported.
    pub kind: Kind,
}

/// How messages cross from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// They are published in the exporting account and heard in the importing one, with their reply subject.
    Stream,
    /// They are published in the importing account and answered once in the exporting one.
    Service,
    /// The same, with any number of answers. The servers keep an entry for each request for some minutes.
    ServiceOfMany,
}

/// The parts of JetStream's API, the buckets and the subjects of streams that accounts may import from [`STORE`].
const STORE_SERVICES: &[(&str, Kind)] = &[
    ("$JS.API.INFO", Kind::Service),
    ("$JS.API.STREAM.LIST", Kind::Service),
    ("$JS.API.STREAM.NAMES", Kind::Service),
    ("$JS.API.STREAM.INFO.*", Kind::Service),
    ("$JS.API.STREAM.MSG.GET.*", Kind::Service),
    ("$JS.API.DIRECT.GET.*", Kind::ServiceOfMany),
    ("$JS.API.DIRECT.GET.*.>", Kind::Service),
    ("$JS.API.CONSUMER.LIST.*", Kind::Service),
    ("$JS.API.CONSUMER.NAMES.*", Kind::Service),
    ("$JS.API.CONSUMER.INFO.*.*", Kind::Service),
    ("$JS.API.CONSUMER.MSG.NEXT.*.*", Kind::ServiceOfMany),
    ("$JS.ACK.>", Kind::Service),
    ("$KV.>", Kind::Service),
    ("outbox.>", Kind::Service),
    ("evt.>", Kind::Service),
    ("audit.>", Kind::Service),
    ("dlq.>", Kind::Service),
];

/// Discovery requests.
pub(super) const DISCOVERY: &str = "$SRV.>";

/// What crosses the border of one account.
#[derive(Clone, Debug, Default)]
pub(super) struct Border {
    /// Subjects that it sends to other accounts.
    pub(super) sends: BTreeSet<String>,
    /// Subjects that it takes from other accounts: the account, the subject there, and the subject here if it differs.
    pub(super) hears: BTreeSet<(String, String, Option<String>)>,
    /// Subjects of [`STORE`] that it uses.
    pub(super) stores: BTreeSet<String>,
}

impl Account {
    /// The account of one user.
    pub(super) fn of(user: &str, permissions: Permissions, border: Border) -> Self {
        let heard = border.hears.into_iter().map(|(account, subject, local_subject)| Import {
            account,
            subject,
            local_subject,
            kind: Kind::Stream,
        });
        let stored = border.stores.into_iter().map(|subject| Import {
            account: STORE.to_owned(),
            kind: kind_in_store(&subject),
            subject,
            local_subject: None,
        });
        Self {
            storage: Storage::None,
            exports: border.sends.into_iter().map(|subject| Export { subject, kind: Kind::Stream }).collect(),
            imports: heard.chain(stored).collect(),
            users: BTreeMap::from([(user.to_owned(), permissions)]),
        }
    }

    /// [`STORE`], which discovers services in these accounts.
    pub(super) fn store(users: BTreeMap<String, Permissions>, discovered: impl IntoIterator<Item = String>) -> Self {
        let services =
            STORE_SERVICES.iter().map(|(subject, kind)| Export { subject: (*subject).to_owned(), kind: *kind });
        let discovery = Export { subject: DISCOVERY.to_owned(), kind: Kind::Stream };
        let answers = discovered.into_iter().map(|account| Import {
            account,
            subject: DEFAULT_INBOX.to_owned(),
            local_subject: None,
            kind: Kind::Stream,
        });
        Self {
            storage: Storage::JetStream,
            exports: services.chain([discovery]).collect(),
            imports: answers.collect(),
            users,
        }
    }

    /// What its JWT says. `id` gives the public key of an account.
    pub(super) fn claims(&self, id: impl Fn(&str) -> String) -> Value {
        let storage = match self.storage {
            Storage::None => 0,
            Storage::JetStream => -1,
        };
        let exports: Vec<Value> = self.exports.iter().map(Export::claims).collect();
        let imports: Vec<Value> = self.imports.iter().map(|import| import.claims(&id(&import.account))).collect();
        json!({
            "imports": imports,
            "exports": exports,
            "limits": {
                "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1,
                "imports": -1, "exports": -1, "wildcards": true,
                "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
            },
            "default_permissions": { "pub": {}, "sub": {} },
            "type": "account",
            "version": 2,
        })
    }
}

/// SHA-256 of what accounts share, in hexadecimal, whatever their keys.
pub fn digest(accounts: &Accounts) -> String {
    let claims: BTreeMap<&String, Value> =
        accounts.iter().map(|(name, account)| (name, account.claims(str::to_owned))).collect();
    data_encoding::HEXLOWER.encode(&Sha256::digest(json!(claims).to_string()))
}

/// How a subject of [`STORE`] is exported.
fn kind_in_store(subject: &str) -> Kind {
    let contains = |(exported, _): &&(&str, Kind)| covers(exported, subject);
    STORE_SERVICES.iter().find(contains).map_or(Kind::Service, |(_, kind)| *kind)
}

/// Whether all subjects that match `subject` match `pattern`.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

impl Export {
    fn claims(&self) -> Value {
        match self.kind {
            Kind::Stream => json!({ "name": self.subject, "subject": self.subject, "type": "stream" }),
            Kind::Service => json!({ "name": self.subject, "subject": self.subject, "type": "service" }),
            Kind::ServiceOfMany => {
                json!({ "name": self.subject, "subject": self.subject, "type": "service", "response_type": "Stream" })
            }
        }
    }
}

impl Import {
    fn claims(&self, account: &str) -> Value {
        let kind = if self.kind == Kind::Stream { "stream" } else { "service" };
        let name = format!("{} of {}", self.subject, self.account);
        let mut claims = json!({ "name": name, "subject": self.subject, "account": account, "type": kind });
        if let Some(local_subject) = &self.local_subject {
            claims["local_subject"] = local_subject.as_str().into();
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, subject: &str, expected: bool) {
        assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
    }

    #[test]
    fn a_pattern_covers_what_it_matches() {
        check("$KV.>", "$KV.quests.>", true);
        check("$KV.>", "$KV", false);
        check("$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.KV_quests", true);
        check("$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.KV_quests.>", false);
        check("$JS.API.DIRECT.GET.*.>", "$JS.API.DIRECT.GET.KV_quests.>", true);
        check("a.*", "a.>", false);
        check("a.b", "a.c", false);
    }

    #[test]
    fn exports_of_the_store_do_not_overlap() {
        for (i, (one, _)) in STORE_SERVICES.iter().enumerate() {
            for (other, _) in &STORE_SERVICES[i + 1..] {
                assert!(!covers(one, other) && !covers(other, one), "{one} {other}");
            }
        }
    }
}
