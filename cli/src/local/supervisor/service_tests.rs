//! The controller with simulated processes: they start at once, and become ready or exit when the test says so.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::local::protocol::{DeploymentState, TaskState};
use crate::model::desired::{Definition, Health, Role};

struct Simulation {
    service: ServiceController,
    now: Moment,
    /// By task id: whether it was asked to stop.
    running: BTreeMap<String, bool>,
}

impl Simulation {
    fn new() -> Self {
        Self { service: ServiceController::new(), now: Moment::now(), running: BTreeMap::new() }
    }

    fn with(tasks: u32) -> Self {
        let mut simulation = Self::new();
        simulation.put("a", tasks);
        simulation.all_ready();
        simulation
    }

    fn put(&mut self, version: &str, tasks: u32) -> Accepted {
        let accepted = self.service.put(put(version, tasks, Force::IfChanged), self.now);
        self.reconcile();
        accepted
    }

    /// Applies effects until there are none. A ready task may be stopped only if enough others are ready.
    fn reconcile(&mut self) {
        loop {
            let ready_before = self.ready();
            let effects = self.service.reconcile(self.now);
            let stopped_ready = ready_before.saturating_sub(self.ready());
            if stopped_ready > 0 && self.service.record.target.is_some() {
                assert!(self.ready() >= self.service.desired_count(), "too few tasks are left");
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
                    Effect::LameDuck { task } | Effect::Interrupt { task } => panic!("task `{task}` is no NATS server"),
                    Effect::Reload { task } => panic!("task `{task}` of a service reloads nothing"),
                    Effect::Kill { task } => {
                        self.running.remove(&task).unwrap();
                        self.service.exited(&task, Exit::Signal(9), self.now);
                    }
                    Effect::RecordLogTail { task } => {
                        self.service.record_log_tail(&task, vec!["the last line".to_owned()]);
                    }
                }
            }
        }
        let active = self.service.tasks.iter().filter(|task| task.is_active()).count();
        let limit = 2 * self.service.record.desired.max(1) as usize;
        assert!(active <= limit, "{active} tasks, more than {limit}");
    }

    fn ready(&self) -> usize {
        self.service.tasks.iter().filter(|task| task.is_ready()).count()
    }

    fn wait(&mut self, millis: u64) {
        self.now.at += Duration::from_millis(millis);
        self.now.unix_ms += millis;
        self.reconcile();
    }

    fn probe(&mut self, task: &str, ready: bool) {
        let readiness = if ready { Ok(()) } else { Err("answered 503".to_owned()) };
        self.service.probed(task, ProbeResult { liveness: Ok(()), readiness }, self.now);
        self.reconcile();
    }

    fn stop_task(&mut self, task: &str) -> Result<(), NotStoppable> {
        let stopped = self.service.stop_task(task, self.now);
        self.reconcile();
        stopped
    }

    fn exit(&mut self, task: &str) {
        if self.running.remove(task).is_some() {
            self.service.exited(task, Exit::Code(1), self.now);
            self.reconcile();
        }
    }

    fn started(&self) -> Vec<String> {
        self.running.keys().filter(|task| !self.running[*task]).cloned().collect()
    }

    /// Every task becomes ready, and those that were asked to stop exit.
    fn all_ready(&mut self) {
        for _ in 0..10 {
            for task in self.started() {
                self.probe(&task, true);
            }
            self.exit_stopping();
            self.wait(200);
        }
    }

    fn exit_stopping(&mut self) {
        let stopping: Vec<_> =
            self.running.iter().filter(|(_, stopping)| **stopping).map(|(task, _)| task.clone()).collect();
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
        secrets: BTreeMap::new(),
        cpu: 256,
        memory_mib: 512,
        workers: 1,
        concurrency: 1,
        health: Health {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::from_secs(10),
        },
        stop_timeout: Duration::from_secs(30),
        ecs: None,
    };
    let spec = TaskSpec { definition, program: "/bin/true".into(), env: BTreeMap::new(), secrets: BTreeMap::new() };
    PutService { name: "quest".to_owned(), spec, declared_tasks: tasks, tasks, http_listen: None, force }
}

#[test]
fn a_deployment_completes_when_the_old_tasks_have_exited() {
    let mut simulation = Simulation::with(2);
    assert_eq!(simulation.state(), DeploymentState::Completed);
    simulation.put("b", 2);
    assert_eq!(simulation.revisions(), [1, 1, 2, 2]);
    for task in simulation.started() {
        simulation.probe(&task, true);
    }
    assert_eq!(simulation.state(), DeploymentState::InProgress);
    simulation.exit_stopping();
    assert_eq!((simulation.state(), simulation.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn a_service_that_is_to_have_no_tasks_is_deployed_without_any_and_drains_those_of_before() {
    let mut simulation = Simulation::new();
    simulation.put("a", 0);
    assert_eq!((simulation.state(), simulation.revisions()), (DeploymentState::Completed, vec![]));
    let mut simulation = Simulation::with(2);
    simulation.put("b", 0);
    simulation.exit_stopping();
    assert_eq!((simulation.state(), simulation.revisions()), (DeploymentState::Completed, vec![]));
}

#[test]
fn a_deployment_that_failed_half_way_brings_the_old_tasks_back_first() {
    let mut simulation = Simulation::with(2);
    simulation.put("b", 2);
    let new: Vec<_> =
        simulation.service.tasks.iter().filter(|task| task.target.revision == 2).map(|task| task.id.clone()).collect();
    simulation.probe(&new[0], true);
    simulation.exit_stopping();
    assert_eq!(simulation.revisions(), [1, 2, 2]);
    simulation.wait(10_500);
    assert_eq!(simulation.state(), DeploymentState::Failed);
    // The new task that is ready serves until an old one has come back.
    assert_eq!(simulation.ready(), 2);
    simulation.all_ready();
    assert_eq!((simulation.revisions(), simulation.service.record.failed), (vec![1, 1], true));
}

#[test]
fn the_backoff_of_a_task_doubles_with_every_exit() {
    let mut simulation = Simulation::with(1);
    for wait in [200, 400, 800] {
        let task = simulation.started().remove(0);
        simulation.exit(&task);
        simulation.wait(wait - 1);
        assert_eq!(simulation.started(), Vec::<String>::new());
        simulation.wait(1);
        assert_eq!(simulation.started().len(), 1);
    }
    assert_eq!(simulation.service.status().unwrap().tasks[0].restarts, 3);
    assert_eq!(simulation.state(), DeploymentState::Completed);
}

#[test]
fn a_task_in_backoff_is_not_restarted_when_fewer_are_desired() {
    let mut simulation = Simulation::with(2);
    let victim = simulation.started().remove(0);
    simulation.exit(&victim);
    simulation.put("a", 1);
    assert_eq!(simulation.service.tasks.len(), 1);
    assert_eq!(simulation.state(), DeploymentState::Completed);
}

#[test]
fn deploying_a_service_that_lacks_a_task_ends_the_backoff() {
    let mut simulation = Simulation::with(2);
    let victim = simulation.started().remove(0);
    simulation.exit(&victim);
    let accepted = simulation.put("a", 2);
    assert_eq!((accepted.deployment_id, simulation.state()), (2, DeploymentState::InProgress));
    assert_eq!(simulation.started().len(), 2);
}

#[test]
fn a_failed_change_of_the_number_of_tasks_leaves_the_running_ones() {
    let mut simulation = Simulation::with(1);
    simulation.put("a", 2);
    simulation.wait(10_500);
    assert_eq!(simulation.state(), DeploymentState::Failed);
    assert_eq!((simulation.ready(), simulation.service.record.desired), (1, 2));
    assert!(simulation.service.record.failed);
    simulation.all_ready();
    assert_eq!(simulation.ready(), 2);
    assert!(!simulation.service.record.failed, "what was asked for runs");
}

#[test]
fn a_task_that_was_ready_and_is_not_again_makes_the_deployment_fail() {
    let mut simulation = Simulation::with(1);
    simulation.put("b", 2);
    for task in simulation.started() {
        simulation.probe(&task, true);
    }
    let task = simulation.service.tasks.iter().find(|task| task.target.revision == 2).unwrap().id.clone();
    simulation.probe(&task, false);
    simulation.wait(10_500);
    assert_eq!(simulation.state(), DeploymentState::Failed);
    let deployment = simulation.service.status().unwrap().deployments.remove(0);
    assert_eq!(
        deployment.reason,
        Some(format!("task `{task}` was not ready again within 10s: `GET /readyz` answered 503"))
    );
    assert_eq!(deployment.log_tail, ["the last line"]);
}

#[test]
fn a_stopped_task_drains_while_another_takes_its_place() {
    let mut simulation = Simulation::with(2);
    let before = simulation.service.status().unwrap();
    let (stopped, other) = (before.tasks[0].id.clone(), before.tasks[1].id.clone());
    assert_eq!(simulation.stop_task(&stopped), Ok(()));
    assert!(simulation.running[&stopped], "it is asked to stop");
    let started = simulation.started();
    assert!(started.len() == 2 && started.contains(&other), "{started:?}");
    simulation.exit(&stopped);
    simulation.all_ready();
    let after = simulation.service.status().unwrap();
    assert_eq!((after.ready(), after.tasks.len()), (2, 2));
    assert!(after.tasks.iter().all(|task| task.restarts == 0 && task.last_exit.is_none()));
    assert_eq!(after.deployments, before.deployments);
}

#[test]
fn a_stopped_task_is_killed_when_its_stop_timeout_is_over() {
    let mut simulation = Simulation::with(1);
    let stopped = simulation.started().remove(0);
    assert_eq!(simulation.stop_task(&stopped), Ok(()));
    simulation.wait(29_999);
    assert!(simulation.running.contains_key(&stopped));
    simulation.wait(1);
    assert!(!simulation.running.contains_key(&stopped));
    assert_eq!(simulation.service.status().unwrap().tasks.len(), 1);
}

#[test]
fn only_a_task_that_runs_can_be_stopped() {
    let mut simulation = Simulation::with(2);
    let started = simulation.started();
    assert_eq!(simulation.stop_task("00000000"), Err(NotStoppable::Unknown));
    assert_eq!(simulation.stop_task(&started[0]), Ok(()));
    assert_eq!(simulation.stop_task(&started[0]), Err(NotStoppable::Stopping));
    simulation.exit(&started[1]);
    assert_eq!(simulation.stop_task(&started[1]), Err(NotStoppable::Exited));
}

#[test]
fn stopping_new_tasks_during_a_deployment_does_not_make_it_fail() {
    let mut simulation = Simulation::with(2);
    simulation.put("b", 2);
    for _ in 0..2 * MAX_FAILED_TASKS {
        let new = simulation.service.tasks.iter().find(|task| task.target.revision == 2 && task.is_active()).unwrap();
        let new = new.id.clone();
        assert_eq!(simulation.stop_task(&new), Ok(()));
        simulation.exit(&new);
    }
    assert_eq!((simulation.state(), simulation.ready()), (DeploymentState::InProgress, 2));
    simulation.all_ready();
    assert_eq!((simulation.state(), simulation.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn an_old_task_that_is_stopped_during_a_deployment_is_not_started_again() {
    let mut simulation = Simulation::with(2);
    simulation.put("b", 2);
    let old = simulation.service.tasks[0].id.clone();
    assert_eq!(simulation.stop_task(&old), Ok(()));
    simulation.exit(&old);
    assert_eq!(simulation.revisions(), [1, 2, 2]);
    simulation.all_ready();
    assert_eq!((simulation.state(), simulation.revisions()), (DeploymentState::Completed, vec![2, 2]));
}

#[test]
fn resuming_a_service_is_a_deployment() {
    let simulation = Simulation::with(2);
    let resumed = ServiceController::resume(simulation.service.record.clone(), simulation.now);
    let mut simulation = Simulation { service: resumed, ..Simulation::new() };
    simulation.reconcile();
    assert_eq!((simulation.state(), simulation.started().len()), (DeploymentState::InProgress, 2));
    assert_eq!(simulation.service.status().unwrap().deployments[0].id, 2);
    simulation.all_ready();
    assert_eq!(simulation.state(), DeploymentState::Completed);
}

/// What a killed supervisor has left, in the hands of the next one.
fn resumed(tasks: u32) -> Simulation {
    let simulation = Simulation::with(tasks);
    let service = ServiceController::resume(simulation.service.record.clone(), simulation.now);
    let mut resumed = Simulation { service, ..Simulation::new() };
    resumed.reconcile();
    resumed
}

#[test]
fn a_resumed_service_comes_back_however_often_its_tasks_exit_before() {
    let mut simulation = resumed(2);
    for _ in 0..3 * MAX_FAILED_TASKS {
        for task in simulation.started() {
            simulation.exit(&task);
        }
        simulation.wait(10_000);
    }
    // Nor does it fail when they are late.
    simulation.wait(10_500);
    simulation.exit_stopping();
    assert_eq!((simulation.state(), simulation.service.record.failed), (DeploymentState::InProgress, false));
    simulation.wait(10_000);
    simulation.all_ready();
    assert_eq!((simulation.state(), simulation.ready()), (DeploymentState::Completed, 2));
}

#[test]
fn a_resumed_service_whose_tasks_cannot_be_started_fails() {
    let mut simulation = resumed(1);
    for _ in 0..MAX_FAILED_TASKS {
        let task = simulation.started().remove(0);
        simulation.running.remove(&task);
        simulation.service.exited(&task, Exit::NotStarted("no such file".to_owned()), simulation.now);
        simulation.wait(10_000);
    }
    assert_eq!(simulation.state(), DeploymentState::Failed);
}

#[test]
fn a_new_revision_of_a_resumed_service_can_fail() {
    let mut simulation = resumed(1);
    simulation.put("b", 1);
    simulation.wait(10_500);
    assert_eq!((simulation.state(), simulation.service.record.failed), (DeploymentState::Failed, true));
}

#[test]
fn a_failed_new_revision_stays_failed_while_the_old_one_runs() {
    let mut simulation = Simulation::with(1);
    simulation.put("b", 1);
    simulation.wait(10_500);
    simulation.all_ready();
    assert_eq!((simulation.revisions(), simulation.service.record.failed), (vec![1], true));
}

#[test]
fn a_deleted_service_that_is_put_again_comes_back() {
    let mut simulation = Simulation::with(2);
    simulation.service.delete();
    simulation.reconcile();
    assert_eq!(simulation.ready(), 0);
    let accepted = simulation.put("a", 2);
    assert_eq!((accepted.deployment_id, simulation.state()), (2, DeploymentState::InProgress));
    simulation.all_ready();
    assert_eq!((simulation.state(), simulation.ready()), (DeploymentState::Completed, 2));
}

#[test]
fn shutting_down_leaves_the_record() {
    let mut simulation = Simulation::with(2);
    let before = simulation.service.record.clone();
    simulation.service.shut_down();
    simulation.reconcile();
    simulation.exit_stopping();
    assert!(!simulation.service.has_processes());
    assert_eq!(simulation.service.record, before);
}

#[test]
fn old_revisions_are_removed_but_those_that_run() {
    let mut simulation = Simulation::with(1);
    for version in 0..20 {
        simulation.put(&version.to_string(), 1);
        simulation.all_ready();
    }
    let status = simulation.service.status().unwrap();
    assert_eq!((status.revision, status.revisions.len()), (21, 10));
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

    /// The checks are in `reconcile`: no ready task is stopped while it is needed, and never more than twice as many run.
    #[test]
    fn after_any_events_the_service_reaches_its_steady_state(steps in steps()) {
        let mut simulation = Simulation::with(2);
        for step in steps {
            let started = simulation.started();
            let pick = |task: usize| started.get(task % started.len().max(1)).cloned().unwrap_or_default();
            match step {
                Step::Put { version, tasks, force } => {
                    let put = put(&version.to_string(), tasks, force);
                    simulation.service.put(put, simulation.now);
                    simulation.reconcile();
                }
                Step::Ready { task } => simulation.probe(&pick(task), true),
                Step::Unready { task } => simulation.probe(&pick(task), false),
                Step::Exit { task } => simulation.exit(&pick(task)),
                Step::StopTask { task } => drop(simulation.stop_task(&pick(task))),
                Step::Stopped => simulation.exit_stopping(),
                Step::Wait { millis } => simulation.wait(millis),
            }
        }
        for _ in 0..10 {
            simulation.wait(10_000);
            simulation.all_ready();
        }
        let status = simulation.service.status().unwrap();
        prop_assert_ne!(status.deployments[0].state, DeploymentState::InProgress);
        prop_assert_eq!(status.ready(), status.desired);
        prop_assert_eq!(status.tasks.len(), status.desired as usize);
    }
}
