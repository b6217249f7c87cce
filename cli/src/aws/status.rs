//! Environment status, from ECS, the alarms and the ledger. Six calls for up to 30 services.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_cloudwatch::types::{AlarmType, StateValue};

use super::Aws;
use super::arn::{family, revision};
use super::error::failed;
use super::ledger::{DeployedService, Ledger, State};
use super::services::{self, ByManifest, Deployment, RolloutState, Service};
use crate::handover::{Handover, prefix};
use crate::manifest::ServiceManifest;
use crate::model::status::{GatewayStatus, Rollout, ServiceStatus, Status};
use crate::pipeline::history::{Record, RunResult};
use crate::problem::counted;

/// The run that is under way, and the one before.
const LAST_RUNS: i32 = 2;

/// Reads the status of the environment.
pub(crate) async fn read(aws: &Aws) -> anyhow::Result<Status> {
    let ledger = Ledger::of(aws);
    let names: Vec<String> = aws.manifests.services.values().map(ServiceManifest::ecs_name).collect();
    let (mut found, firing, state, runs) = futures::try_join!(
        services::describe_all_fields(aws.ecs_cluster(), &names),
        firing_alarms(aws),
        ledger.state(),
        ledger.records(LAST_RUNS)
    )?;
    found.extend(services::describe_all_fields(aws.ecs_cluster(), &undescribed(&state, &names)).await?);
    let ByManifest { own, foreign } = ByManifest::new(&aws.manifests, &aws.handover, found);
    let found = services::converted(own);
    let Alarms { of_services, others } = Alarms::new(firing, found.keys(), &aws.handover);
    let mut problems: Vec<String> = others.into_iter().map(|alarm| format!("alarm `{alarm}`")).collect();
    let mut notes = Vec::new();
    last_run(&runs, &mut problems, &mut notes);
    problems.extend(foreign.iter().map(|(name, foreign)| format!("service `{name}`: {foreign}")));
    let is_missing = |name: &&String| !found.contains_key(*name) && !foreign.contains_key(*name);
    for name in aws.manifests.services.keys().filter(is_missing) {
        problems.push(format!("service `{name}` is not deployed; `natsctl deploy {name}` deploys it"));
    }
    for name in found.keys().filter(|name| !aws.manifests.services.contains_key(*name)) {
        problems.push(format!("no manifest describes service `{name}`; `natsctl deploy --all --prune` removes it"));
    }
    let manifests = &aws.manifests.services;
    let runs = |name: &String| match manifests.get(name) {
        Some(manifest) if manifest.settings.tasks == 0 => Runs::Never,
        _ => Runs::Always,
    };
    let services: Vec<ServiceStatus> =
        found.iter().map(|(name, service)| judge(name, service, &of_services, &state, runs(name))).collect();
    let healthy = problems.is_empty() && services.iter().all(|service| service.reason.is_none());
    Ok(Status {
        environment: aws.manifests.name.clone(),
        healthy,
        services,
        nats: None,
        gateway: GatewayStatus { url: aws.handover.gateway.as_ref().map(|gateway| gateway.url.clone()) },
        open_circuits: Vec::new(),
        problems,
        notes,
    })
}

/// Names of the environment's alarms that are in state `ALARM`.
async fn firing_alarms(aws: &Aws) -> anyhow::Result<BTreeSet<String>> {
    let prefix = prefix(&aws.handover.names.alarm);
    let call = aws.clients.cloudwatch().describe_alarms().alarm_name_prefix(prefix).state_value(StateValue::Alarm);
    let call = call.alarm_types(AlarmType::MetricAlarm).alarm_types(AlarmType::CompositeAlarm).max_records(100);
    let mut firing = BTreeSet::new();
    let mut pages = call.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed(&format!("describe the alarms `{prefix}…`"), error))?;
        let metric = page.metric_alarms().iter().map(|alarm| (alarm.alarm_name(), alarm.state_value()));
        let composite = page.composite_alarms().iter().map(|alarm| (alarm.alarm_name(), alarm.state_value()));
        let fires = |(_, state): &(_, Option<&StateValue>)| *state == Some(&StateValue::Alarm);
        firing.extend(metric.chain(composite).filter(fires).filter_map(|(name, _)| name.map(str::to_owned)));
    }
    Ok(firing)
}

/// Names on ECS of services that natsctl has deployed and no manifest describes any more.
fn undescribed(state: &State, described: &[String]) -> Vec<String> {
    // Before its name was kept, a service had that of its family.
    let name =
        |known: &DeployedService| known.ecs_name.clone().unwrap_or_else(|| family(&known.task_definition).to_owned());
    let names = state.services.values().map(name);
    names.filter(|name| !name.is_empty() && !described.contains(name)).collect()
}

/// Whether a run changes the environment now, and whether the last one failed; `runs` are the last ones, the newest first.
fn last_run(runs: &[Record], problems: &mut Vec<String>, notes: &mut Vec<String>) {
    let text = |run: &Record| format!("`{}` of {} ({:.0})", run.command, run.who, run.started);
    let open = runs.first().filter(|run| run.result == RunResult::Started);
    notes.extend(open.map(|run| format!("{} goes on, or was killed", text(run))));
    let ended = runs.iter().find(|run| run.result != RunResult::Started);
    problems.extend(ended.filter(|run| run.result != RunResult::Done).map(|run| {
        let how = match run.result {
            RunResult::RolledBack => "failed and went back",
            RunResult::Interrupted => "was interrupted (`natsctl deploy --resume` goes on with it)",
            _ => "failed",
        };
        let reason = run.error.as_deref().and_then(|error| error.lines().next()).unwrap_or("see `natsctl history`");
        format!("the last run {how}: {}: {reason}", text(run))
    }));
}

/// Alarms that fire.
struct Alarms {
    of_services: BTreeMap<String, Vec<String>>,
    others: BTreeSet<String>,
}

impl Alarms {
    fn new<'a>(mut firing: BTreeSet<String>, services: impl Iterator<Item = &'a String>, handover: &Handover) -> Self {
        let of =
            |name: &String| (name.clone(), handover.all_alarms(name).filter(|alarm| firing.remove(alarm)).collect());
        let of_services = services.map(of).collect();
        Self { of_services, others: firing }
    }
}

/// Whether a service is to run by its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    Always,
    /// Its manifest asks for no tasks.
    Never,
}

fn judge(
    name: &str,
    service: &Service,
    alarms: &BTreeMap<String, Vec<String>>,
    state: &State,
    runs: Runs,
) -> ServiceStatus {
    let alarms = alarms.get(name).cloned().unwrap_or_default();
    let running = service.primary().map_or(service.running_count, |deployment| deployment.running_count);
    let desired = service.desired_count;
    // What it was deployed with is known only if no other tool has deployed it since.
    let known = state.services.get(name).filter(|known| known.task_definition == service.task_definition);
    let mut reasons: Vec<String> = problem(service, running, runs).into_iter().collect();
    reasons.extend((!alarms.is_empty()).then(|| format!("alarm: {}", alarms.join(", "))));
    ServiceStatus {
        name: name.to_owned(),
        desired,
        running,
        healthy: running.min(desired),
        revision: revision(&service.task_definition),
        version: known.map(|known| known.version.clone()).unwrap_or_default(),
        image: known.map(|known: &DeployedService| known.image.clone()),
        rollout: rollout(service),
        alarms,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

/// What is wrong with a service besides its alarms; `running` are the tasks of its primary deployment.
fn problem(service: &Service, running: u32, runs: Runs) -> Option<String> {
    if service.status != "ACTIVE" {
        return Some(format!("it is {}", service.status));
    }
    let desired = service.desired_count;
    if let Some(failed) = service.deployments.iter().find(|one| one.rollout == Some(RolloutState::Failed)) {
        let went_back = if failed.is_primary { "" } else { " and went back" };
        let reason = failed.rollout_reason.as_deref().unwrap_or("see `natsctl events`").trim_end_matches('.');
        return Some(format!("the last deployment failed{went_back}: {reason}"));
    }
    let primary = service.primary();
    let failed_tasks = primary.map_or(0, |deployment| deployment.failed_tasks);
    let is_rolling = primary.is_some_and(|deployment| deployment.rollout == Some(RolloutState::InProgress));
    let failures = if failed_tasks > 0 { format!(", {failed_tasks} failed") } else { String::new() };
    match (is_rolling, running < desired) {
        _ if desired == 0 && runs == Runs::Never => None,
        _ if desired == 0 => {
            Some("scaled to 0: nothing answers its callers; `natsctl scale` starts it again".to_owned())
        }
        (true, true) => Some(format!("rolling out: {running} of {} run{failures}", counted(desired, "task"))),
        (false, true) => {
            let event = last_event(service).map(|event| format!(": {event}")).unwrap_or_default();
            Some(format!("{running} of {} run{failures}{event}", counted(desired, "task")))
        }
        (true, false) if failed_tasks > 0 => Some(format!("rolling out{failures}")),
        _ => None,
    }
}

/// The newest service event, unless it says that nothing happens.
fn last_event(service: &Service) -> Option<String> {
    let message = service.events.first()?.message.trim_end_matches('.');
    Some(message.to_owned()).filter(|message| !message.contains("has reached a steady state"))
}

fn rollout(service: &Service) -> Option<Rollout> {
    let Deployment { rollout, rollout_reason, .. } = service.primary()?;
    Some(Rollout { state: (*rollout)?.name().to_owned(), reason: rollout_reason.clone() })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service as SdkService, ServiceEvent};
    use serde_json::json;

    use super::*;

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

    #[track_caller]
    fn check(service: &SdkService, expected: Option<&str>) {
        let status = judge("quest-system", &service.clone().into(), &BTreeMap::new(), &State::default(), Runs::Always);
        assert_eq!(status.reason.as_deref(), expected);
        assert_eq!((status.revision, status.desired), (7, 2));
    }

    #[test]
    fn a_status_says_what_is_wrong_with_a_service() {
        use DeploymentRolloutState::{Completed, Failed, InProgress};
        check(&service(2, vec![deployment("PRIMARY", Completed, 2)]), None);
        check(
            &service(1, vec![deployment("PRIMARY", Completed, 1)]),
            Some("1 of 2 tasks run: was unable to place a task"),
        );
        let both = vec![deployment("PRIMARY", InProgress, 1), deployment("ACTIVE", Completed, 2)];
        check(&service(3, both), Some("rolling out: 1 of 2 tasks run"));
        check(
            &service(2, vec![deployment("PRIMARY", Failed, 2)]),
            Some("the last deployment failed: tasks failed to start"),
        );
        let back = vec![deployment("PRIMARY", Completed, 2), deployment("INACTIVE", Failed, 0)];
        check(&service(2, back), Some("the last deployment failed and went back: tasks failed to start"));
        let mut draining = service(2, vec![deployment("PRIMARY", Completed, 2)]);
        draining.status = Some("DRAINING".to_owned());
        check(&draining, Some("it is DRAINING"));
    }

    #[test]
    fn a_service_that_was_scaled_to_0_is_not_healthy() {
        let completed = deployment("PRIMARY", DeploymentRolloutState::Completed, 0);
        let stopped = SdkService::builder().service_name("a-nats").status("ACTIVE").deployments(completed).build();
        let stopped: Service = stopped.into();
        let reason = |runs| judge("a", &stopped, &BTreeMap::new(), &State::default(), runs).reason;
        assert!(reason(Runs::Always).unwrap().starts_with("scaled to 0: nothing answers its callers"));
        assert_eq!(reason(Runs::Never), None);
    }

    #[track_caller]
    fn check_runs(results: &[RunResult], problems: usize, notes: usize) {
        let run = |result: &RunResult| Record {
            id: "2026".to_owned(),
            who: "arn:aws:iam::123456789012:user/ann".to_owned(),
            command: "natsctl deploy --all".to_owned(),
            git_revision: String::new(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ended: None,
            result: *result,
            error: Some("`quest-system` crashed\nits log".to_owned()),
            services: Vec::new(),
            roll: None,
            steps: Vec::new(),
        };
        let (mut wrong, mut noted) = (Vec::new(), Vec::new());
        last_run(&results.iter().map(run).collect::<Vec<_>>(), &mut wrong, &mut noted);
        assert_eq!((wrong.len(), noted.len()), (problems, notes), "{wrong:?} {noted:?}");
        assert!(wrong.iter().all(|text| text.ends_with(": `quest-system` crashed")), "{wrong:?}");
    }

    #[test]
    fn the_last_run_that_ended_counts() {
        check_runs(&[], 0, 0);
        check_runs(&[RunResult::Done, RunResult::Failed], 0, 0);
        check_runs(&[RunResult::RolledBack, RunResult::Done], 1, 0);
        check_runs(&[RunResult::Started, RunResult::Failed], 1, 1);
    }

    #[test]
    fn a_service_without_a_manifest_is_reported_as_long_as_the_ledger_has_it() {
        let known = |family: &str| -> DeployedService {
            let arn = format!("arn:aws:ecs:us-east-1:123456789012:task-definition/{family}:3");
            let known =
                json!({ "definition": "", "version": "", "image": "", "declared_tasks": 2, "task_definition": arn });
            serde_json::from_value(known).unwrap()
        };
        let services = [("quest-system", "quest-system-nats"), ("old", "old-nats")];
        let services = services.map(|(name, family)| (name.to_owned(), known(family))).into();
        let state = State { services, ..State::default() };
        assert_eq!(undescribed(&state, &["quest-system-nats".to_owned()]), ["old-nats"]);
    }

    #[test]
    fn a_service_whose_alarm_fires_is_not_healthy() {
        let alarms = BTreeMap::from([("quest-system".to_owned(), vec!["quest-system-cpu".to_owned()])]);
        let healthy = service(2, vec![deployment("PRIMARY", DeploymentRolloutState::Completed, 2)]);
        let status = judge("quest-system", &healthy.into(), &alarms, &State::default(), Runs::Always);
        assert_eq!(status.reason.as_deref(), Some("alarm: quest-system-cpu"));
    }
}
