//! How a service on ECS is, by its deployments, its tasks, its alarms and what natsctl has done to it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::aws::arn::revision;
use crate::aws::ledger::{DeployedService, State as Ledger};
use crate::aws::services::{Deployment, RolloutState, Service};
use crate::aws::tasks::Task;
use crate::manifest::ServiceManifest;
use crate::model::status::service::Rollout;
use crate::model::status::{Flag, OldTasks, ServiceStatus, State, crash_loop};
use crate::model::step::Action;
use crate::pipeline::history::{Record, last_done, rolled_back, scaled};
use crate::problem::counted;

/// What is known besides the service itself.
pub(super) struct Known<'a> {
    /// Alarms that fire, by the manifests' names of services.
    pub(super) alarms: &'a BTreeMap<String, Vec<String>>,
    pub(super) ledger: &'a Ledger,
    /// The tasks of the cluster, also those that have stopped lately.
    pub(super) tasks: &'a [Task],
    /// The last runs, the newest first.
    pub(super) runs: &'a [Record],
    pub(super) now: Timestamp,
}

/// How a service is, and what is worth knowing of it though it is not wrong.
pub(super) fn judge(
    name: &str,
    service: &Service,
    manifest: Option<&ServiceManifest>,
    known: &Known<'_>,
) -> (ServiceStatus, Vec<String>) {
    let alarms = known.alarms.get(name).cloned().unwrap_or_default();
    let running = service.primary().map_or(service.running_count, |deployment| deployment.running_count);
    // What it was deployed with is known only if no other tool has deployed it since.
    let deployed =
        known.ledger.services.get(name).filter(|deployed| deployed.task_definition == service.task_definition);
    let declared = manifest.map(|manifest| manifest.settings.tasks);
    let exits = Exits::new(service, known.tasks);
    let wrong = problem(service, running, declared, exits.crash_loop(service, known.now));
    let state = wrong.as_ref().map(|(state, _)| *state);
    let firing = (!alarms.is_empty()).then_some(State::Degraded);
    let mut reasons: Vec<String> = wrong.and_then(|(_, reason)| reason).into_iter().collect();
    reasons.extend((!alarms.is_empty()).then(|| format!("alarm: {}", alarms.join(", "))));
    let (flags, notes) = flags(name, service, deployed, manifest, known.runs);
    let is_of = |task: &&Task| task.service.as_ref() == Some(&service.name) && !task.is_stopping;
    let status = ServiceStatus {
        name: name.to_owned(),
        state: state.into_iter().chain(firing).min().unwrap_or(State::Healthy),
        desired: service.desired_count,
        running,
        healthy: running.min(service.desired_count),
        old: old_tasks(service),
        revision: revision(&service.task_definition),
        version: deployed.map(|deployed| deployed.version.clone()).unwrap_or_default(),
        image: deployed.map(|deployed| deployed.image.clone()),
        restarts: u32::try_from(exits.times.len()).unwrap_or(u32::MAX),
        started: known.tasks.iter().filter(is_of).filter_map(|task| task.started).max(),
        last_exit: exits.last,
        rollout: rollout(service),
        alarms,
        flags,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    };
    (status, notes)
}

/// Tasks of what a service runs that exited by themselves. ECS remembers them for about an hour.
struct Exits {
    times: Vec<Timestamp>,
    last: Option<String>,
}

impl Exits {
    fn new(service: &Service, tasks: &[Task]) -> Self {
        let is_one = |task: &&Task| {
            task.crashed
                && task.service.as_ref() == Some(&service.name)
                && task.task_definition == service.task_definition
        };
        let crashed: Vec<&Task> = tasks.iter().filter(is_one).collect();
        let last = crashed.iter().max_by_key(|task| task.stopped).map(|task| exit(task));
        Self { times: crashed.iter().filter_map(|task| task.stopped).collect(), last }
    }

    /// ECS does not say which task took the place of which: each of them may fail once.
    fn crash_loop(&self, service: &Service, now: Timestamp) -> Option<String> {
        let is_more = self.times.len() > service.desired_count as usize;
        is_more.then(|| crash_loop(&self.times, self.last.as_deref(), now)).flatten()
    }
}

fn exit(task: &Task) -> String {
    let code = task.container().and_then(|container| container.exit_code);
    let code = code.map(|code| format!("exited with code {code}"));
    let reason = task.reason().filter(|reason| code.is_none() || !reason.starts_with("Essential container"));
    let said: Vec<String> = code.into_iter().chain(reason).collect();
    if said.is_empty() { "exited".to_owned() } else { said.join(": ") }
}

/// What is wrong with a service besides its alarms; `running` are the tasks of its primary deployment, `declared` those that its manifest
/// asks for. A rollout in which nothing is wrong has no reason.
fn problem(
    service: &Service,
    running: u32,
    declared: Option<u32>,
    crash_loop: Option<String>,
) -> Option<(State, Option<String>)> {
    let desired = service.desired_count;
    let serves_none = service.running_count.max(running) == 0 && desired > 0;
    let at_best = |state: State| if serves_none { State::Down } else { state };
    if service.status != "ACTIVE" {
        return Some((State::Down, Some(format!("it is {}", service.status))));
    }
    if let Some(reason) = crash_loop {
        return Some((at_best(State::CrashLoop), Some(format!("crash loop: {reason}"))));
    }
    if let Some(failed) = service.deployments.iter().find(|one| one.rollout == Some(RolloutState::Failed)) {
        let went_back = if failed.is_primary { "" } else { " and went back" };
        let reason = failed.rollout_reason.as_deref().unwrap_or("see `natsctl events`").trim_end_matches('.');
        return Some((at_best(State::Failed), Some(format!("the last deployment failed{went_back}: {reason}"))));
    }
    let primary = service.primary();
    let failed_tasks = primary.map_or(0, |deployment| deployment.failed_tasks);
    let is_rolling = primary.is_some_and(|deployment| deployment.rollout == Some(RolloutState::InProgress));
    let failures = if failed_tasks > 0 { format!(", {failed_tasks} failed") } else { String::new() };
    match (is_rolling, running < desired) {
        _ if desired == 0 && declared == Some(0) => None,
        _ if desired == 0 => {
            let reason = "scaled to 0: nothing answers its callers; `natsctl scale` starts it again";
            Some((State::Down, Some(reason.to_owned())))
        }
        (true, true) => {
            let reason = format!("rolling out: {running} of {} run{failures}", counted(desired, "task"));
            Some((at_best(State::RollingOut), Some(reason)))
        }
        (false, true) => {
            let event = last_event(service).map(|event| format!(": {event}")).unwrap_or_default();
            let reason = format!("{running} of {} run{failures}{event}", counted(desired, "task"));
            Some((at_best(State::Degraded), Some(reason)))
        }
        (true, false) if failed_tasks > 0 => Some((State::RollingOut, Some(format!("rolling out{failures}")))),
        (true, false) => Some((State::RollingOut, None)),
        (false, false) => None,
    }
}

/// The newest service event, unless it says that nothing happens.
fn last_event(service: &Service) -> Option<String> {
    let message = service.events.first()?.message.trim_end_matches('.');
    Some(message.to_owned()).filter(|message| !message.contains("has reached a steady state"))
}

fn old_tasks(service: &Service) -> Option<OldTasks> {
    let others = service.deployments.iter().filter(|deployment| !deployment.is_primary);
    let running = others.map(|deployment| deployment.running_count).sum();
    (running > 0).then_some(OldTasks { running, healthy: running })
}

fn rollout(service: &Service) -> Option<Rollout> {
    let Deployment { rollout, rollout_reason, .. } = service.primary()?;
    Some(Rollout { state: (*rollout)?.name().to_owned(), reason: rollout_reason.clone() })
}

/// In what it is not as the last deployment left it. What autoscaling sets is meant to differ.
fn flags(
    name: &str,
    service: &Service,
    deployed: Option<&DeployedService>,
    manifest: Option<&ServiceManifest>,
    runs: &[Record],
) -> (Vec<Flag>, Vec<String>) {
    let (mut flags, mut notes) = (Vec::new(), Vec::new());
    let desired = service.desired_count;
    if let Some(declared) = deployed.map(|deployed| deployed.declared_tasks).filter(|declared| *declared != desired) {
        let changes = [Action::Create, Action::Update, Action::Scale, Action::RollBack];
        let scaled_last =
            last_done(runs, name, &changes).is_some_and(|(_, step)| step.step.starts_with(&Action::Scale.to_string()));
        let bounds = manifest.map(|manifest| &manifest.settings.autoscaling);
        let is_automatic = !scaled_last && bounds.is_some_and(|bounds| (bounds.min..=bounds.max).contains(&desired));
        if !is_automatic {
            flags.push(Flag::ScaledByHand);
            if desired > 0 {
                let scaled = scaled(runs, name, desired);
                notes.push(format!("service `{name}`: {scaled}; its manifest says {declared}"));
            }
        }
    }
    if let Some(by) = rolled_back(runs, name, |to| to == service.task_definition) {
        flags.push(Flag::RolledBack);
        let at = revision(&service.task_definition);
        notes.push(format!("service `{name}`: {by} to revision {at}; `natsctl deploy {name}` deploys its manifest"));
    }
    (flags, notes)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service as SdkService, ServiceEvent};

    use super::*;
    use crate::aws::tasks::Container;

    fn deployment(status: &str, state: DeploymentRolloutState, running: i32) -> Deployment {
        Deployment::builder()
            .status(status)
            .running_count(running)
            .rollout_state(state)
            .rollout_state_reason("tasks failed to start.")
            .build()
    }

    fn service(running: i32, deployments: Vec<Deployment>) -> SdkService {
        let event = "(service quest-system-nats) was unable to place a task.";
        SdkService::builder()
            .service_name("quest-system-nats")
            .status("ACTIVE")
            .desired_count(2)
            .running_count(running)
            .task_definition("arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:7")
            .set_deployments(Some(deployments))
            .events(ServiceEvent::builder().message(event).build())
            .build()
    }

    fn judged(
        name: &str,
        service: &SdkService,
        alarms: &BTreeMap<String, Vec<String>>,
        tasks: &[Task],
    ) -> ServiceStatus {
        let now = "2026-11-30T17:00:00Z".parse().unwrap();
        let known = Known { alarms, ledger: &Ledger::default(), tasks, runs: &[], now };
        judge(name, &service.clone().into(), None, &known).0
    }

    #[track_caller]
    fn check(service: &SdkService, state: State, expected: Option<&str>) {
        let status = judged("quest-system", service, &BTreeMap::new(), &[]);
        assert_eq!((status.state, status.reason.as_deref()), (state, expected));
        assert_eq!((status.revision, status.desired), (7, 2));
    }

    #[test]
    fn a_status_says_what_is_wrong_with_a_service() {
        use DeploymentRolloutState::{Completed, Failed, InProgress};
        check(&service(2, vec![deployment("PRIMARY", Completed, 2)]), State::Healthy, None);
        check(
            &service(1, vec![deployment("PRIMARY", Completed, 1)]),
            State::Degraded,
            Some("1 of 2 tasks run: was unable to place a task"),
        );
        let both = vec![deployment("PRIMARY", InProgress, 1), deployment("ACTIVE", Completed, 2)];
        check(&service(3, both), State::RollingOut, Some("rolling out: 1 of 2 tasks run"));
        check(
            &service(2, vec![deployment("PRIMARY", Failed, 2)]),
            State::Failed,
            Some("the last deployment failed: tasks failed to start"),
        );
        let back = vec![deployment("PRIMARY", Completed, 2), deployment("INACTIVE", Failed, 0)];
        check(
            &service(2, back),
            State::Failed,
            Some("the last deployment failed and went back: tasks failed to start"),
        );
        let mut draining = service(2, vec![deployment("PRIMARY", Completed, 2)]);
        draining.status = Some("DRAINING".to_owned());
        check(&draining, State::Down, Some("it is DRAINING"));
    }

    #[test]
    fn a_service_that_was_scaled_to_0_is_not_healthy() {
        let completed = deployment("PRIMARY", DeploymentRolloutState::Completed, 0);
        let stopped = SdkService::builder().service_name("a-nats").status("ACTIVE").deployments(completed).build();
        let status = judged("a", &stopped, &BTreeMap::new(), &[]);
        assert!(status.reason.unwrap().starts_with("scaled to 0: nothing answers its callers"));
    }

    #[test]
    fn a_service_whose_alarm_fires_is_not_healthy() {
        let alarms = BTreeMap::from([("quest-system".to_owned(), vec!["quest-system-cpu".to_owned()])]);
        let healthy = service(2, vec![deployment("PRIMARY", DeploymentRolloutState::Completed, 2)]);
        let status = judged("quest-system", &healthy, &alarms, &[]);
        assert_eq!((status.state, status.reason.as_deref()), (State::Degraded, Some("alarm: quest-system-cpu")));
    }
    fn crashed(minutes_ago: i64) -> Task {
        let now: Timestamp = "2026-11-30T17:00:00Z".parse().unwrap();
        Task {
            service: Some("quest-system-nats".to_owned()),
            task_definition: "arn:aws:ecs:us-east-1:123456789012:task-definition/quest-system-nats:7".to_owned(),
            crashed: true,
            is_stopping: true,
            stopped: Some(now - jiff::SignedDuration::from_mins(minutes_ago)),
            stopped_reason: Some("Essential container in task exited".to_owned()),
            containers: vec![Container { exit_code: Some(1), ..Container::default() }],
            ..Task::default()
        }
    }

    #[test]
    fn tasks_that_exit_again_and_again_are_a_crash_loop_though_all_run_now() {
        let healthy = service(2, vec![deployment("PRIMARY", DeploymentRolloutState::Completed, 2)]);
        let looping = judged("quest-system", &healthy, &BTreeMap::new(), &[crashed(1), crashed(5), crashed(9)]);
        assert_eq!((looping.state, looping.restarts), (State::CrashLoop, 3));
        let reason = "crash loop: 3 tasks exited within 10 minutes; the last one exited with code 1";
        assert_eq!(looping.reason.as_deref(), Some(reason));
        let once = judged("quest-system", &healthy, &BTreeMap::new(), &[crashed(1), crashed(50), crashed(55)]);
        assert_eq!((once.state, once.reason, once.restarts), (State::Healthy, None, 3));
        assert_eq!(once.last_exit.as_deref(), Some("exited with code 1"));
        let other = Task { task_definition: "another".to_owned(), ..crashed(1) };
        let earlier = judged("quest-system", &healthy, &BTreeMap::new(), &[other.clone(), other.clone(), other]);
        assert_eq!((earlier.state, earlier.restarts), (State::Healthy, 0));
    }
}
