//! What an environment must have before anything can be deployed to it: looked at all at once, and nothing is changed.

mod ground;
mod images;
mod nats;
mod roles;
mod secrets;

use std::collections::BTreeSet;
use std::future::Future;

use serde::Serialize;

use super::Aws;
use crate::screen;

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) environment: String,
    /// Nothing is missing, and everything could be looked at.
    pub(crate) complete: bool,
    pub(crate) findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) state: State,
    pub(crate) found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// As it must be.
    Ok,
    /// Good to know; nothing fails by it.
    Note,
    /// It is not there, or not as it must be.
    Missing,
    /// It could not be looked at.
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
        // Advice to verify is for other commands.
        let hint = crate::error::hint(error).filter(|hint| !hint.contains("natsctl verify"));
        Self { state: State::Unknown, hint, ..Self::ok(what, format!("{error:#}")) }
    }

    fn fails(&self) -> bool {
        matches!(self.state, State::Missing | State::Unknown)
    }
}

impl Aws {
    /// Looks at everything that a deployment stands on.
    pub(crate) async fn verify(&self) -> Verified {
        let secrets = secrets::listed(self).await;
        let (cluster, log_group, network, ledger, alarms, trust, rights, caller, images, values, bus) = futures::join!(
            look("cluster", ground::cluster(self)),
            look("log group", ground::log_group(self)),
            look("network", ground::network(self)),
            look("ledger", ground::ledger(self)),
            look("alarms", ground::alarms(self)),
            look("roles", roles::trust(self)),
            look("rights of the execution role", roles::execution(self, &secrets)),
            look("rights of the caller", roles::caller(self)),
            look("images", images::there(self)),
            look("secrets", secrets::complete(self, &secrets)),
            look("NATS", nats::reachable(self)),
        );
        let all = [cluster, network, trust, rights, images, log_group, values, ledger, alarms, bus, caller];
        Verified::of(self.manifests.name.clone(), all.concat())
    }
}

/// What a look found; if it failed, that.
async fn look(what: &str, look: impl Future<Output = anyhow::Result<Vec<Finding>>>) -> Vec<Finding> {
    look.await.unwrap_or_else(|error| vec![Finding::unknown(what, &error)])
}

/// What several things are called.
#[derive(Clone, Copy)]
struct Kind {
    one: &'static str,
    many: &'static str,
}

/// Whether all of these are there: one finding if so, else one for each that is missing.
fn all_there(kind: Kind, wanted: &BTreeSet<String>, there: &BTreeSet<String>, hint: &str) -> Vec<Finding> {
    let missing: Vec<&String> = wanted.difference(there).collect();
    let mut findings = Vec::new();
    if wanted.len() > missing.len() {
        findings.push(Finding::ok(kind.many, format!("{} of {}", wanted.len() - missing.len(), wanted.len())));
    }
    findings
        .extend(missing.into_iter().map(|name| Finding::missing(format!("{} `{name}`", kind.one), "not there", hint)));
    findings
}

/// How Terraform is asked to make what it should have made.
const APPLY: &str = "`terraform apply` in the environment's folder makes it";

impl Verified {
    fn of(environment: String, findings: Vec<Finding>) -> Self {
        Self { environment, complete: !findings.iter().any(Finding::fails), findings }
    }

    /// For people: a table, what is missing last, where eyes are.
    pub(crate) fn text(&self) -> String {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.fails());
        let rows = findings.iter().map(|finding| {
            let hint = finding.hint.clone().unwrap_or_default();
            vec![finding.what.clone(), finding.state.word().to_owned(), finding.found.clone(), hint]
        });
        format!("{}\n\n{}", screen::table(&["what", "state", "found", "how to mend it"], rows), self.summary())
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
                format!("environment `{environment}`: {missing} missing, {unknown} could not be looked at")
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
