//! `natsctl register`: task definitions without a deployment.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::apply::Change;
use super::observe::Seen;
use super::rollout::short;
use super::{AT_ONCE, Aws};
use crate::image::Binaries;

impl Aws {
    /// Registers the task definitions of these services where the newest ones say something else, and pushes the images that they
    /// name. Gives `family:revision` of each.
    pub(crate) async fn register(
        &self,
        which: &BTreeSet<String>,
        binaries: &Binaries,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let (desired, images) = self.desired(which, binaries).await?;
        let missing = desired.images.keys().filter(|name| !images.present.contains(*name));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        self.push(&missing, &images).await?;
        let seen = Seen::default();
        let change = Change {
            aws: self,
            desired: &desired,
            seen: &seen,
            images: &images,
            families: BTreeSet::new(),
            max_parallel: AT_ONCE,
        };
        let change = &change;
        let one = |name: &String| {
            let (name, service) = (name.clone(), &desired.services[name]);
            async move {
                let arn = change.register(&name, service, true).await?;
                Ok::<_, anyhow::Error>((name, short(&arn).to_owned()))
            }
        };
        let all: Vec<_> = desired.services.keys().map(one).collect();
        futures::stream::iter(all).buffered(AT_ONCE).try_collect().await
    }
}
