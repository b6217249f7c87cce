//! Which processors an image is for, by its configuration or by an index of several images.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Reference;
use crate::error::Hinted;
use crate::model::desired::Architecture;

/// Operating system and processors, as the OCI image specification calls them: `linux/amd64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Platforms(BTreeSet<String>);

impl Platforms {
    /// Of the configuration of one image. Empty if it does not say.
    pub(super) fn of_config(config: &[u8]) -> Self {
        let config = serde_json::from_slice::<Value>(config).unwrap_or_default();
        Self(platform(&config).into_iter().collect())
    }

    /// Of an index. Entries that are no images, such as attestations, have the platform `unknown`.
    pub(super) fn of_index(index: &Value) -> Self {
        let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let platforms = entries.iter().filter_map(|entry| platform(&entry["platform"]));
        Self(platforms.filter(|platform| !platform.contains("unknown")).collect())
    }

    /// Whether a task on these processors can run it. An image that does not say what it is for may fit.
    pub(crate) fn fit(&self, architecture: Architecture) -> bool {
        self.0.is_empty() || self.0.contains(&format!("linux/{}", architecture.oci()))
    }

    /// Why it does not fit.
    pub(crate) fn misfit(&self, architecture: Architecture) -> String {
        let found: Vec<&str> = self.0.iter().map(String::as_str).collect();
        format!("is for {}, not for linux/{}, which the manifest asks for", found.join(", "), architecture.oci())
    }
}

/// What to do about an image that does not fit.
pub(crate) const HINT: &str =
    "set `architecture` in the manifest, or build the image for it (`docker buildx build --platform`)";

/// Refuses an image that the tasks of a service cannot run.
///
/// # Errors
/// What it is for.
pub(crate) fn check(
    image: &Reference,
    service: &str,
    platforms: &Platforms,
    architecture: Architecture,
) -> Result<(), Hinted> {
    if platforms.fit(architecture) {
        return Ok(());
    }
    let message = format!("the image `{image}` of `{service}` {}", platforms.misfit(architecture));
    Err(Hinted::new(message, HINT))
}

fn platform(value: &Value) -> Option<String> {
    let (os, architecture) = (value["os"].as_str()?, value["architecture"].as_str()?);
    (!os.is_empty() && !architecture.is_empty()).then(|| format!("{os}/{architecture}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(platforms: &Platforms, amd64: bool, arm64: bool) {
        assert_eq!((platforms.fit(Architecture::X86_64), platforms.fit(Architecture::Arm64)), (amd64, arm64));
    }

    #[test]
    fn an_image_fits_the_processors_that_its_configuration_names() {
        check(&Platforms::of_config(br#"{"os":"linux","architecture":"amd64"}"#), true, false);
        check(&Platforms::of_config(br#"{"os":"linux","architecture":"arm64","variant":"v8"}"#), false, true);
        check(&Platforms::of_config(br#"{"os":"windows","architecture":"amd64"}"#), false, false);
        check(&Platforms::of_config(b"{}"), true, true);
        check(&Platforms::of_config(b"nonsense"), true, true);
    }

    #[test]
    fn an_index_fits_the_processors_of_any_of_its_images() {
        let index = |platforms: &[(&str, &str)]| {
            let entry =
                |(os, architecture): &(&str, &str)| json!({ "platform": { "os": os, "architecture": architecture } });
            Platforms::of_index(&json!({ "manifests": platforms.iter().map(entry).collect::<Vec<_>>() }))
        };
        check(&index(&[("linux", "amd64"), ("linux", "arm64"), ("unknown", "unknown")]), true, true);
        check(&index(&[("linux", "arm64"), ("linux", "arm"), ("unknown", "unknown")]), false, true);
        let misfit = index(&[("linux", "arm64"), ("linux", "arm")]).misfit(Architecture::X86_64);
        assert_eq!(misfit, "is for linux/arm, linux/arm64, not for linux/amd64, which the manifest asks for");
    }
}
