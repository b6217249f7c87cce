//! What the files say about each other, about the protocol and about the crates beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::ECS_NAME_SUFFIX;
use super::yaml::{Entry, Node, Position, Source};
use crate::problem::{Place, Problem, did_you_mean, listed};

/// A file and what it says.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: PathBuf,
    /// The environment's manifest, if parts of the tree are written there.
    pub(super) environment: Option<PathBuf>,
    pub(super) root: Node,
}

impl Document {
    pub(super) fn place(&self, position: Position) -> Place {
        let file = match position.source {
            Source::Own => &self.file,
            Source::Environment => self.environment.as_ref().unwrap_or(&self.file),
        };
        Place { file: file.clone(), line: position.line, column: position.column }
    }

    pub(super) fn problem(&self, node: &Node, message: String) -> Problem {
        Problem::new(&self.place(node.position), message)
    }

    pub(super) fn stem(&self) -> &str {
        self.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// The name that it gives itself, or else the name of the file.
    pub(super) fn name(&self) -> &str {
        self.root.get("name").and_then(Node::text).unwrap_or(self.stem())
    }

    fn is_standalone(&self) -> bool {
        self.root.get("role").and_then(Node::text) == Some("standalone")
    }

    fn is_gateway(&self) -> bool {
        self.root.get("role").and_then(Node::text) == Some("gateway")
    }

    /// The texts in the list under a key.
    fn list(&self, key: &str) -> impl Iterator<Item = (&str, &Node)> {
        self.root.get(key).into_iter().flat_map(Node::texts)
    }

    /// The keys of the map under a key.
    fn keys(&self, key: &str) -> impl Iterator<Item = (&str, Position)> {
        let entries = self.root.get(key).map(Node::entries).unwrap_or_default();
        entries.iter().map(|entry| (entry.key.as_str(), entry.position))
    }

    /// The events under `consumes`, and those that invalidate a cache.
    fn consumed(&self) -> impl Iterator<Item = (&str, Position)> {
        self.keys("consumes").chain(self.invalidating())
    }

    fn invalidating(&self) -> impl Iterator<Item = (&str, Position)> {
        let caches = self.root.get("caches").map(Node::entries).unwrap_or_default();
        let events = caches.iter().filter_map(|cache| cache.value.get("invalidated_by")).flat_map(Node::texts);
        events.map(|(event, node)| (event, node.position))
    }

    /// Whether one task alone gets this event of `consumes`.
    fn shares(&self, event: &str) -> bool {
        let consumed = self.root.find(&["consumes", event]);
        consumed.is_some_and(|settings| settings.get("delivery").is_none_or(|it| it.text() == Some("shared")))
    }
}

/// The manifests of all services.
pub(super) struct ServiceDocuments<'a> {
    /// Those that are YAML.
    pub(super) readable: &'a [Document],
    /// Names of the files of the others.
    pub(super) unreadable: &'a BTreeSet<String>,
}

/// Everything that does not fit together; `folder` is where the manifests of services are.
pub(super) fn problems(services: &ServiceDocuments<'_>, folder: &Path, workspace: Option<&Path>) -> Vec<Problem> {
    let mut problems = services.names();
    problems.extend(services.ecs_names());
    problems.extend(services.calls());
    problems.extend(services.cycles());
    problems.extend(services.gateways());
    problems.extend(services.protocol());
    problems.extend(services.consumed());
    problems.extend(services.public());
    problems.extend(services.owners("serves", "package", "served"));
    problems.extend(services.owners("publishes", "event", "published"));
    problems.extend(services.buckets());
    problems.extend(services.variables());
    if let Some(workspace) = workspace {
        problems.extend(services.crates(folder, &workspace.join("services")));
    }
    problems
}

impl<'a> ServiceDocuments<'a> {
    pub(super) fn known_names(&self) -> BTreeSet<&'a str> {
        let readable = self.readable.iter().map(Document::name);
        readable.chain(self.unreadable.iter().map(String::as_str)).collect()
    }

    fn names(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut first: BTreeMap<&str, &Document> = BTreeMap::new();
        for document in self.readable {
            let Some((node, name)) = document.root.get("name").and_then(|node| node.text().map(|name| (node, name)))
            else {
                continue;
            };
            if name != document.stem() {
                let problem = document.problem(node, format!("service `{name}` is in a file of another name"));
                problems.push(
                    problem.hint(format!("rename the file to `{name}.yaml`, or the service to `{}`", document.stem())),
                );
            }
            match first.get(name) {
                None => {
                    first.insert(name, document);
                }
                Some(other) => {
                    let problem = document.problem(node, format!("duplicate service `{name}`"));
                    problems.push(problem.hint(format!("it is already in `{}`", other.file.display())));
                }
            }
        }
        problems
    }

    /// Services that have the same name on ECS.
    fn ecs_names(&self) -> Vec<Problem> {
        let ecs_name = |document: &Document| match document.root.get("ecs_name").and_then(Node::text) {
            Some(own) => own.to_owned(),
            None => format!("{}{ECS_NAME_SUFFIX}", document.name()),
        };
        let mut problems = Vec::new();
        let mut first: BTreeMap<String, &Document> = BTreeMap::new();
        for document in self.readable {
            let name = ecs_name(document);
            match first.get(&name) {
                // Two files with one name are a problem of their own.
                Some(other) if other.name() != document.name() => {
                    let Some(node) = document.root.get("ecs_name").or(document.root.get("name")) else { continue };
                    let message =
                        format!("`{}` and `{}` are both called `{name}` on ECS", other.name(), document.name());
                    problems.push(document.problem(node, message).hint("give one of them another `ecs_name`"));
                }
                Some(_) => {}
                None => {
                    first.insert(name, document);
                }
            }
        }
        problems
    }

    fn calls(&self) -> Vec<Problem> {
        let known = self.known_names();
        let serving = |name: &str| {
            let callee = self.readable.iter().find(|document| document.name() == name);
            callee.is_none_or(|callee| callee.list("serves").next().is_some())
        };
        let mut problems = Vec::new();
        for document in self.readable {
            let name = document.name();
            for (callee, node) in document.list("calls") {
                if callee == name {
                    let problem = document.problem(node, format!("service `{name}` calls itself"));
                    problems.push(problem.hint("remove it: a service needs no permission to use its own code"));
                } else if !known.contains(callee) {
                    let others = known.iter().copied().filter(|other| *other != name);
                    let hint = did_you_mean(callee, others.clone())
                        .unwrap_or_else(|| format!("the services are {}", listed(others)));
                    problems.push(
                        document.problem(node, format!("`{name}` calls `{callee}`, which does not exist")).hint(hint),
                    );
                } else if !serving(callee) {
                    let problem = document.problem(node, format!("`{name}` calls `{callee}`, which serves nothing"));
                    problems.push(problem.hint(format!("remove it, or add what it calls to `serves` of `{callee}`")));
                }
            }
        }
        problems
    }

    /// Each cycle once, at the first service of it in the order of the alphabet.
    fn cycles(&self) -> Vec<Problem> {
        let calls: BTreeMap<&str, BTreeSet<&str>> = self
            .readable
            .iter()
            .map(|document| (document.name(), document.list("calls").map(|(callee, _)| callee).collect()))
            .collect();
        let mut found: BTreeSet<Vec<&str>> = BTreeSet::new();
        let mut finished = BTreeSet::new();
        for start in calls.keys() {
            follow(start, &calls, &mut Vec::new(), &mut finished, &mut found);
        }
        let problem = |cycle: Vec<&str>| {
            let (first, next) = (cycle[0], cycle[1]);
            let document = self.readable.iter().find(|document| document.name() == first)?;
            let (_, node) = document.list("calls").find(|(callee, _)| *callee == next)?;
            let path: Vec<String> = cycle.iter().chain([&first]).map(|name| format!("`{name}`")).collect();
            let problem = document.problem(node, format!("a cycle of calls: {}", path.join(" → ")));
            Some(problem.hint("let one of them publish an event that the other consumes"))
        };
        found.into_iter().filter_map(problem).collect()
    }

    fn gateways(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut first: Option<&Document> = None;
        for document in self.readable.iter().filter(|document| document.is_gateway()) {
            if let Some((_, node)) = document.list("serves").next() {
                let problem = document.problem(node, format!("gateway `{}` serves a package", document.name()));
                problems.push(problem.hint("a gateway only calls: move the package to a worker"));
            }
            if let Some(node) = document.root.get("caches") {
                let problem = document.problem(node, format!("gateway `{}` has caches", document.name()));
                problems.push(problem.hint("a gateway computes nothing: give them to the services that it calls"));
            }
            match (first, document.root.get("role")) {
                (Some(other), Some(node)) => {
                    let problem = document.problem(node, "a second gateway".to_owned());
                    problems.push(problem.hint(format!(
                        "the first is in `{}`; an environment has one port for it",
                        other.file.display()
                    )));
                }
                _ => first = Some(document),
            }
        }
        problems
    }

    /// Packages and events that the protocol does not have.
    fn protocol(&self) -> Vec<Problem> {
        let packages: BTreeSet<&str> = proto::SERVICES.iter().map(|service| service.package).collect();
        let events: BTreeSet<&str> = proto::EVENTS.iter().map(|event| event.subject).collect();
        let mut problems = Vec::new();
        for document in self.readable {
            let listed_names = |key| document.list(key).map(|(written, node)| (written, node.position));
            let written = listed_names("serves").map(|written| ("package", written, &packages));
            let written = written.chain(listed_names("publishes").map(|written| ("event", written, &events)));
            let written = written.chain(document.consumed().map(|written| ("event", written, &events)));
            for (kind, (written, position), known) in written.filter(|(_, (name, _), known)| !known.contains(name)) {
                let hint = did_you_mean(written, known.iter().copied())
                    .unwrap_or_else(|| format!("the protocol has {}", listed(known.iter().copied())));
                let message = format!("{kind} `{written}` is not in the protocol");
                problems.push(Problem::new(&document.place(position), message).hint(hint));
            }
        }
        problems
    }

    /// Events that are consumed and that no service publishes.
    fn consumed(&self) -> Vec<Problem> {
        let published: BTreeSet<&str> =
            self.readable.iter().flat_map(|document| document.list("publishes").map(|(event, _)| event)).collect();
        let known: BTreeSet<&str> = proto::EVENTS.iter().map(|event| event.subject).collect();
        let mut problems = Vec::new();
        for document in self.readable {
            for (event, position) in document.consumed().filter(|(event, _)| known.contains(event)) {
                if proto::naming::is_audit(event) {
                    let message = format!("`{}` consumes `{event}`, which is part of the audit trail", document.name());
                    let hint = "publish an event of its own (`evt.…`) for what others are to react to";
                    problems.push(Problem::new(&document.place(position), message).hint(hint));
                    continue;
                }
                if !published.contains(event) && self.unreadable.is_empty() {
                    let message = format!("`{}` consumes `{event}`, which no service publishes", document.name());
                    let problem = Problem::new(&document.place(position), message);
                    problems.push(problem.hint("add it to `publishes` of the service that does, or remove it"));
                }
            }
            for (event, position) in document.invalidating().filter(|(event, _)| document.shares(event)) {
                let message = format!("`{event}` invalidates a cache, but only one task of the service gets it");
                let problem = Problem::new(&document.place(position), message);
                problems.push(problem.hint("set `delivery: every_task` in `consumes`, or remove it there"));
            }
        }
        problems
    }

    /// Methods that are to be public and that their service does not serve.
    fn public(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for document in self.readable {
            let packages: BTreeSet<&str> = document.list("serves").map(|(package, _)| package).collect();
            let served: Vec<_> = proto::SERVICES.iter().filter(|served| packages.contains(served.package)).collect();
            if served.len() < packages.len() {
                // Its packages are wrong, which is a problem of its own.
                continue;
            }
            let known: BTreeSet<&str> =
                served.iter().flat_map(|served| served.methods).map(|method| method.full_name).collect();
            for (name, node) in document.list("public").filter(|(name, _)| !known.contains(name)) {
                let problem =
                    document.problem(node, format!("method `{name}` is public, but this service does not serve it"));
                let hint = did_you_mean(name, known.iter().copied())
                    .unwrap_or_else(|| format!("it serves {}", listed(known.iter().copied())));
                problems.push(problem.hint(hint));
            }
        }
        problems
    }

    /// What belongs to one service only.
    fn owners(&self, key: &str, kind: &str, verb: &str) -> Vec<Problem> {
        self.shared(|document| document.list(key).map(|(text, node)| (text, node.position)).collect())
            .into_iter()
            .map(|(text, place, others)| {
                let message = format!("{kind} `{text}` is {verb} by two services");
                Problem::new(&place, message).hint(format!("also in {others}; one of them has to give it up"))
            })
            .collect()
    }

    fn buckets(&self) -> Vec<Problem> {
        let names = |document: &'a Document| document.keys("buckets").collect();
        self.shared(names)
            .into_iter()
            .map(|(name, place, others)| {
                let problem = Problem::new(&place, format!("bucket `{name}` belongs to two services"));
                problem.hint(format!("also in {others}; rename one, or let one service ask the other"))
            })
            .collect()
    }

    /// What is in more than one document: where, and where else.
    fn shared(&self, names: impl Fn(&'a Document) -> Vec<(&'a str, Position)>) -> Vec<(&'a str, Place, String)> {
        let mut places: BTreeMap<&str, BTreeMap<&Path, Place>> = BTreeMap::new();
        for document in self.readable {
            for (name, position) in names(document) {
                let places = places.entry(name).or_default();
                places.entry(&document.file).or_insert(document.place(position));
            }
        }
        let mut shared = Vec::new();
        for (name, places) in places.iter().filter(|(_, places)| places.len() > 1) {
            for (file, place) in places {
                let others = places.iter().filter(|(other, _)| other != &file);
                let others: Vec<String> = others.map(|(_, place)| format!("`{place}`")).collect();
                shared.push((*name, place.clone(), others.join(" and ")));
            }
        }
        shared
    }

    fn variables(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for document in self.readable {
            let variables = |key: &str| document.root.get(key).map(Node::entries).unwrap_or_default();
            for entry in variables("environment").iter().chain(variables("secrets")) {
                if is_reserved(&entry.key) && !document.is_standalone() {
                    let problem = Problem::new(
                        &document.place(entry.position),
                        format!("variable `{}` is set by the platform", entry.key),
                    );
                    problems
                        .push(problem.hint(format!("rename it; reserved are {}", listed(RESERVED.iter().copied()))));
                }
            }
            let plain: BTreeMap<&str, &Entry> =
                variables("environment").iter().map(|entry| (entry.key.as_str(), entry)).collect();
            for entry in variables("secrets") {
                if let Some(other) = plain.get(entry.key.as_str()) {
                    let problem = Problem::new(
                        &document.place(entry.position),
                        format!("variable `{}` is in `environment` and in `secrets`", entry.key),
                    );
                    problems.push(problem.hint(format!("remove one; the other is in line {}", other.position.line)));
                }
            }
        }
        problems
    }

    fn crates(&self, folder: &Path, services: &Path) -> Vec<Problem> {
        let crates: BTreeSet<String> = std::fs::read_dir(services)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("Cargo.toml").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != "sdk")
            .collect();
        let known = self.known_names();
        let mut problems = Vec::new();
        for document in self.readable {
            let name = document.name();
            if !crates.contains(name) && !document.is_standalone() {
                let manifest = services.join(name).join("Cargo.toml");
                let place = match document.root.get("name") {
                    Some(node) => document.place(node.position),
                    None => Place::start_of(&document.file),
                };
                let hint = did_you_mean(name, crates.iter().map(String::as_str).filter(|name| !known.contains(name)))
                    .unwrap_or_else(|| format!("write the crate, or remove `{}`", document.file.display()));
                let message = format!("service `{name}` has no crate: `{}` does not exist", manifest.display());
                problems.push(Problem::new(&place, message).hint(hint));
            }
        }
        for name in crates.iter().filter(|name| !known.contains(name.as_str())) {
            let place = Place::start_of(services.join(name).join("Cargo.toml"));
            let manifest = folder.join(format!("{name}.yaml"));
            let problem = Problem::new(&place, format!("crate `{name}` has no manifest"));
            problems.push(problem.hint(format!("write `{}`, at least with `name: {name}`", manifest.display())));
        }
        problems
    }
}

/// Follows calls from `name` and notes every cycle that leads back to the path, beginning with its smallest name.
fn follow<'a>(
    name: &'a str,
    calls: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    path: &mut Vec<&'a str>,
    finished: &mut BTreeSet<&'a str>,
    found: &mut BTreeSet<Vec<&'a str>>,
) {
    if let Some(start) = path.iter().position(|other| *other == name) {
        let mut cycle = path[start..].to_vec();
        let smallest = (0..cycle.len()).min_by_key(|index| cycle[*index]).unwrap_or_default();
        cycle.rotate_left(smallest);
        if cycle.len() > 1 {
            found.insert(cycle);
        }
        return;
    }
    if finished.contains(name) {
        return;
    }
    path.push(name);
    for callee in calls.get(name).into_iter().flatten() {
        follow(callee, calls, path, finished, found);
    }
    path.pop();
    finished.insert(name);
}

/// Variables that the platform sets; `*` is any ending.
const RESERVED: &[&str] = &[
    "SERVICE_*",
    "NATS_*",
    "REDIS_*",
    "LISTEN_*",
    "TASK_ID",
    "WORKERS",
    "CONCURRENCY",
    "STOP_TIMEOUT_MS",
    "GATEWAY_METHODS",
    "HEALTH_ADDR",
    "HTTP_ADDR",
];

fn is_reserved(variable: &str) -> bool {
    RESERVED.iter().any(|reserved| match reserved.strip_suffix('*') {
        Some(prefix) => variable.starts_with(prefix),
        None => variable == *reserved,
    })
}
