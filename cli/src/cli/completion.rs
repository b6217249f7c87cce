//! What completes an argument: names from the manifests, and from what this machine knows of the environment. Nothing outside of this machine
//! is asked, and the supervisor no longer than a person would notice.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Parser as _;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use tokio::time::timeout;

use super::Cli;
use crate::commands::invocation::Invocation;
use crate::commands::options::Global;
use crate::explain;
use crate::local::client;
use crate::local::cluster_files::Endpoints;
use crate::local::protocol::Description;
use crate::manifest;
use crate::pipeline::load::stream_names;

/// How long the supervisor may take to answer.
const PATIENCE: Duration = Duration::from_millis(40);

/// Adds what they are completed by to the arguments of a command and of all below it: `SERVICE` stands for the same everywhere.
pub(super) fn add(command: clap::Command) -> clap::Command {
    let add_to = |arg: clap::Arg| match candidates(&placeholder(&arg)) {
        Some(candidates) => arg.add(candidates),
        None => arg,
    };
    command.mut_args(add_to).mut_subcommands(add)
}

/// What stands for the value of an argument in its help.
fn placeholder(arg: &clap::Arg) -> String {
    let names = arg.get_value_names().and_then(|names| names.first());
    match (arg.get_id().as_str(), names) {
        ("env", _) => "ENVIRONMENT".to_owned(),
        (_, Some(name)) => name.to_string(),
        (id, None) => id.to_uppercase(),
    }
}

fn candidates(placeholder: &str) -> Option<ArgValueCandidates> {
    let names: fn(&Site) -> BTreeSet<String> = match placeholder {
        "ENVIRONMENT" => Site::environments,
        "SERVICE" | "SERVICE|TASK" => Site::services,
        "nats|SERVICE|TASK" => Site::tunnel_targets,
        "STREAM" => Site::streams,
        "NODE" => Site::nodes,
        "METHOD" => |_| methods(),
        "SUBJECT" => Site::events,
        "TASK" => Site::tasks,
        "REVISION" => Site::revisions,
        "PATH" => |_| explain::paths(),
        _ => return None,
    };
    Some(ArgValueCandidates::new(move || {
        let names = Site::typed().map(|site| names(&site)).unwrap_or_default();
        names.into_iter().map(CompletionCandidate::new).collect()
    }))
}

fn methods() -> BTreeSet<String> {
    proto::SERVICES.iter().flat_map(|service| service.methods).map(|method| method.full_name.to_owned()).collect()
}

/// The environment that the command line is about which is being completed.
struct Site {
    invocation: Invocation,
    /// All that is typed so far.
    words: Vec<String>,
}

impl Site {
    /// `None` where there are no manifests.
    fn typed() -> Option<Self> {
        let words = std::env::args().skip_while(|word| word != "--").skip(1).collect::<Vec<_>>();
        let invocation = Invocation::new(global(&words), String::new()).ok()?;
        Some(Self { invocation, words })
    }

    fn environments(&self) -> BTreeSet<String> {
        self.invocation.manifests_dir().map(|folder| manifest::environments(&folder)).unwrap_or_default()
    }

    fn services(&self) -> BTreeSet<String> {
        self.invocation.manifests_dir().map(|folder| manifest::service_names(&folder)).unwrap_or_default()
    }

    fn tunnel_targets(&self) -> BTreeSet<String> {
        self.services().into_iter().chain(["nats".to_owned()]).collect()
    }

    fn streams(&self) -> BTreeSet<String> {
        self.invocation.load().map(|manifests| stream_names(&manifests)).unwrap_or_default()
    }

    fn events(&self) -> BTreeSet<String> {
        let manifests = self.invocation.load();
        let events = |manifests: manifest::Manifests| {
            manifests.services.into_values().flat_map(|service| service.publishes).collect()
        };
        manifests.map(events).unwrap_or_default()
    }

    fn nodes(&self) -> BTreeSet<String> {
        let endpoints = self.invocation.state_dir().and_then(|dir| Endpoints::read(&dir));
        endpoints.ok().flatten().map(|endpoints| endpoints.names()).unwrap_or_default()
    }

    /// What the supervisor knows, or knew last.
    fn description(&self) -> Option<Description> {
        let dir = self.invocation.state_dir().ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(timeout(PATIENCE, client::describe(&dir))).ok()?.ok()?
    }

    fn tasks(&self) -> BTreeSet<String> {
        let services = self.description().map(|description| description.services).unwrap_or_default();
        services.into_values().flat_map(|service| service.tasks).map(|task| task.id).collect()
    }

    /// Those of the services that are typed.
    fn revisions(&self) -> BTreeSet<String> {
        let services = self.description().map(|description| description.services).unwrap_or_default();
        let named = services.into_iter().filter(|(name, _)| self.words.contains(name));
        named.flat_map(|(_, service)| service.revisions).map(|one| one.revision.to_string()).collect()
    }
}

/// The options of every command, wherever they are typed. The rest may not be complete.
fn global(words: &[String]) -> Global {
    let value = |long: &str, short: Option<&str>| {
        words.iter().enumerate().find_map(|(index, word)| {
            let rest = word.strip_prefix(long).or_else(|| word.strip_prefix(short?))?;
            let value = if rest.is_empty() { words.get(index + 1)? } else { rest.trim_start_matches('=') };
            // What is being typed is no value yet.
            (index + 1 < words.len()).then(|| value.to_owned())
        })
    };
    let typed = [("--env", Some("-e")), ("--manifests", None), ("--state-dir", None)];
    let options = typed.iter().filter_map(|(long, short)| Some([(*long).to_owned(), value(long, *short)?])).flatten();
    let line = ["natsctl".to_owned()].into_iter().chain(options).chain(["validate".to_owned()]);
    match Cli::try_parse_from(line) {
        Ok(cli) => cli.global,
        Err(_) => Global::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_that_is_typed_is_the_one_that_is_meant() {
        let check = |typed: &str, expected: &str| {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            assert_eq!(global(&words).env, expected, "{typed}");
        };
        check("natsctl logs --env production ", "production");
        check("natsctl -e production logs ", "production");
        check("natsctl --env=production logs que", "production");
    }
}
