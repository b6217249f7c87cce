//! Environment status, from ECS, the alarms and the ledger. Ten calls for up to 30 services with a hundred tasks.

mod service;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_cloudwatch::types::{AlarmType, StateValue};

use jiff::Timestamp;

use self::service::{Known, judge};
use super::Aws;
use super::arn::family;
use super::error::failed;
use super::ledger::{DeployedService, Ledger, State};
use super::services::{self, ByManifest};
use super::tasks::{self, DesiredStatus, Task};
use crate::handover::{Handover, prefix};
use crate::manifest::{ServiceManifest, unknown_service};
use crate::model::status::{Deploying, GatewayStatus, Status};
use crate::pipeline::history::{Record, RunResult};

/// The run that is under way, and those before, among which it is looked for who has scaled a service or rolled it back.
const LAST_RUNS: i32 = 20;

/// Reads the status of the environment, with these services or with all.
///
/// # Errors
/// A name that no service has; what AWS refuses.
pub(crate) async fn read(aws: &Aws, typed: &[String]) -> anyhow::Result<Status> {
    let ledger = Ledger::of(aws);
    let is_shown = |name: &str| typed.is_empty() || typed.iter().any(|typed| typed == name);
    let manifests = &aws.manifests.services;
    let names: Vec<String> = manifests.values().map(ServiceManifest::ecs_name).collect();
    let shown: Vec<String> =
        manifests.values().filter(|service| is_shown(&service.name)).map(ServiceManifest::ecs_name).collect();
    let (mut found, firing, state, runs, running, stopped) = futures::try_join!(
        services::describe_all_fields(aws.ecs_cluster(), &shown),
        firing_alarms(aws),
        ledger.state(),
        ledger.records(LAST_RUNS),
        tasks::of_service(aws.ecs_cluster(), None, DesiredStatus::Running),
        tasks::of_service(aws.ecs_cluster(), None, DesiredStatus::Stopped),
    )?;
    let known: BTreeSet<&String> = manifests.keys().chain(state.services.keys()).collect();
    if let Some(unknown) = typed.iter().find(|name| !known.contains(name)) {
        return Err(unknown_service(unknown, known.iter().map(|name| name.as_str())).into());
    }
    found.extend(services::describe_all_fields(aws.ecs_cluster(), &undescribed(&state, &names, is_shown)).await?);
    let ByManifest { own, foreign } = ByManifest::new(&aws.manifests, &aws.handover, found);
    let found = services::converted(own);
    // Those of services that are not shown are none of the environment's.
    let alarmed = found.keys().chain(manifests.keys().filter(|name| !is_shown(name)));
    let Alarms { of_services, others } = Alarms::new(firing, alarmed, &aws.handover);
    let mut problems: Vec<String> = others.into_iter().map(|alarm| format!("alarm `{alarm}`")).collect();
    let mut notes = Vec::new();
    let is_open = runs.first().is_some_and(|run| run.result == RunResult::Started);
    let is_locked = is_open && ledger.is_locked().await?;
    let deploying = last_run(&runs, is_locked, &mut problems, &mut notes);
    problems.extend(foreign.iter().map(|(name, foreign)| format!("service `{name}`: {foreign}")));
    let is_missing = |name: &&String| !found.contains_key(*name) && !foreign.contains_key(*name);
    for name in manifests.keys().filter(|name| is_shown(name)).filter(is_missing) {
        problems.push(format!("service `{name}` is not deployed; `natsctl deploy {name}` deploys it"));
    }
    for name in found.keys().filter(|name| !manifests.contains_key(*name)) {
        problems.push(format!("no manifest describes service `{name}`; `natsctl deploy --all --prune` removes it"));
    }
    let tasks: Vec<Task> = running.into_iter().chain(stopped).map(|task| task.of(&aws.manifests)).collect();
    let known = Known { alarms: &of_services, ledger: &state, tasks: &tasks, runs: &runs, now: Timestamp::now() };
    let mut services = Vec::new();
    for (name, service) in &found {
        let (status, noted) = judge(name, service, manifests.get(name), &known);
        services.push(status);
        notes.extend(noted);
    }
    let healthy = problems.is_empty() && services.iter().all(|service| service.reason.is_none());
    Ok(Status {
        environment: aws.manifests.name.clone(),
        healthy,
        deploying,
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
fn undescribed(state: &State, described: &[String], is_shown: impl Fn(&str) -> bool) -> Vec<String> {
    // Before its name was kept, a service had that of its family.
    let name =
        |known: &DeployedService| known.ecs_name.clone().unwrap_or_else(|| family(&known.task_definition).to_owned());
    let shown = state.services.iter().filter(|(name, _)| is_shown(name));
    let names = shown.map(|(_, known)| name(known));
    names.filter(|name| !name.is_empty() && !described.contains(name)).collect()
}

/// The run that changes the environment now, if there is one, and whether the last one failed; `runs` are the last ones, the newest first.
fn last_run(
    runs: &[Record],
    is_locked: bool,
    problems: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Option<Deploying> {
    let text = |run: &Record| format!("`{}` of {} ({:.0})", run.command, run.who, run.started);
    let open = runs.first().filter(|run| run.result == RunResult::Started);
    if let Some(run) = open.filter(|_| !is_locked) {
        notes.push(format!("{} was killed; `natsctl deploy --resume` goes on with it", text(run)));
    }
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
    open.filter(|_| is_locked).map(|run| Deploying {
        who: run.who.clone(),
        command: run.command.clone(),
        since: run.started,
    })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let runs: Vec<Record> = results.iter().map(run).collect();
        assert_eq!(last_run(&runs, false, &mut wrong, &mut noted), None);
        assert_eq!((wrong.len(), noted.len()), (problems, notes), "{wrong:?} {noted:?}");
        assert!(wrong.iter().all(|text| text.ends_with(": `quest-system` crashed")), "{wrong:?}");
    }

    #[test]
    fn a_run_that_goes_on_is_told_from_one_that_was_killed() {
        let mut run = Record::start("ann", "natsctl deploy --all", std::path::Path::new("/"), BTreeSet::new());
        let (mut wrong, mut noted) = (Vec::new(), Vec::new());
        let deploying = last_run(std::slice::from_ref(&run), true, &mut wrong, &mut noted).unwrap();
        assert_eq!((deploying.who.as_str(), deploying.since), ("ann", run.started));
        assert_eq!((wrong.len(), noted.len()), (0, 0));
        run.result = RunResult::Done;
        assert_eq!(last_run(&[run], true, &mut wrong, &mut noted), None);
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
        assert_eq!(undescribed(&state, &["quest-system-nats".to_owned()], |_| true), ["old-nats"]);
        assert!(undescribed(&state, &["quest-system-nats".to_owned()], |name| name == "quest-system").is_empty());
    }
}
