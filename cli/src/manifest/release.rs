//! The release of nats-server that nodes run: its version, where it is downloaded from, and the digests of its archives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::links::Document;
use super::yaml::Node;
use crate::problem::{Problem, listed};

/// Releases whose digests natsctl knows, the one that is used by default first.
const KNOWN: &[(&str, [&str; 2])] = &[(
    "2.15.0",
    [
        "5d2c51caca950333aba84911df7d377f826f3a59ec36061c6539105084f65c92",
        "cdc208f5a3f42963a52b6ab06ef65626bb870315dc936e26ba571780c6351112",
    ],
)];
/// Where the project publishes its releases.
const OFFICIAL: &str =
    "https://github.com/nats-io/nats-server/releases/download/v{version}/nats-server-v{version}-linux-{arch}.tar.gz";

/// A release of nats-server for Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// For example `2.15.0`.
    pub version: String,
    /// For 64-bit x86.
    pub amd64: Archive,
    /// For 64-bit ARM.
    pub arm64: Archive,
}

/// A release for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where it is downloaded from.
    pub url: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// SHA-256 of the archives of a release, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReleaseDigests {
    /// For 64-bit x86.
    pub amd64: String,
    /// For 64-bit ARM.
    pub arm64: String,
}

impl Release {
    /// What a manifest asks for. A version whose digests are unknown was refused when the manifest was read.
    pub(super) fn new(version: Option<&str>, digests: Option<&ReleaseDigests>, mirror: Option<&str>) -> Self {
        let version = version.unwrap_or(KNOWN[0].0);
        let known = KNOWN.iter().find(|(known, _)| *known == version).map(|(_, digests)| digests.map(str::to_owned));
        let given = digests.map(|digests| [digests.amd64.clone(), digests.arm64.clone()]);
        let [amd64, arm64] = given.or(known).unwrap_or_default();
        let archive = |arch: &str, sha256: String| Archive {
            url: mirror.unwrap_or(OFFICIAL).replace("{version}", version).replace("{arch}", arch),
            sha256,
        };
        Self { version: version.to_owned(), amd64: archive("amd64", amd64), arm64: archive("arm64", arm64) }
    }
}

/// What is wrong with the release that the manifest of an environment names.
pub(super) fn problems(document: &Document) -> Vec<Problem> {
    let find = |key: &str| document.root.find(&["nats", key]);
    let text = |key: &str| find(key).and_then(|node| Some((node, node.text()?)));
    let problem =
        |node: &Node, message: String, hint: String| Problem::new(&document.place(node.position), message).hint(hint);
    let mut problems = Vec::new();
    if let Some((node, version)) = text("version") {
        let is_known = KNOWN.iter().any(|(known, _)| *known == version);
        if !is_version(version) {
            let hint = "write it as `2.15.0`".to_owned();
            problems.push(problem(node, format!("`{version}` is not the version of a release"), hint));
        } else if !is_known && find("sha256").is_none() {
            let known = listed(KNOWN.iter().map(|(known, _)| *known));
            let hint = format!("add `sha256` with `amd64` and `arm64`, or use a version that natsctl knows: {known}");
            problems.push(problem(node, format!("natsctl does not know the digests of nats-server {version}"), hint));
        }
    }
    for arch in ["amd64", "arm64"] {
        let node = document.root.find(&["nats", "sha256", arch]);
        if let Some((node, digest)) = node.and_then(|node| Some((node, node.text()?)))
            && !is_digest(digest)
        {
            let hint = "it has 64 digits from 0 to f, as `sha256sum` prints them".to_owned();
            problems.push(problem(node, format!("`{digest}` is not a SHA-256"), hint));
        }
    }
    if let Some((node, mirror)) = text("mirror")
        && !is_mirror(mirror)
    {
        let hint = format!("write a URL with `{{arch}}` in it, as that of the project: {OFFICIAL}");
        problems.push(problem(node, format!("`{mirror}` is not where a release can be downloaded from"), hint));
    }
    problems
}

fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.len() < 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(is_number)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// It becomes an argument in a script.
fn is_mirror(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#@!$&()*+,;=%{}".contains(&byte);
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty()) && text.contains("{arch}") && text.bytes().all(is_plain)
}
