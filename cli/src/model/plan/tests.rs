//! Plans of chosen and of random states.

use std::time::Duration;

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::*;
use crate::model::desired::{ConsumerStart, Health, Node, Role};
use crate::model::observed::{NodeCondition, ObservedNode};
use crate::model::step::Kind;

mod assets;

fn definition(version: &str) -> Definition {
    Definition {
        artifact: format!("sha256:{version}"),
        version: version.to_owned(),
        role: Role::Worker,
        permissions: String::new(),
        environment: BTreeMap::from([("MODE".to_owned(), "fast".to_owned())]),
        secrets: BTreeMap::new(),
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
        streams: BTreeSet::new(),
        buckets: BTreeSet::new(),
        consumers: BTreeSet::new(),
        ecs: None,
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn stream(subject: &str) -> Stream {
    Stream {
        subjects: vec![subject.to_owned()],
        replicas: 3,
        max_age_seconds: 60,
        duplicate_window_seconds: 10,
        ..Stream::default()
    }
}

fn node(version: &str) -> Node {
    Node { version: version.to_owned(), config: "1".to_owned(), accounts: "1".to_owned() }
}

fn fleet() -> Desired {
    let bucket = Bucket { replicas: 3, history: 1, ..Bucket::default() };
    Desired {
        environment: "local".to_owned(),
        images: BTreeMap::new(),
        identities: BTreeMap::new(),
        nodes: BTreeMap::from([("nats-1".to_owned(), node("2.15.1"))]),
        streams: BTreeMap::from([("EVT_A".to_owned(), stream("evt.a"))]),
        buckets: BTreeMap::from([("models".to_owned(), bucket)]),
        consumers: BTreeMap::new(),
        services: BTreeMap::from([
            ("a".to_owned(), Service { streams: names(&["EVT_A"]), ..service("1", &["b"]) }),
            ("b".to_owned(), Service { buckets: names(&["models"]), ..service("1", &[]) }),
            ("gateway".to_owned(), service("1", &["a", "b"])),
        ]),
    }
}

/// Everything that the manifests name is deployed, and what they do not name is deleted.
fn deploy_all(desired: &Desired) -> Change {
    let selection = Selection { services: desired.services.keys().cloned().collect(), all: true };
    Change::Deploy(Deploy { selection, prune: true, without_jetstream: false })
}

fn plan(desired: &Desired, observed: &Observed) -> Plan {
    Plan::new(&deploy_all(desired), desired, observed).unwrap()
}

fn stored(observed: &mut Observed) -> &mut Assets {
    if !matches!(observed.jetstream, Seen::Present(_)) {
        observed.jetstream = Seen::Present(Assets::default());
    }
    let Seen::Present(assets) = &mut observed.jetstream else { unreachable!() };
    assets
}

/// What a platform does: the steps with what they carry, and nothing else.
fn apply(plan: &Plan, observed: &mut Observed) {
    for Step { operation, .. } in plan.steps.clone() {
        match operation {
            Operation::StartNode { node, spec, .. }
            | Operation::RestartNode { node, spec }
            | Operation::RepairNode { node, spec, .. }
            | Operation::ReloadNode { node, spec } => {
                let condition = NodeCondition::Healthy;
                observed.nodes.insert(node, ObservedNode { node: spec, running: true, condition });
            }
            Operation::DeleteNode { node } => drop(observed.nodes.remove(&node)),
            Operation::PutStream { stream, config, .. } | Operation::ReduceStream { stream, config, .. } => {
                stored(observed).streams.insert(stream, config);
            }
            Operation::PutBucket { bucket, config, .. } | Operation::ReduceBucket { bucket, config, .. } => {
                stored(observed).buckets.insert(bucket, config);
            }
            Operation::PutConsumer { consumer, config, .. } => {
                stored(observed).consumers.insert(consumer, config);
            }
            Operation::DeleteConsumer { consumer } => drop(stored(observed).consumers.remove(&consumer)),
            Operation::PutIdentity { identity, spec, .. } => drop(observed.identities.insert(identity, spec)),
            Operation::PushImage { service, image, .. } => drop(observed.images.insert(service, image)),
            Operation::DeployService { service, before, target, tasks, .. } => {
                let state = ServiceState {
                    definition: target.definition.clone(),
                    revision: before.map_or(0, |before| before.revision) + 1,
                    task_definition: None,
                    declared_tasks: target.tasks,
                    desired: tasks,
                    failed: false,
                    inactive: false,
                    ecs: None,
                };
                let (revisions, kept) = (Vec::new(), BTreeMap::new());
                let service_there = ObservedService { state, running: tasks, revisions, kept, bounds: None };
                observed.services.insert(service, service_there);
            }
            Operation::DeleteService { service, .. } => drop(observed.services.remove(&service)),
            other => panic!("no deployment plans {other:?}"),
        }
    }
}

fn settled(desired: &Desired) -> Observed {
    let mut observed = Observed::default();
    apply(&plan(desired, &observed), &mut observed);
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
        let tasks = step.tasks().map(|tasks| format!(" ×{tasks}")).unwrap_or_default();
        let losses: Vec<String> = step.losses().iter().map(|loss| format!(" !{}", loss.kind())).collect();
        let (action, kind, name) = (step.action(), step.kind(), step.name());
        format!("{} {action:?} {kind:?} {name}{tasks}{}{}", step.wave, changes.join(","), losses.concat())
    };
    plan.steps.iter().map(step).collect()
}

/// What is planned when something changes after all was well.
#[track_caller]
fn check(change: impl FnOnce(&mut Desired, &mut Observed), expected: &[&str]) {
    let mut desired = fleet();
    let mut observed = settled(&desired);
    change(&mut desired, &mut observed);
    assert_eq!(shown(&plan(&desired, &observed)), expected);
}

fn here<'a>(observed: &'a mut Observed, name: &str) -> &'a mut ServiceState {
    &mut observed.services.get_mut(name).unwrap().state
}

fn wanted<'a>(desired: &'a mut Desired, name: &str) -> &'a mut Service {
    desired.services.get_mut(name).unwrap()
}

#[test]
fn everything_comes_up_in_waves() {
    let plan = plan(&fleet(), &Observed::default());
    let order: Vec<_> = plan.steps.iter().map(|step| (step.wave, step.action(), step.name())).collect();
    let expected = [(0, "nats-1"), (1, "models"), (2, "EVT_A"), (3, "b"), (4, "a"), (5, "gateway")];
    assert_eq!(order, expected.map(|(wave, name)| (wave, Action::Create, name)));
    let fields: Vec<_> = plan.steps[2].changes.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["duplicate_window_seconds", "max_age_seconds", "outboxes", "replicas", "subjects"]);
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
        &["0 Update Service a ×2 definition.environment.LEVEL + \"2\", definition.environment.MODE - \"fast\", \
           definition.health.interval \"10 s\" → \"20 s\""],
    );
    check(
        |desired, _| drop(desired.streams.insert("EVT_A".to_owned(), stream("evt.b"))),
        &[
            "0 Update Stream EVT_A subjects [\"evt.a\"] → [\"evt.a\",\"evt.b\"]",
            "1 Reduce Stream EVT_A subjects [\"evt.a\",\"evt.b\"] → [\"evt.b\"] !subjects",
        ],
    );
    check(
        |desired, _| drop(desired.nodes.insert("nats-1".to_owned(), node("2.16.0"))),
        &["0 Update Node nats-1 version \"2.15.1\" → \"2.16.0\""],
    );
}

/// The stream of `a` takes events over from bucket `models`.
#[test]
fn what_does_not_run_is_started() {
    check(|_, observed| observed.nodes.get_mut("nats-1").unwrap().running = false, &["0 Start Node nats-1"]);
    check(|_, observed| observed.services.get_mut("b").unwrap().running = 1, &["0 Start Service b ×2 running 1 → 2"]);
    check(|_, observed| here(observed, "b").failed = true, &["0 Start Service b ×2 failed true → false"]);
}

#[test]
fn scaling_is_kept_until_the_manifest_changes() {
    let scaled = |observed: &mut Observed, tasks| {
        here(observed, "b").desired = tasks;
        observed.services.get_mut("b").unwrap().running = tasks;
    };
    check(|_, observed| scaled(observed, 7), &[]);
    check(|_, observed| scaled(observed, 12), &["0 Update Service b ×10 tasks 12 → 10"]);
    check(|_, observed| scaled(observed, 1), &["0 Update Service b ×2 tasks 1 → 2"]);
    check(
        |desired, observed| {
            scaled(observed, 7);
            wanted(desired, "b").tasks = 3;
        },
        &["0 Update Service b ×3 declared_tasks 2 → 3, tasks 7 → 3"],
    );
    check(
        |desired, observed| {
            scaled(observed, 3);
            wanted(desired, "b").tasks = 3;
        },
        &["0 Update Service b ×3 declared_tasks 2 → 3"],
    );
    check(
        |desired, observed| {
            scaled(observed, 7);
            wanted(desired, "b").definition.cpu = 512;
        },
        &["0 Update Service b ×7 definition.cpu 256 → 512"],
    );
}

#[test]
fn a_service_that_was_scaled_to_0_runs_again_as_its_manifest_says() {
    for tasks in [2, 3, 10] {
        let expected = format!("0 Update Service b ×{tasks} tasks 0 → {tasks}");
        check(
            |desired, observed| {
                wanted(desired, "b").tasks = tasks;
                here(observed, "b").declared_tasks = tasks;
                here(observed, "b").desired = 0;
            },
            &[&expected],
        );
    }
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
            observed.services.get_mut("gateway").unwrap().running = 0;
        },
        &["0 Start Service gateway ×2 running 0 → 2", "1 Delete Service a", "2 Delete Node nats-1"],
    );
}

/// Only these services are deployed.
fn deploy(services: &[&str]) -> Change {
    let selection = Selection { services: names(services), all: false };
    Change::Deploy(Deploy { selection, ..Deploy::default() })
}

#[test]
fn a_selection_leaves_other_services_and_what_they_store_alone() {
    let plan = Plan::new(&deploy(&["a"]), &fleet(), &Observed::default()).unwrap();
    let names: Vec<&str> = plan.steps.iter().map(Step::name).collect();
    assert_eq!(names, ["nats-1", "EVT_A", "a"]);

    let mut observed = settled(&fleet());
    stored(&mut observed).buckets.get_mut("models").unwrap().history = 9;
    let plan = Plan::new(&deploy(&["a"]), &fleet(), &observed).unwrap();
    assert_eq!(plan, Plan::default());
}

#[test]
fn what_no_manifest_names_stays_unless_it_is_pruned() {
    let mut observed = settled(&fleet());
    let extra = observed.services["a"].clone();
    observed.services.insert("extra".to_owned(), extra);
    let change = Change::Deploy(Deploy {
        selection: Selection { services: fleet().services.into_keys().collect(), all: true },
        ..Deploy::default()
    });
    assert_eq!(Plan::new(&change, &fleet(), &observed).unwrap(), Plan::default());
    assert_eq!(shown(&plan(&fleet(), &observed)), ["0 Delete Service extra"]);
}

#[test]
fn servers_are_restarted_one_at_a_time_after_those_that_are_down() {
    let mut desired = fleet();
    for number in 2..=4 {
        desired.nodes.insert(format!("nats-{number}"), node("2.15.1"));
    }
    let mut observed = settled(&desired);
    observed.nodes.get_mut("nats-4").unwrap().running = false;
    for name in ["nats-1", "nats-2"] {
        desired.nodes.insert(name.to_owned(), node("2.16.0"));
    }
    let waves: Vec<_> = plan(&desired, &observed).steps.iter().map(|step| format!("{} {step}", step.wave)).collect();
    assert_eq!(waves, ["0 start node nats-4", "1 update node nats-1", "2 update node nats-2"]);
}

#[test]
fn nothing_is_planned_through_what_could_not_be_read() {
    let unknown = || Seen::Unknown("no leader".to_owned());
    let refused = Plan::new(&deploy_all(&fleet()), &fleet(), &Observed { jetstream: unknown(), ..settled(&fleet()) });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("could not be read") && refused.contains("no leader"), "{refused}");
    // The gateway stores nothing.
    let observed = Observed { jetstream: unknown(), ..settled(&fleet()) };
    assert_eq!(Plan::new(&deploy(&["gateway"]), &fleet(), &observed).unwrap(), Plan::default());
}

#[test]
fn servers_that_are_down_are_started_before_the_rest_is_planned() {
    let mut observed = Observed { jetstream: Seen::Unknown("no server runs".to_owned()), ..settled(&fleet()) };
    observed.nodes.get_mut("nats-1").unwrap().running = false;
    let plan = plan(&fleet(), &observed);
    assert_eq!(shown(&plan), ["0 Start Node nats-1"]);
    assert_eq!(plan.incomplete.as_deref(), Some("no server runs"));
    assert!(!plan.is_empty());
    assert!(plan.summary().ends_with("the rest is planned when these are done"), "{}", plan.summary());
}

#[track_caller]
fn refused(change: &Change, parts: &[&str]) {
    let mut observed = settled(&fleet());
    observed.services.remove("gateway");
    let error = Plan::new(change, &fleet(), &observed).unwrap_err();
    let message = error.to_string();
    let text = format!("{message} {}", crate::error::hint(&error.into()).unwrap());
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn scale_to(service: &str, tasks: u32) -> Change {
    Change::Scale { service: service.to_owned(), tasks, bounds: Scaling { min: 2, max: 10 } }
}

#[test]
fn other_changes_are_plans_too() {
    let mut observed = settled(&fleet());
    let check = |change: &Change, observed: &Observed, expected: &[&str]| {
        assert_eq!(shown(&Plan::new(change, &fleet(), observed).unwrap()), expected);
    };
    check(
        &Change::Restart(Selection { services: names(&["a", "b"]), all: false }),
        &observed,
        &["0 Restart Service a", "0 Restart Service b"],
    );
    check(&scale_to("a", 3), &observed, &["0 Scale Service a ×3 tasks 2 → 3"]);
    check(&scale_to("a", 0), &observed, &["0 Scale Service a ×0 tasks 2 → 0"]);
    check(&scale_to("a", 2), &observed, &[]);
    check(&Change::Down { data: false }, &observed, &["0 Stop Environment local"]);
    check(&Change::Down { data: true }, &observed, &["0 Stop Environment local", "0 Delete Data local"]);

    observed.services.remove("gateway");
    let all = Selection { services: fleet().services.into_keys().collect(), all: true };
    check(&Change::Restart(all), &observed, &["0 Restart Service a", "0 Restart Service b"]);
    refused(&Change::Restart(Selection { services: names(&["gateway"]), all: false }), &["`gateway` is not deployed"]);
    refused(&scale_to("gateway", 2), &["`gateway` is not deployed", "natsctl deploy gateway"]);
    for (tasks, message) in
        [(11, "`a` may have at most 10 tasks, not 11"), (1, "`a` may have no fewer than 2 tasks, not 1")]
    {
        assert_eq!(scale_to("a", tasks).refuse_impossible().unwrap_err().to_string(), message);
    }
}

#[test]
fn a_service_is_rolled_back_to_the_last_revision_that_succeeded() {
    let revision = |number, succeeded| Revision {
        number,
        task_definition: None,
        definition: Some(definition(&number.to_string())),
        succeeded,
    };
    let mut observed = settled(&fleet());
    let service = observed.services.get_mut("a").unwrap();
    service.state.revision = 9;
    service.revisions = vec![revision(9, true), revision(8, false), revision(5, true), revision(6, true)];
    let to = |to| {
        let change = Change::RollBack { service: "a".to_owned(), to };
        Plan::new(&change, &fleet(), &observed).map(|plan| match plan.steps.as_slice() {
            [] => None,
            [Step { operation: Operation::RollBackService { to, .. }, .. }] => Some(to.number),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(to(None).unwrap(), Some(5));
    assert_eq!(to(Some(8)).unwrap(), Some(8));
    assert_eq!(to(Some(9)).unwrap(), None);
    let error = to(Some(7)).unwrap_err();
    assert_eq!(error.to_string(), "`a` has no revision 7 to roll back to");
    assert_eq!(crate::error::hint(&error.into()).unwrap(), "known revisions: 9, 8, 5, 6; now it runs 9");
}

#[test]
fn tasks_are_stopped_by_the_beginnings_of_their_ids() {
    let task = |id: &str, service: &str| ObservedTask { id: id.to_owned(), service: Some(service.to_owned()) };
    let observed = Observed {
        tasks: vec![task("aabb", "a"), task("aacc", "a"), task("ddee", "b"), task("ddeeff", "b")],
        ..settled(&fleet())
    };
    let stop = |selection| {
        let plan = Plan::new(&Change::Stop(selection), &fleet(), &observed)?;
        Ok::<_, Hinted>(plan.steps.iter().map(|step| step.name().to_owned()).collect::<Vec<_>>())
    };
    let ids = |ids: &[&str]| TaskSelection::Ids(ids.iter().map(ToString::to_string).collect());
    assert_eq!(stop(TaskSelection::Service("a".to_owned())).unwrap(), ["aabb", "aacc"]);
    assert_eq!(stop(ids(&["arn:x/aab", "ddee"])).unwrap(), ["aabb", "ddee"]);
    assert_eq!(stop(ids(&["aa"])).unwrap_err().to_string(), "several tasks begin with `aa`");
    assert_eq!(stop(ids(&["f"])).unwrap_err().to_string(), "no task `f` runs");
}

#[test]
fn a_plan_is_the_same_after_it_was_saved_and_read() {
    let mut observed = settled(&fleet());
    stored(&mut observed).buckets.get_mut("models").unwrap().history = 20;
    here(&mut observed, "a").definition.cpu = 128;
    let plan = plan(&fleet(), &observed);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    let step = &serde_json::to_value(&plan).unwrap()["steps"][0];
    assert_eq!((&step["action"], &step["kind"], &step["name"]), (&"reduce".into(), &"bucket".into(), &"models".into()));
}

#[test]
fn a_cycle_does_not_hang() {
    let mut desired = fleet();
    wanted(&mut desired, "b").calls = BTreeSet::from(["a".to_owned()]);
    assert_eq!(plan(&desired, &Observed::default()).steps.len(), 6);
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
                streams: names(&["E1", "E2", "E3"]),
                buckets: BTreeSet::new(),
                consumers: BTreeSet::new(),
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
            (service.state.failed, service.state.desired, service.running) = (*failed, *desired, *running);
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
        apply(&plan(&desired, &observed), &mut observed);
        prop_assert_eq!(plan(&desired, &observed), Plan::default());
    }

    #[test]
    fn an_interrupted_plan_converges(desired in fleets(), mut observed in observations(), done in 0..8_usize) {
        let mut interrupted = plan(&desired, &observed);
        interrupted.steps.truncate(done);
        apply(&interrupted, &mut observed);
        apply(&plan(&desired, &observed), &mut observed);
        prop_assert_eq!(plan(&desired, &observed), Plan::default());
    }

    #[test]
    fn no_service_comes_before_one_that_it_calls(desired in fleets(), observed in observations()) {
        let plan = plan(&desired, &observed);
        let wanted = plan.steps.iter().filter(|step| step.action() != Action::Delete);
        let waves: BTreeMap<&str, usize> = wanted.map(|step| (step.name(), step.wave)).collect();
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
        for step in plan(&desired, &observed).steps {
            if let (Some(tasks), Some(service)) = (step.tasks(), desired.services.get(step.name())) {
                prop_assert!((service.scaling.min..=service.scaling.max).contains(&tasks));
            }
        }
    }
}
