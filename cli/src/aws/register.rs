//! `natsctl register`: task definitions without a deployment.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::arn::short;
use super::{AT_ONCE, Aws, images, platform, revisions};
use crate::image::Binaries;

/// Registers the task definitions of these services where they differ from the newest ones, and pushes the images that they name.
/// Gives `family:revision` of each.
pub(crate) async fn register(
    aws: &Aws,
    which: &BTreeSet<String>,
    binaries: &Binaries,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (desired, materials) = platform::desired(aws, which, binaries).await?;
    let built = materials.images;
    let missing = desired.images.keys().filter(|name| !built.present.contains(*name));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    images::push(aws, &missing, &built).await?;
    let one = |name: &String| {
        let (name, service) = (name.clone(), &desired.services[name]);
        async move {
            let arn = revisions::find_or_register(aws.clients.ecs(), &aws.handover, &name, &service.definition).await?;
            Ok::<_, anyhow::Error>((name, short(&arn).to_owned()))
        }
    };
    let all: Vec<_> = desired.services.keys().map(one).collect();
    futures::stream::iter(all).buffered(AT_ONCE).try_collect().await
}
