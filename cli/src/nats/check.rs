//! What is wrong with a cluster, or soon will be: findings with stable codes, for people, for CI, and for Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use super::locate::Version;
use super::roll::{Asset, Observation, Obstacle, Server};

/// Something that is wrong, or soon will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stays the same in later versions.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// The server, stream or consumer.
    pub(crate) about: String,
    pub(crate) message: String,
    /// What would repair it.
    pub(crate) repair: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// It does not work, or will not when one more server fails.
    Critical,
    /// It works.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        })
    }
}

/// A certificate with less time left is found.
const EXPIRES: i64 = 30;
/// One with less is critical; both in days.
const EXPIRES_SOON: i64 = 7;
/// Of what JetStream may store, in percent.
const FULL: u64 = 80;
const NEARLY_OVER: u64 = 95;

/// What is wrong at `now`, the worst first. `before` was seen a moment ago: what is only so for that moment is not found.
pub(crate) fn findings(before: &Observation, observation: &Observation, now: Timestamp) -> Vec<Finding> {
    let earlier: BTreeMap<_, &Asset> = before.assets.iter().map(|asset| (asset.id(), asset)).collect();
    let lasting = |asset: &Asset| {
        let then = earlier.get(&asset.id()).copied();
        asset.obstacle(then).filter(|_| then.is_none_or(|then| then.obstacle(None).is_some()))
    };
    let assets = observation.assets.iter().filter_map(|asset| Some((asset.to_string(), lasting(asset)?)));
    let servers = observation.server_obstacles(None).into_iter();
    let servers = servers.map(|obstacle| (obstacle.node().unwrap_or("cluster").to_owned(), obstacle));
    let strangers = observation.strangers.iter().map(|node| (node.clone(), Obstacle::Stranger { node: node.clone() }));
    let mut findings: Vec<Finding> =
        servers.chain(strangers).chain(assets).map(|(about, obstacle)| Finding::of(about, &obstacle)).collect();
    findings.extend(observation.assets.iter().filter(|asset| asset.is_fragile()).map(fragile));
    findings.extend(versions(observation));
    for name in observation.servers.keys() {
        if let Some(server) = observation.server(name) {
            findings.extend(
                [storage(name, server), slow_consumers(name, server), certificate(name, server, now)]
                    .into_iter()
                    .flatten(),
            );
        }
    }
    findings
        .sort_by(|one, other| (one.severity, one.code, &one.about).cmp(&(other.severity, other.code, &other.about)));
    findings
}

impl Finding {
    fn of(about: String, obstacle: &Obstacle) -> Self {
        let code = obstacle.code();
        Self { code, severity: Severity::Critical, about, message: obstacle.to_string(), repair: obstacle.repair() }
    }
}

fn fragile(asset: &Asset) -> Finding {
    let members: Vec<&str> = asset.members().into_iter().collect();
    let message = match members.as_slice() {
        [only] => format!("{asset} has one replica, on `{only}`: it is away while that is, and lost with its disk"),
        several => format!("{asset} has {} replicas: without one of them it cannot be written to", several.len()),
    };
    let repair = "give it three replicas, in the manifest that asks for it".to_owned();
    Finding { code: "few-replicas", severity: Severity::Warning, about: asset.to_string(), message, repair }
}

fn versions(observation: &Observation) -> Option<Finding> {
    let servers = observation.servers.keys().filter_map(|name| observation.server(name));
    let versions: BTreeSet<Version> = servers.map(|server| server.version).collect();
    (versions.len() > 1).then(|| {
        let listed: Vec<String> = versions.iter().map(ToString::to_string).collect();
        Finding {
            code: "versions-differ",
            severity: Severity::Warning,
            about: "cluster".to_owned(),
            message: format!("the servers run {}", listed.join(" and ")),
            repair: "`natsctl nats roll --resume` finishes a roll that was interrupted".to_owned(),
        }
    })
}

fn storage(node: &str, server: &Server) -> Option<Finding> {
    let percent = (server.storage.used * 100).checked_div(server.storage.limit).filter(|percent| *percent >= FULL)?;
    Some(Finding {
        code: "storage-full",
        severity: if percent >= NEARLY_OVER { Severity::Critical } else { Severity::Warning },
        about: node.to_owned(),
        message: format!("`{node}` has used {percent} % of what JetStream may store"),
        repair: "give JetStream more in the environment's manifest, or keep less in the streams".to_owned(),
    })
}

fn slow_consumers(node: &str, server: &Server) -> Option<Finding> {
    (server.slow_consumers > 0).then(|| Finding {
        code: "slow-consumers",
        severity: Severity::Warning,
        about: node.to_owned(),
        message: format!("`{node}` has cut off {} slow clients since it started", server.slow_consumers),
        repair: format!("`natsctl logs {node}` names them: they read more slowly than they are sent to"),
    })
}

fn certificate(node: &str, server: &Server, now: Timestamp) -> Option<Finding> {
    let ends: Timestamp = server.certificate_ends.as_deref()?.parse().ok()?;
    let days = ends.duration_since(now).as_hours().div_euclid(24);
    (days < EXPIRES).then(|| Finding {
        code: "certificate-expires",
        severity: if days < EXPIRES_SOON { Severity::Critical } else { Severity::Warning },
        about: node.to_owned(),
        message: match days {
            ..0 => format!("the certificate of `{node}` has expired: clients cannot connect to it"),
            days => format!("the certificate of `{node}` expires in {days} days"),
        },
        repair: "`natsctl nats roll --certificates` makes new ones and has the servers use them".to_owned(),
    })
}

/// Whether nothing is critical.
pub(crate) fn is_healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity != Severity::Critical)
}

/// The findings as metrics, for a file that Prometheus' node exporter reads.
pub(crate) fn prometheus(findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "# HELP natsctl_nats_healthy Whether no finding is critical.\n# TYPE natsctl_nats_healthy gauge"
    );
    let _ = writeln!(text, "natsctl_nats_healthy {}", u8::from(is_healthy(findings)));
    let _ = writeln!(
        text,
        "# HELP natsctl_nats_finding What is wrong with the NATS cluster.\n# TYPE natsctl_nats_finding gauge"
    );
    for Finding { code, severity, about, .. } in findings {
        let about = about.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(text, "natsctl_nats_finding{{code=\"{code}\",severity=\"{severity}\",about=\"{about}\"}} 1");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::Seen;
    use crate::nats::roll::testing::server;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Server), expected: &[&str]) {
        let mut server = server();
        change(&mut server);
        let servers = [("a".to_owned(), Seen::Present(server))].into();
        let observation = Observation { servers, ..Observation::default() };
        let found = findings(&observation, &observation, "2026-11-30T00:00:00Z".parse().unwrap());
        let found: Vec<String> = found.iter().map(|it| format!("{} {} {}", it.severity, it.code, it.about)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_well_has_no_finding() {
        check(|_| {}, &[]);
    }

    #[test]
    fn what_becomes_worse_is_found_before_it_fails() {
        check(|server| server.storage.used = 80, &["warning storage-full a"]);
        check(|server| server.storage.used = 95, &["critical storage-full a"]);
        check(|server| server.slow_consumers = 1, &["warning slow-consumers a"]);
        let expires = |date: &str| Some(format!("{date}T00:00:00Z"));
        check(|server| server.certificate_ends = expires("2026-12-29"), &["warning certificate-expires a"]);
        check(|server| server.certificate_ends = expires("2026-12-06"), &["critical certificate-expires a"]);
        check(|server| server.certificate_ends = expires("2026-11-29"), &["critical certificate-expires a"]);
    }

    #[test]
    fn a_server_that_is_unwell_is_critical() {
        let unwell = |server: &mut Server| server.health.full = Err("catching up".to_owned());
        check(unwell, &["critical node-unhealthy a"]);
    }

    #[test]
    fn findings_are_metrics_whatever_is_in_a_name() {
        let finding = Finding {
            code: "no-leader",
            severity: Severity::Critical,
            about: "stream `a\"b\\`".to_owned(),
            message: String::new(),
            repair: String::new(),
        };
        let text = prometheus(&[finding]);
        assert!(text.contains("natsctl_nats_healthy 0\n"), "{text}");
        assert!(
            text.contains(r#"natsctl_nats_finding{code="no-leader",severity="critical",about="stream `a\"b\\`"} 1"#),
            "{text}"
        );
        assert!(prometheus(&[]).contains("natsctl_nats_healthy 1\n"));
    }
}
