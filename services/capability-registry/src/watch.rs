//! What those who watch are told: who comes and who goes, and not who renews its lease.

use std::collections::BTreeMap;

use proto::capability::v1::{Change, ChangeKind, Provider};
use sdk::Update;

/// What one who watches a capability knows.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Empty for all capabilities.
    name: String,
    /// The leases of the providers that it was told of.
    leases: BTreeMap<String, String>,
}

impl Watcher {
    pub(crate) fn new(name: String) -> Self {
        Self { name, leases: BTreeMap::new() }
    }

    /// What it is told of an update; `None` if it is nothing new.
    pub(crate) fn told(&mut self, update: Update<Provider>) -> Option<Change> {
        let provides = |provider: &Provider| {
            self.name.is_empty() || provider.capabilities.iter().any(|capability| capability.name == self.name)
        };
        match update.record.map(|record| record.value).filter(provides) {
            Some(provider) => {
                let lease = self.leases.insert(update.key.clone(), provider.lease_id.clone());
                (lease.as_ref() != Some(&provider.lease_id)).then(|| Change {
                    kind: ChangeKind::Registered.into(),
                    provider_id: update.key,
                    provider: Some(provider),
                })
            }
            None => self.leases.remove(&update.key).map(|_| Change {
                kind: ChangeKind::Gone.into(),
                provider_id: update.key,
                provider: None,
            }),
        }
    }
}
