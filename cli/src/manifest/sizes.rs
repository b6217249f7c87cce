//! Figures that must fit together: what Fargate has, bounds of autoscaling, time limits, ports.

use std::str::FromStr;

use super::caches::CacheSettings;
use super::links::Document;
use super::yaml::{Entry, Node, Source};
use crate::model::units::{Size, Span};
use crate::problem::Problem;

/// What Fargate has for this many CPU units: the least memory, the most and the step, in GiB.
const FARGATE: &[(u64, u64, u64, u64)] =
    &[(512, 1, 4, 1), (1024, 2, 8, 1), (2048, 4, 16, 1), (4096, 8, 30, 1), (8192, 16, 60, 4), (16384, 32, 120, 8)];

/// The smallest size has steps of its own.
const SMALLEST: (u64, [u64; 3]) = (256, [512, 1024, 2048]);

/// The numbers of CPU units that Fargate has.
pub(super) fn cpu_units() -> Vec<u64> {
    [SMALLEST.0].into_iter().chain(FARGATE.iter().map(|(units, ..)| *units)).collect()
}

/// Most bytes of names and values of environment variables. ECS allows 64 KiB for a whole task definition.
const MAX_ENVIRONMENT: usize = 48 << 10;

/// What does not fit in `fleet.yaml` itself.
pub(super) fn fleet(document: &Document) -> Vec<Problem> {
    let defaults = document.root.get("defaults").map(|root| (document, root));
    let mut problems = EffectiveSettings { own: defaults, defaults: None }.problems();
    let age = document.root.find(&["nats", "events", "max_age"]);
    let window = document.root.find(&["nats", "events", "duplicate_window"]);
    if let (Some((_, age)), Some((node, window))) = (parsed::<Span>(age), parsed::<Span>(window))
        && window > age
    {
        let message = format!("`duplicate_window` {window} is longer than `max_age` {age}");
        problems.push(Problem::new(&document.place(node.position), message).hint("NATS refuses that: shorten it"));
    }
    let outbox = document.root.find(&["nats", "events", "outbox_max_age"]);
    if let (Some((_, age)), Some((node, outbox))) = (parsed::<Span>(age), parsed::<Span>(outbox))
        && outbox > age
    {
        let message = format!("`outbox_max_age` {outbox} is longer than `max_age` {age}");
        let hint = "events that their stream has forgotten could come again: shorten it";
        problems.push(Problem::new(&document.place(node.position), message).hint(hint));
    }
    problems
}

/// What does not fit in a service's manifest, taken together with the defaults.
pub(super) fn service(document: &Document, fleet: Option<&Document>) -> Vec<Problem> {
    let defaults = fleet.and_then(|fleet| Some((fleet, fleet.root.get("defaults")?)));
    let mut problems = EffectiveSettings { own: Some((document, &document.root)), defaults }.problems();
    problems.extend(variables(document));
    problems.extend(caches(document, fleet));
    problems
}

/// More in environment variables than a task can be given.
fn variables(document: &Document) -> Option<Problem> {
    let size = |entry: &Entry| entry.key.len() + entry.value.text().map_or(0, str::len);
    let entries = document.root.get("environment")?.entries();
    let largest = entries.iter().max_by_key(|entry| size(entry))?;
    let total: usize = entries.iter().map(size).sum();
    if total <= MAX_ENVIRONMENT {
        return None;
    }
    let message = format!(
        "names and values in `environment` have {total} bytes, and at most {MAX_ENVIRONMENT} are allowed; `{}` alone has {}",
        largest.key,
        size(largest)
    );
    let hint = "a task definition of ECS has at most 64 KiB: let the service read it from elsewhere";
    Some(Problem::new(&document.place(largest.position), message).hint(hint))
}

/// Caches that take more than half of the memory of a task, which the service itself needs, too.
fn caches(document: &Document, fleet: Option<&Document>) -> Option<Problem> {
    let caches = document.root.get("caches")?;
    let defaults = fleet.and_then(|fleet| fleet.root.find(&["defaults", "memory"]));
    let (_, memory) = parsed::<Size>(document.root.get("memory").or(defaults))?;
    let size = |cache: &Entry| match cache.value.get("max_size") {
        None => Some(CacheSettings::default_size()),
        written => parsed::<Size>(written).map(|(_, size)| size),
    };
    let sizes: Option<Vec<u64>> = caches.entries().iter().map(|cache| size(cache).map(Size::bytes)).collect();
    let total: u64 = sizes?.into_iter().fold(0, u64::saturating_add);
    if total <= memory.bytes() / 2 {
        return None;
    }
    let message =
        format!("`caches` may take {} MiB of the {memory} that a task has, which is more than half", total >> 20);
    let hint = "lower `max_size`, or raise `memory`: the service needs the rest for its requests";
    Some(Problem::new(&document.place(caches.position), message).hint(hint))
}

/// Ports that clash or that do not exist.
pub(super) fn environment(document: &Document) -> Vec<Problem> {
    let nodes = document.root.find(&["nats", "nodes"]).and_then(Node::number).unwrap_or(1);
    let groups: Vec<(&str, &Node, u64, u64)> = [
        ("client_port", &["nats", "client_port"][..], nodes),
        ("route_port", &["nats", "route_port"], nodes),
        ("monitor_port", &["nats", "monitor_port"], nodes),
        ("port", &["gateway", "port"], 1),
    ]
    .into_iter()
    .filter_map(|(name, path, count)| {
        let node = document.root.find(path)?;
        let first = node.number().filter(|port| *port > 0)?;
        Some((name, node, first, first + count.max(1) - 1))
    })
    .collect();
    let mut problems = Vec::new();
    for (index, (name, node, first, last)) in groups.iter().enumerate() {
        let place = document.place(node.position);
        if *last > u64::from(u16::MAX) && *first <= u64::from(u16::MAX) {
            let message = format!("`{name}`: the last of {nodes} nodes would have port {last}");
            problems.push(Problem::new(&place, message).hint("the last port is 65535: choose a smaller first one"));
        }
        for (other, _, start, end) in &groups[..index] {
            if first <= end && start <= last {
                let message = format!("`{name}` takes ports {first} to {last}, `{other}` takes {start} to {end}");
                problems.push(
                    Problem::new(&place, message).hint("a node takes each port plus its number: keep them apart"),
                );
            }
        }
    }
    problems
}

/// The settings of a service, or the defaults alone.
struct EffectiveSettings<'a> {
    own: Option<(&'a Document, &'a Node)>,
    defaults: Option<(&'a Document, &'a Node)>,
}

impl<'a> EffectiveSettings<'a> {
    fn problems(&self) -> Vec<Problem> {
        [self.fargate(), self.bounds(), self.tasks(), self.health(), self.start()].into_iter().flatten().collect()
    }

    fn find(&self, path: &[&str]) -> Option<&'a Node> {
        [self.own, self.defaults].into_iter().flatten().find_map(|(_, root)| root.find(path))
    }

    /// A problem at the first of these keys that the document itself has, before all of those that the environment says. What it has not
    /// is said of the defaults.
    fn problem(&self, paths: &[&[&str]], message: String) -> Option<Problem> {
        let (document, root) = self.own?;
        let nodes: Vec<&Node> = paths.iter().filter_map(|path| root.find(path)).collect();
        let is_closest = |node: &&&Node| node.position.source == Source::Environment;
        let node = nodes.iter().find(is_closest).or(nodes.first())?;
        Some(Problem::new(&document.place(node.position), message))
    }

    fn fargate(&self) -> Option<Problem> {
        let cpu = self.find(&["cpu"])?.number()?;
        let (_, memory) = parsed::<Size>(self.find(&["memory"]))?;
        let mebibytes = (memory.bytes() % (1 << 20) == 0).then_some(memory.mebibytes());
        let (fits, sizes) = if cpu == SMALLEST.0 {
            let fits = mebibytes.is_some_and(|mebibytes| SMALLEST.1.contains(&mebibytes));
            (fits, "512 MiB, 1 GiB or 2 GiB".to_owned())
        } else {
            let (_, least, most, step) = FARGATE.iter().find(|(units, ..)| *units == cpu)?;
            let fits = mebibytes.is_some_and(|mebibytes| {
                mebibytes % (step << 10) == 0 && (least << 10..=most << 10).contains(&mebibytes)
            });
            (fits, format!("{least} GiB to {most} GiB in steps of {step} GiB"))
        };
        if fits {
            return None;
        }
        let message = format!("Fargate has no task with {cpu} CPU units and {memory}");
        let problem = self.problem(&[&["memory"], &["cpu"]], message)?;
        Some(problem.hint(format!("{cpu} CPU units go with {sizes}")))
    }

    fn bounds(&self) -> Option<Problem> {
        let min = self.find(&["autoscaling", "min"])?.number()?;
        let max = self.find(&["autoscaling", "max"])?.number()?;
        if min <= max {
            return None;
        }
        let message = format!("`autoscaling` has a `min` of {min} above its `max` of {max}");
        self.problem(&[&["autoscaling", "min"], &["autoscaling", "max"]], message)
    }

    fn tasks(&self) -> Option<Problem> {
        let node = self.find(&["tasks"])?;
        let tasks = node.number()?;
        if tasks == 0 {
            return self.scaled_without_tasks(node.position.source);
        }
        let min = self.find(&["autoscaling", "min"])?.number()?;
        let max = self.find(&["autoscaling", "max"])?.number()?;
        if min > max || (min..=max).contains(&tasks) {
            return None;
        }
        let message = format!("`tasks` is {tasks}, but `autoscaling` allows {min} to {max}");
        let paths: [&[&str]; 3] = [&["tasks"], &["autoscaling", "min"], &["autoscaling", "max"]];
        Some(self.problem(&paths, message)?.hint("change one of them"))
    }

    /// Bounds of autoscaling beside `tasks: 0`, in the same file or in one that says more about where the service runs.
    fn scaled_without_tasks(&self, tasks_from: Source) -> Option<Problem> {
        let (document, root) = self.own?;
        let bounds = ["min", "max"].into_iter().filter_map(|key| Some((key, root.find(&["autoscaling", key])?)));
        let (key, node) = bounds.into_iter().find(|(_, node)| node.position.source >= tasks_from)?;
        let bound = node.number()?;
        let message = format!("`tasks` is 0, but `autoscaling` has a `{key}` of {bound}");
        let hint = "nothing scales a service that is not to run: remove the bounds, or set `tasks` to 1 or more";
        Some(Problem::new(&document.place(node.position), message).hint(hint))
    }

    fn start(&self) -> Option<Problem> {
        let (_, start) = parsed::<Span>(self.find(&["health", "start_period"]))?;
        let is_standalone = self.find(&["role"]).and_then(Node::text) == Some("standalone");
        if is_standalone || start.seconds() > 0 {
            return None;
        }
        let message = format!("`start_period` must be at least 1 s, not {start}");
        self.problem(&[&["health", "start_period"]], message)
    }

    fn health(&self) -> Option<Problem> {
        let (_, timeout) = parsed::<Span>(self.find(&["health", "timeout"]))?;
        let (_, interval) = parsed::<Span>(self.find(&["health", "interval"]))?;
        if timeout <= interval {
            return None;
        }
        let message = format!("`health` has a `timeout` of {timeout} that is longer than its `interval` of {interval}");
        let problem = self.problem(&[&["health", "timeout"], &["health", "interval"]], message)?;
        Some(problem.hint("a check must be over before the next one begins"))
    }
}

fn parsed<T: FromStr>(node: Option<&Node>) -> Option<(&Node, T)> {
    let node = node?;
    Some((node, node.text()?.parse().ok()?))
}
