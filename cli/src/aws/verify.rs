//! Checks everything that an environment must have before a deployment: all at once, and nothing is changed.

mod images;
mod infrastructure;
mod nats;
mod references;
mod roles;
mod secrets;

use std::collections::BTreeSet;
use std::future::Future;

use serde::Serialize;

pub(crate) use self::roles::named as named_roles;
use super::Aws;
use crate::screen;

/// The findings of all checks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) environment: String,
    /// Nothing is missing, and everything could be checked.
    pub(crate) complete: bool,
    pub(crate) findings: Vec<Finding>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) state: State,
    pub(crate) found: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// The state of something that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It is as a deployment needs it.
    Ok,
    /// Good to know; no deployment fails because of it.
    Note,
    /// It does not exist, or is not as a deployment needs it.
    Missing,
    /// It could not be checked.
    Unknown,
}

impl Finding {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Ok, found: found.into(), hint: None }
    }

    fn note(what: impl Into<String>, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Note, hint: Some(hint.into()), ..Self::ok(what, found) }
    }

    fn missing(what: impl Into<String>, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Missing, ..Self::note(what, found, hint) }
    }

    fn unknown(what: impl Into<String>, error: &anyhow::Error) -> Self {
        // Other commands advise to run `verify`.
        let hint = crate::error::hint(error).filter(|hint| !hint.contains("natsctl verify"));
        Self { state: State::Unknown, hint, ..Self::ok(what, format!("{error:#}")) }
    }

    fn fails(&self) -> bool {
        matches!(self.state, State::Missing | State::Unknown)
    }
}

/// Checks everything that a deployment needs.
pub(crate) async fn verify(aws: &Aws) -> Verified {
    let secrets = secrets::list(aws).await;
    let (cluster, log_group, network, ledger, alarms, trust, rights, caller, images, values, named, bus) = futures::join!(
        check("cluster", infrastructure::cluster(aws)),
        check("log group", infrastructure::log_group(aws)),
        check("network", infrastructure::network(aws)),
        check("ledger", infrastructure::ledger(aws)),
        check("alarms", infrastructure::alarms(aws)),
        check("roles", roles::trust(aws)),
        check("rights of execution roles", roles::execution(aws, &secrets)),
        check("rights of the caller", roles::caller(aws)),
        check("images", images::check(aws)),
        check("secrets", secrets::check(aws, &secrets)),
        check("secrets and parameters that manifests name", references::check(aws, &secrets)),
        check("NATS", nats::check(aws)),
    );
    let all = [cluster, network, trust, rights, images, log_group, values, named, ledger, alarms, bus, caller];
    Verified::of(aws.manifests.name.clone(), all.concat())
}

/// The findings of a check; if it failed, that.
async fn check(what: &str, findings: impl Future<Output = anyhow::Result<Vec<Finding>>>) -> Vec<Finding> {
    findings.await.unwrap_or_else(|error| vec![Finding::unknown(what, &error)])
}

/// The name of a kind of resource, for one and for several.
#[derive(Clone, Copy)]
struct Kind {
    one: &'static str,
    many: &'static str,
}

/// Whether all of these exist: one finding for those that do, and one for each that is missing.
fn all_exist(kind: Kind, wanted: &BTreeSet<String>, existing: &BTreeSet<String>, hint: &str) -> Vec<Finding> {
    let missing: Vec<&String> = wanted.difference(existing).collect();
    let mut findings = Vec::new();
    if wanted.len() > missing.len() {
        findings.push(Finding::ok(kind.many, format!("{} of {}", wanted.len() - missing.len(), wanted.len())));
    }
    findings
        .extend(missing.into_iter().map(|name| Finding::missing(format!("{} `{name}`", kind.one), "not there", hint)));
    findings
}

/// How to fix what Terraform has not made.
const APPLY: &str = "`terraform apply` in the environment's folder makes it";

impl Verified {
    fn of(environment: String, findings: Vec<Finding>) -> Self {
        Self { environment, complete: !findings.iter().any(Finding::fails), findings }
    }

    /// For people: a table, with what is missing last, next to the prompt.
    pub(crate) fn text(&self) -> String {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.fails());
        let rows = findings.iter().map(|finding| {
            let hint = finding.hint.clone().unwrap_or_default();
            vec![finding.what.clone(), finding.state.word().to_owned(), finding.found.clone(), hint]
        });
        format!("{}\n\n{}", screen::table(&["what", "state", "found", "how to fix it"], rows), self.summary())
    }

    /// In one line.
    pub(crate) fn summary(&self) -> String {
        let count = |state: State| self.findings.iter().filter(|finding| finding.state == state).count();
        let (missing, unknown) = (count(State::Missing), count(State::Unknown));
        let environment = &self.environment;
        match (missing, unknown) {
            (0, 0) => format!("environment `{environment}`: nothing is missing"),
            (missing, 0) => format!("environment `{environment}`: {missing} missing"),
            (missing, unknown) => {
                format!("environment `{environment}`: {missing} missing, {unknown} could not be checked")
            }
        }
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Missing => "MISSING",
            Self::Unknown => "UNKNOWN",
        }
    }
}

#[cfg(test)]
mod tests;
