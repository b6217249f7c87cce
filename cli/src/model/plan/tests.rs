//! Plans of chosen and of random states.

use std::time::Duration;

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::model::desired::{Health, Role};

fn definition(version: &str) -> Definition {
    Definition {
        artifact: format!("sha256:{version}"),
        version: version.to_owned(),
        role: Role::Worker,
        permissions: String::new(),
        environment: BTreeMap::from([("MODE".to_owned(), "fast".to_owned())]),
        cpu: 256,
        memory_mib: 512,
        workers: 2,
        concurrency: 100,
        health: Health {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 3,
            start_period: Duration::from_secs(30),
        },
        stop_timeout: Duration::from_secs(30),
        ecs: None,
    }
}

fn service(version: &str, calls: &[&str]) -> Service {
    Service {
        definition: definition(version),
        tasks: 2,
        scaling: Scaling { min: 2, max: 10 },
        calls: calls.iter().map(ToString::to_string).collect(),
        ecs: None,
    }
}

fn stream(subject: &str) -> Stream {
    Stream { subjects: vec![subject.to_owned()], replicas: 3, max_age_seconds: 60, duplicate_window_seconds: 10 }
}

fn node(version: &str) -> Node {
    Node { version: version.to_owned(), config: "1".to_owned() }
}

fn fleet() -> Desired {
    let bucket = Bucket { replicas: 3, history: 1, ttl_seconds: 0 };
    Desired {
        environment: "local".to_owned(),
        images: BTreeMap::new(),
        nodes: BTreeMap::from([("nats-1".to_owned(), node("2.15.1"))]),
        streams: BTreeMap::from([("EVT_A".to_owned(), stream("evt.a"))]),
        buckets: BTreeMap::from([("models".to_owned(), bucket)]),
        services: BTreeMap::from([
            ("a".to_owned(), service("1", &["b"])),
            ("b".to_owned(), service("1", &[])),
            ("gateway".to_owned(), service("1", &["a", "b"])),
        ]),
    }
}

/// What a platform would have done: the plan and nothing else.
fn apply(plan: &Plan, desired: &Desired, observed: &mut Observed) {
    for step in &plan.steps {
        let name = step.name.clone();
        match (step.kind, step.action) {
            (Kind::Node, Action::Delete) => drop(observed.nodes.remove(&name)),
            (Kind::Service, Action::Delete) => drop(observed.services.remove(&name)),
            (Kind::Stream | Kind::Bucket, Action::Delete) => panic!("{step:?} loses data"),
            (Kind::Node, _) => {
                let node = desired.nodes[&name].clone();
                observed.nodes.insert(name, ObservedNode { node, running: true });
            }
            (Kind::Stream, _) => drop(observed.streams.insert(name.clone(), desired.streams[&name].clone())),
            (Kind::Bucket, _) => drop(observed.buckets.insert(name.clone(), desired.buckets[&name].clone())),
            (Kind::Image, _) => {
                observed.images.insert(name.clone(), desired.images[&name].clone());
            }
            (Kind::Service, _) => {
                let service = &desired.services[&name];
                let tasks = step.tasks.unwrap();
                let revision = observed.services.get(&name).map_or(0, |service| service.revision) + 1;
                let service = ObservedService {
                    definition: service.definition.clone(),
                    revision,
                    declared_tasks: service.tasks,
                    desired: tasks,
                    running: tasks,
                    failed: false,
                    ecs: None,
                };
                observed.services.insert(name, service);
            }
        }
    }
}

fn settled(desired: &Desired) -> Observed {
    let mut observed = Observed::default();
    apply(&Plan::new(desired, &observed), desired, &mut observed);
    observed
}

/// One line for each step: wave, action, kind, name, tasks, changes.
fn shown(plan: &Plan) -> Vec<String> {
    let step = |step: &Step| {
        let changes: Vec<String> = step
            .changes
            .iter()
            .map(|change| match (&change.from, &change.to) {
                (Some(from), Some(to)) => format!(" {} {from} → {to}", change.field),
                (None, Some(to)) => format!(" {} + {to}", change.field),
                (from, _) => format!(" {} - {}", change.field, from.as_ref().unwrap()),
            })
            .collect();
        let tasks = step.tasks.map(|tasks| format!(" ×{tasks}")).unwrap_or_default();
        format!("{} {:?} {:?} {}{tasks}{}", step.wave, step.action, step.kind, step.name, changes.join(","))
    };
    plan.steps.iter().map(step).collect()
}

/// What is planned when something changes after all was well.
#[track_caller]
fn check(change: impl FnOnce(&mut Desired, &mut Observed), expected: &[&str]) {
    let mut desired = fleet();
    let mut observed = settled(&desired);
    change(&mut desired, &mut observed);
    assert_eq!(shown(&Plan::new(&desired, &observed)), expected);
}

fn here<'a>(observed: &'a mut Observed, name: &str) -> &'a mut ObservedService {
    observed.services.get_mut(name).unwrap()
}

fn wanted<'a>(desired: &'a mut Desired, name: &str) -> &'a mut Service {
    desired.services.get_mut(name).unwrap()
}

#[test]
fn everything_comes_up_in_waves() {
    let plan = Plan::new(&fleet(), &Observed::default());
    let order: Vec<_> = plan.steps.iter().map(|step| (step.wave, step.action, step.name.as_str())).collect();
    let expected = [(0, "nats-1"), (1, "EVT_A"), (1, "models"), (2, "b"), (3, "a"), (4, "gateway")];
    assert_eq!(order, expected.map(|(wave, name)| (wave, Action::Create, name)));
    let fields: Vec<_> = plan.steps[1].changes.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["duplicate_window_seconds", "max_age_seconds", "replicas", "subjects"]);
}

#[test]
fn nothing_is_to_do_when_nothing_changed() {
    check(|_, _| {}, &[]);
}

#[test]
fn a_change_names_the_fields() {
    check(
        |desired, _| {
            let definition = &mut wanted(desired, "a").definition;
            definition.health.interval = Duration::from_secs(20);
            definition.environment = BTreeMap::from([("LEVEL".to_owned(), "2".to_owned())]);
        },
        &["3 Update Service a ×2 definition.environment.LEVEL + \"2\", definition.environment.MODE - \"fast\", \
           definition.health.interval \"10 s\" → \"20 s\""],
    );
    check(
        |desired, _| drop(desired.streams.insert("EVT_A".to_owned(), stream("evt.b"))),
        &["1 Update Stream EVT_A subjects [\"evt.a\"] → [\"evt.b\"]"],
    );
    check(
        |desired, _| drop(desired.nodes.insert("nats-1".to_owned(), node("2.16.0"))),
        &["0 Update Node nats-1 version \"2.15.1\" → \"2.16.0\""],
    );
}

#[test]
fn what_does_not_run_is_started() {
    check(|_, observed| observed.nodes.get_mut("nats-1").unwrap().running = false, &["0 Start Node nats-1"]);
    check(|_, observed| here(observed, "b").running = 1, &["2 Start Service b ×2 running 1 → 2"]);
    check(|_, observed| here(observed, "b").failed = true, &["2 Start Service b ×2 failed true → false"]);
}

#[test]
fn scaling_is_kept_until_the_manifest_changes() {
    let scaled = |observed: &mut Observed, tasks| {
        here(observed, "b").desired = tasks;
        here(observed, "b").running = tasks;
    };
    check(|_, observed| scaled(observed, 7), &[]);
    check(|_, observed| scaled(observed, 12), &["2 Update Service b ×10 tasks 12 → 10"]);
    check(|_, observed| scaled(observed, 1), &["2 Update Service b ×2 tasks 1 → 2"]);
    check(
        |desired, observed| {
            scaled(observed, 7);
            wanted(desired, "b").tasks = 3;
        },
        &["2 Update Service b ×3 declared_tasks 2 → 3, tasks 7 → 3"],
    );
    check(
        |desired, observed| {
            scaled(observed, 3);
            wanted(desired, "b").tasks = 3;
        },
        &["2 Update Service b ×3 declared_tasks 2 → 3"],
    );
    check(
        |desired, observed| {
            scaled(observed, 7);
            wanted(desired, "b").definition.cpu = 512;
        },
        &["2 Update Service b ×7 definition.cpu 256 → 512"],
    );
}

#[test]
fn what_nothing_asks_for_goes_last_and_data_never() {
    check(
        |desired, observed| {
            desired.services.remove("a");
            wanted(desired, "gateway").calls = BTreeSet::from(["b".to_owned()]);
            desired.nodes.clear();
            desired.streams.clear();
            desired.buckets.clear();
            here(observed, "gateway").running = 0;
        },
        &["3 Start Service gateway ×2 running 0 → 2", "4 Delete Service a", "5 Delete Node nats-1"],
    );
}

#[test]
fn a_selection_leaves_other_services_alone() {
    let plan = Plan::new(&fleet(), &Observed::default()).select(&BTreeSet::from(["a".to_owned()]));
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["nats-1", "EVT_A", "models", "a"]);
}

#[test]
fn a_cycle_does_not_hang() {
    let mut desired = fleet();
    wanted(&mut desired, "b").calls = BTreeSet::from(["a".to_owned()]);
    assert_eq!(Plan::new(&desired, &Observed::default()).steps.len(), 6);
}

/// Services s0 to s5 in versions of their own; each calls only ones with smaller numbers.
fn services() -> impl Strategy<Value = BTreeMap<String, Service>> {
    let one = (0..3_u8, btree_set(0..6_usize, 0..4), 1..6_u32, 1..4_u32, 0..4_u32);
    btree_map(0..6_usize, one, 0..6).prop_map(|services| {
        let service = |(number, (version, calls, tasks, min, more)): (usize, (u8, BTreeSet<usize>, u32, u32, u32))| {
            let service = Service {
                definition: definition(&version.to_string()),
                tasks: tasks.min(min + more).max(min),
                scaling: Scaling { min, max: min + more },
                calls: calls.into_iter().filter(|callee| *callee < number).map(|callee| format!("s{callee}")).collect(),
                ecs: None,
            };
            (format!("s{number}"), service)
        };
        services.into_iter().map(service).collect()
    })
}

fn fleets() -> impl Strategy<Value = Desired> {
    let nodes = btree_map("n[1-3]", (0..2_u8).prop_map(|version| node(&version.to_string())), 0..3);
    let streams = btree_map("E[1-3]", (0..2_u8).prop_map(|number| stream(&number.to_string())), 0..3);
    (nodes, streams, services()).prop_map(|(nodes, streams, services)| Desired {
        nodes,
        streams,
        services,
        ..Desired::default()
    })
}

/// A state that another fleet left behind, with things that went wrong since.
fn observations() -> impl Strategy<Value = Observed> {
    let luck = proptest::collection::vec((any::<bool>(), 0..8_u32, 0..8_u32), 6);
    (fleets(), luck).prop_map(|(fleet, luck)| {
        let mut observed = settled(&fleet);
        for (service, (failed, desired, running)) in observed.services.values_mut().zip(&luck) {
            (service.failed, service.desired, service.running) = (*failed, *desired, *running);
        }
        for (node, (running, ..)) in observed.nodes.values_mut().zip(&luck) {
            node.running = *running;
        }
        observed
    })
}

proptest! {
    #[test]
    fn after_a_plan_nothing_is_left_to_do(desired in fleets(), mut observed in observations()) {
        apply(&Plan::new(&desired, &observed), &desired, &mut observed);
        prop_assert_eq!(Plan::new(&desired, &observed), Plan::default());
    }

    #[test]
    fn an_interrupted_plan_converges(desired in fleets(), mut observed in observations(), done in 0..8_usize) {
        let mut begun = Plan::new(&desired, &observed);
        begun.steps.truncate(done);
        apply(&begun, &desired, &mut observed);
        apply(&Plan::new(&desired, &observed), &desired, &mut observed);
        prop_assert_eq!(Plan::new(&desired, &observed), Plan::default());
    }

    #[test]
    fn nobody_comes_before_what_it_calls(desired in fleets(), observed in observations()) {
        let plan = Plan::new(&desired, &observed);
        let wanted = plan.steps.iter().filter(|step| step.action != Action::Delete);
        let waves: BTreeMap<&str, usize> = wanted.map(|step| (step.name.as_str(), step.wave)).collect();
        for (name, service) in &desired.services {
            for callee in &service.calls {
                if let (Some(wave), Some(before)) = (waves.get(name.as_str()), waves.get(callee.as_str())) {
                    prop_assert!(before < wave, "{} calls {}", name, callee);
                }
            }
        }
        for pair in plan.steps.windows(2) {
            prop_assert!(pair[0].wave <= pair[1].wave);
        }
    }

    #[test]
    fn the_number_of_tasks_stays_within_bounds(desired in fleets(), observed in observations()) {
        for step in Plan::new(&desired, &observed).steps {
            if let (Some(tasks), Some(service)) = (step.tasks, desired.services.get(&step.name)) {
                prop_assert!((service.scaling.min..=service.scaling.max).contains(&tasks));
            }
        }
    }
}
