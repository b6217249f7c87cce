//! The registrations in memory, by capability.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use proto::capability::v1::{Match, Provider};
use sdk::{Follow, Update};
use semver::VersionReq;

use crate::registration::{is_alive, version_of};

/// The registrations, of which some may have ended.
#[derive(Debug, Default)]
pub(crate) struct Index {
    providers: BTreeMap<String, Provider>,
    by_capability: BTreeMap<String, BTreeSet<String>>,
}

impl Follow<Provider> for Index {
    fn apply(&mut self, update: Update<Provider>) {
        if let Some(earlier) = self.providers.remove(&update.key) {
            for capability in earlier.capabilities {
                if let Some(ids) = self.by_capability.get_mut(&capability.name) {
                    ids.remove(&update.key);
                    if ids.is_empty() {
                        self.by_capability.remove(&capability.name);
                    }
                }
            }
        }
        let Some(record) = update.record else { return };
        for capability in &record.value.capabilities {
            self.by_capability.entry(capability.name.clone()).or_default().insert(update.key.clone());
        }
        self.providers.insert(update.key, record.value);
    }
}

impl Index {
    /// Who provides the capability now, the highest version first, then by id.
    pub(crate) fn find(&self, name: &str, requirement: &VersionReq, limit: usize, now: SystemTime) -> Vec<Match> {
        let ids = self.by_capability.get(name).into_iter().flatten();
        let providers = ids.filter_map(|id| self.providers.get(id)).filter(|provider| is_alive(provider, now));
        let versions = providers.filter_map(|provider| Some((version_of(provider, name)?, provider)));
        let mut found: Vec<_> = versions.filter(|(version, _)| requirement.matches(version)).collect();
        found.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.id.cmp(&other.id)));
        found.truncate(limit);
        let matches = found.into_iter().map(|(version, provider)| {
            let version = version.to_string();
            Match { provider: Some(provider.clone()), version }
        });
        matches.collect()
    }

    /// Those whose lease has ended.
    pub(crate) fn expired(&self, now: SystemTime) -> Vec<Provider> {
        self.providers.values().filter(|provider| !is_alive(provider, now)).cloned().collect()
    }
}
