//! `natsctl register`: task definitions without a deployment.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::arn::short;
use super::{AT_ONCE, Aws};
use crate::image::Binaries;

/// Registers the task definitions of these services where they differ from the newest ones, and pushes the images that they name.
/// Gives `family:revision` of each.
pub(crate) async fn register(
    aws: &Aws,
    which: &BTreeSet<String>,
    binaries: &Binaries,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (desired, images) = aws.desired(which, binaries).await?;
    let missing = desired.images.keys().filter(|name| !images.present.contains(*name));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    aws.push(&missing, &images).await?;
    let one = |name: &String| {
        let (name, service) = (name.clone(), &desired.services[name]);
        async move {
            let arn = aws.register(&name, service, true, &BTreeSet::new()).await?;
            Ok::<_, anyhow::Error>((name, short(&arn).to_owned()))
        }
    };
    let all: Vec<_> = desired.services.keys().map(one).collect();
    futures::stream::iter(all).buffered(AT_ONCE).try_collect().await
}
