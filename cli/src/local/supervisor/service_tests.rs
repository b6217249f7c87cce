//! The rollout against a world that only exists here: processes start at once, and become ready or end when the test says so.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::local::protocol::{DeploymentState, TaskState};
use crate::model::desired::{Definition, Health as Checks, Role};

struct World {
    service: Service,
    now: Moment,
    /// By task: whether it was asked to stop.
    running: BTreeMap<String, bool>,
}

impl World {
    fn new() -> Self {
        Self { service: Service::new(), now: Moment::now(), running: BTreeMap::new() }
    }

    fn with(tasks: u32) -> Self {
        let mut world = Self::new();
        world.put("a", tasks);
        world.all_ready();
        world
    }

    fn put(&mut self, version: &str, tasks: u32) -> Accepted {
        let accepted = self.service.put(put(version, tasks, Force::IfChanged), self.now);
        self.settle();
        accepted
    }

    /// Does what is to be done. A ready task may be asked to stop only if enough others are ready.
    fn settle(&mut self) {
        loop {
            let ready_before = self.ready();
            let effects = self.service.reconcile(self.now);
            let stopped_ready = ready_before.saturating_sub(self.ready());
            if stopped_ready > 0 && self.service.record.target.is_some() {
                assert!(self.ready() >= self.service.wanted(), "too few tasks are left");
            }
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Start { task, .. } => {
                        self.service.started(&task, 1, 1);
                        assert_eq!(self.running.insert(task, false), None);
                    }
                    Effect::Terminate { task } => *self.running.get_mut(&task).unwrap() = true,
                    Effect::Kill { task } => {
                        self.running.remove(&task).unwrap();
                        self.service.exited(&task, Exit::Signal(9), self.now);
                    }
                    Effect::Explain { task } => self.service.explained(&task, vec!["last words".to_owned()]),
                }
            }
        }
        let alive = self.service.tasks.iter().filter(|task| task.is_alive()).count();
        let limit = 2 * self.service.record.desired.max(1) as usize;
        assert!(alive <= limit, "{alive} tasks, more than {limit}");
    }

    fn ready(&self) -> usize {
        self.service.tasks.iter().filter(|task| task.is_ready()).count()
    }

    fn wait(&mut self, millis: u64) {
        self.now.at += Duration::from_millis(millis);
        self.now.unix_ms += millis;
        self.settle();
    }

    fn probe(&mut self, task: &str, ready: bool) {
        let ready = if ready { Ok(()) } else { Err("answered 503".to_owned()) };
        self.service.probed(task, Health { live: Ok(()), ready }, self.now);
        self.settle();
    }

    fn stop_task(&mut self, task: &str) -> Result<(), NotStoppable> {
        let stopped = self.service.stop_task(task, self.now);
        self.settle();
        stopped
    }

    fn exit(&mut self, task: &str) {
        if self.running.remove(task).is_some() {
            self.service.exited(task, Exit::Code(1), self.now);
            self.settle();
        }
    }

    fn started(&self) -> Vec<String> {
        self.running.keys().filter(|task| !self.running[*task]).cloned().collect()
    }

    /// Every task becomes ready, and those that were asked to stop do.
    fn all_ready(&mut self) {
        for _ in 0..10 {
            for task in self.started() {
                self.probe(&task, true);
            }
            self.all_stopped();
            self.wait(200);
        }
    }

    fn all_stopped(&mut self) {
        let stopping: Vec<_> = self.running.iter().filter(|(_, asked)| **asked).map(|(task, _)| task.clone()).collect();
        stopping.iter().for_each(|task| self.exit(task));
    }

    fn state(&self) -> DeploymentState {
        self.service.status().unwrap().deployments[0].state
    }

    fn revisions(&self) -> Vec<u64> {
        self.service.tasks.iter().map(|task| task.target.revision).collect()
    }
}

fn put(version: &str, tasks: u32, force: Force) -> PutService {
    let definition = Definition {
        artifact: "sha256:1".to_owned(),
        version: version.to_owned(),
        role: Role::Worker,
        permissions: String::new(),
        environment: BTreeMap::new(),
        cpu: 256,
        memory_mib: 512,
        workers: 1,
        concurrency: 1,
        health: Checks {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::from_secs(10),
        },
        stop_timeout: Duration::from_secs(30),
        ecs: None,
    };
    let spec = TaskSpec { definition, program: "/bin/true".into(), env: BTreeMap::new() };
    PutService { name: "quest".to_owned(), spec, declared_tasks: tasks, tasks, http_listen: None, force }
}

#[test]
fn a_deployment_is_complete_when_the_old_tasks_are_gone() {
    let mut world = World::with(2);
    assert_eq!(world.state(), DeploymentState::Completed);
    world.put("b", 2);
    assert_eq!(world.revisions(), [1, 1, 2, 2]);
    for task in world.started() {
        world.probe(&task, true);
    }
    assert_eq!(world.state(), DeploymentState::InProgress);
    world.all_stopped();
    assert_eq!((world.state(), world.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn a_deployment_that_failed_half_way_brings_the_old_tasks_back_first() {
    let mut world = World::with(2);
    world.put("b", 2);
    let new: Vec<_> =
        world.service.tasks.iter().filter(|task| task.target.revision == 2).map(|task| task.id.clone()).collect();
    world.probe(&new[0], true);
    world.all_stopped();
    assert_eq!(world.revisions(), [1, 2, 2]);
    world.wait(10_500);
    assert_eq!(world.state(), DeploymentState::Failed);
    // The new task that is ready serves until an old one has come back.
    assert_eq!(world.ready(), 2);
    world.all_ready();
    assert_eq!((world.revisions(), world.service.record.failed), (vec![1, 1], true));
}

#[test]
fn a_task_that_dies_waits_longer_each_time() {
    let mut world = World::with(1);
    for wait in [200, 400, 800] {
        let task = world.started().remove(0);
        world.exit(&task);
        world.wait(wait - 1);
        assert_eq!(world.started(), Vec::<String>::new());
        world.wait(1);
        assert_eq!(world.started().len(), 1);
    }
    assert_eq!(world.service.status().unwrap().tasks[0].restarts, 3);
    assert_eq!(world.state(), DeploymentState::Completed);
}

#[test]
fn a_dead_task_is_not_replaced_when_fewer_are_wanted() {
    let mut world = World::with(2);
    let victim = world.started().remove(0);
    world.exit(&victim);
    world.put("a", 1);
    assert_eq!(world.service.tasks.len(), 1);
    assert_eq!(world.state(), DeploymentState::Completed);
}

#[test]
fn asking_for_a_service_that_lacks_a_task_ends_the_wait() {
    let mut world = World::with(2);
    let victim = world.started().remove(0);
    world.exit(&victim);
    let accepted = world.put("a", 2);
    assert_eq!((accepted.deployment_id, world.state()), (2, DeploymentState::InProgress));
    assert_eq!(world.started().len(), 2);
}

#[test]
fn a_failed_change_of_the_number_keeps_what_runs() {
    let mut world = World::with(1);
    world.put("a", 2);
    world.wait(10_500);
    assert_eq!(world.state(), DeploymentState::Failed);
    assert_eq!((world.ready(), world.service.record.desired), (1, 2));
    world.all_ready();
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_task_that_was_ready_and_is_not_again_makes_the_deployment_fail() {
    let mut world = World::with(1);
    world.put("b", 2);
    for task in world.started() {
        world.probe(&task, true);
    }
    let task = world.service.tasks.iter().find(|task| task.target.revision == 2).unwrap().id.clone();
    world.probe(&task, false);
    world.wait(10_500);
    assert_eq!(world.state(), DeploymentState::Failed);
    let deployment = world.service.status().unwrap().deployments.remove(0);
    assert_eq!(
        deployment.reason,
        Some(format!("task `{task}` was not ready again within 10s: `GET /readyz` answered 503"))
    );
    assert_eq!(deployment.log_tail, ["last words"]);
}

#[test]
fn a_stopped_task_drains_while_another_takes_its_place() {
    let mut world = World::with(2);
    let before = world.service.status().unwrap();
    let (stopped, other) = (before.tasks[0].id.clone(), before.tasks[1].id.clone());
    assert_eq!(world.stop_task(&stopped), Ok(()));
    assert!(world.running[&stopped], "it is asked to stop");
    let started = world.started();
    assert!(started.len() == 2 && started.contains(&other), "{started:?}");
    world.exit(&stopped);
    world.all_ready();
    let after = world.service.status().unwrap();
    assert_eq!((after.ready(), after.tasks.len()), (2, 2));
    assert!(after.tasks.iter().all(|task| task.restarts == 0 && task.last_exit.is_none()));
    assert_eq!(after.deployments, before.deployments);
}

#[test]
fn a_stopped_task_is_killed_when_its_stop_timeout_is_over() {
    let mut world = World::with(1);
    let stopped = world.started().remove(0);
    assert_eq!(world.stop_task(&stopped), Ok(()));
    world.wait(29_999);
    assert!(world.running.contains_key(&stopped));
    world.wait(1);
    assert!(!world.running.contains_key(&stopped));
    assert_eq!(world.service.status().unwrap().tasks.len(), 1);
}

#[test]
fn only_a_task_that_runs_can_be_stopped() {
    let mut world = World::with(2);
    let started = world.started();
    assert_eq!(world.stop_task("00000000"), Err(NotStoppable::Unknown));
    assert_eq!(world.stop_task(&started[0]), Ok(()));
    assert_eq!(world.stop_task(&started[0]), Err(NotStoppable::Stopping));
    world.exit(&started[1]);
    assert_eq!(world.stop_task(&started[1]), Err(NotStoppable::Ended));
}

#[test]
fn stopping_new_tasks_during_a_deployment_does_not_make_it_fail() {
    let mut world = World::with(2);
    world.put("b", 2);
    for _ in 0..2 * TOLERATED_EXITS {
        let new = world.service.tasks.iter().find(|task| task.target.revision == 2 && task.is_alive()).unwrap();
        let new = new.id.clone();
        assert_eq!(world.stop_task(&new), Ok(()));
        world.exit(&new);
    }
    assert_eq!((world.state(), world.ready()), (DeploymentState::InProgress, 2));
    world.all_ready();
    assert_eq!((world.state(), world.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn an_old_task_that_is_stopped_during_a_deployment_is_not_started_again() {
    let mut world = World::with(2);
    world.put("b", 2);
    let old = world.service.tasks[0].id.clone();
    assert_eq!(world.stop_task(&old), Ok(()));
    world.exit(&old);
    assert_eq!(world.revisions(), [1, 2, 2]);
    world.all_ready();
    assert_eq!((world.state(), world.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn a_resumed_service_begins_its_last_deployment_again() {
    let world = World::with(2);
    let resumed = Service::resume(world.service.record.clone(), world.now);
    let mut world = World { service: resumed, ..World::new() };
    world.settle();
    assert_eq!((world.state(), world.started().len()), (DeploymentState::InProgress, 2));
    assert_eq!(world.service.status().unwrap().deployments[0].id, 2);
    world.all_ready();
    assert_eq!(world.state(), DeploymentState::Completed);
}

#[test]
fn a_deleted_service_that_is_put_again_comes_back() {
    let mut world = World::with(2);
    world.service.delete();
    world.settle();
    assert_eq!(world.ready(), 0);
    let accepted = world.put("a", 2);
    assert_eq!((accepted.deployment_id, world.state()), (2, DeploymentState::InProgress));
    world.all_ready();
    assert_eq!((world.state(), world.ready()), (DeploymentState::Completed, 2));
}

#[test]
fn a_halted_service_keeps_its_record() {
    let mut world = World::with(2);
    let before = world.service.record.clone();
    world.service.halt();
    world.settle();
    world.all_stopped();
    assert!(!world.service.has_processes());
    assert_eq!(world.service.record, before);
}

#[test]
fn old_revisions_are_forgotten_but_those_that_run() {
    let mut world = World::with(1);
    for version in 0..20 {
        world.put(&version.to_string(), 1);
        world.all_ready();
    }
    let status = world.service.status().unwrap();
    assert_eq!((status.revision, status.kept.len()), (21, 10));
    assert_eq!(status.previous[0].revision, 20);
    assert!(status.tasks.iter().all(|task| task.state == TaskState::Ready));
}

#[derive(Clone, Debug)]
enum Step {
    Put { version: u8, tasks: u32, force: Force },
    Ready { task: usize },
    Unready { task: usize },
    Exit { task: usize },
    StopTask { task: usize },
    Stopped,
    Wait { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let force = prop_oneof![3 => Just(Force::IfChanged), 1 => Just(Force::NewDeployment)];
    let step = prop_oneof![
        2 => (0..3_u8, 1..4_u32, force).prop_map(|(version, tasks, force)| Step::Put { version, tasks, force }),
        6 => (0..8_usize).prop_map(|task| Step::Ready { task }),
        1 => (0..8_usize).prop_map(|task| Step::Unready { task }),
        1 => (0..8_usize).prop_map(|task| Step::Exit { task }),
        1 => (0..8_usize).prop_map(|task| Step::StopTask { task }),
        3 => Just(Step::Stopped),
        2 => (1..12_000_u64).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The checks are in `settle`: no ready task is stopped while it is needed, and never more than twice as many run.
    #[test]
    fn whatever_happens_the_service_comes_to_its_target_in_the_end(steps in steps()) {
        let mut world = World::with(2);
        for step in steps {
            let started = world.started();
            let pick = |task: usize| started.get(task % started.len().max(1)).cloned().unwrap_or_default();
            match step {
                Step::Put { version, tasks, force } => {
                    let put = put(&version.to_string(), tasks, force);
                    world.service.put(put, world.now);
                    world.settle();
                }
                Step::Ready { task } => world.probe(&pick(task), true),
                Step::Unready { task } => world.probe(&pick(task), false),
                Step::Exit { task } => world.exit(&pick(task)),
                Step::StopTask { task } => drop(world.stop_task(&pick(task))),
                Step::Stopped => world.all_stopped(),
                Step::Wait { millis } => world.wait(millis),
            }
        }
        for _ in 0..10 {
            world.wait(10_000);
            world.all_ready();
        }
        let status = world.service.status().unwrap();
        prop_assert_ne!(status.deployments[0].state, DeploymentState::InProgress);
        prop_assert_eq!(status.ready(), status.desired);
        prop_assert_eq!(status.tasks.len(), status.desired as usize);
    }
}
