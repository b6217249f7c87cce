//! Deployments: what runs while they are in progress, and after they have failed.

use std::time::Duration;

use natsctl::local::client::Error;
use natsctl::local::protocol::{DeploymentState, Exit, Force, PutService, Refusal, ServiceStatus, TaskState};
use natsctl::model::rollout::Outcome;

use super::stage::{Stage, pids, ready, runs, service};

#[tokio::test]
async fn a_service_comes_up_with_its_tasks() {
    let stage = Stage::start().await;
    let quest = stage.deploy(service("quest", &[])).await;
    assert_eq!((quest.revision, quest.desired, ready(&quest).len()), (1, 2, 2));
    assert!(pids(&quest).into_iter().all(runs));
}

#[tokio::test]
async fn an_equal_definition_changes_nothing() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let after = stage.deploy(service("quest", &[])).await;
    assert_eq!(pids(&before), pids(&after));
    assert_eq!(before.deployments, after.deployments);
}

#[tokio::test]
async fn a_forced_deployment_replaces_all_tasks_of_the_same_revision() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let after = stage.deploy(PutService { force: Force::NewDeployment, ..service("quest", &[]) }).await;
    assert_eq!(after.revision, 1);
    assert!(pids(&after).iter().all(|pid| !pids(&before).contains(pid)));
}

#[tokio::test]
async fn a_roll_never_goes_below_the_desired_count() {
    let stage = Stage::start().await;
    let old = stage.deploy(service("quest", &[])).await;
    let slow = [("READY_AFTER_MS", "200"), ("DRAIN_MS", "100")];
    let accepted = stage.put(service("quest", &slow)).await;
    loop {
        let quest = stage.service("quest").await;
        let serving = ready(&quest);
        assert!(serving.len() >= 2, "only {} tasks served", serving.len());
        let alive = quest.tasks.iter().filter(|task| task.state != TaskState::Draining).count();
        assert!(alive <= 4, "{alive} tasks at the same time");
        if quest.deployment().unwrap().state == DeploymentState::Completed {
            assert!(serving.iter().all(|task| task.revision == accepted.revision));
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!pids(&old).into_iter().any(runs));
}

#[tokio::test]
async fn a_crash_at_the_start_leaves_the_old_tasks_serving() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let broken = [("CRASH_AFTER_MS", "20"), ("EXIT_CODE", "3"), ("NEVER_READY", "1"), ("PRINT", "no such model")];
    let accepted = stage.put(service("quest", &broken)).await;
    assert_eq!(accepted.revision, 2);
    let Outcome::Failed(deployment) = stage.outcome("quest", accepted).await else { panic!("it must fail") };
    let reason = deployment.reason;
    assert!(reason.contains("exited with code 3 before it was ready; 3 new tasks have ended"), "{reason}");
    assert_eq!(deployment.log, ["no such model", "out of luck"]);

    let after = stage.until("quest", "the new tasks are gone", |quest| quest.tasks.len() == 2).await;
    assert_eq!(pids(&before), pids(&after));
    assert_eq!((after.revision, after.failed, ready(&after).len()), (1, true, 2));
    assert!(stage.deploy(service("quest", &[])).await.deployments[0].id > accepted.deployment_id);
    assert!(!stage.service("quest").await.failed);
}

#[tokio::test]
async fn a_deployment_fails_when_its_tasks_are_not_ready_within_the_start_period() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let mut never = service("quest", &[("NEVER_READY", "1")]);
    never.spec.definition.health.start_period = Duration::from_millis(300);
    let started = std::time::Instant::now();
    let accepted = stage.put(never).await;
    let Outcome::Failed(deployment) = stage.outcome("quest", accepted).await else { panic!("it must fail") };
    assert!(started.elapsed() < Duration::from_secs(5));
    let reason = deployment.reason;
    assert!(
        reason.ends_with("was not ready within 300ms: `GET /readyz` answered 503 Service Unavailable not yet"),
        "{reason}"
    );
    assert_eq!(deployment.log, ["hello"]);
    let after = stage.until("quest", "the new tasks are gone", |quest| quest.tasks.len() == 2).await;
    assert_eq!(pids(&before), pids(&after));
}

#[tokio::test]
async fn a_first_deployment_that_fails_leaves_nothing_running() {
    let stage = Stage::start().await;
    let accepted = stage.put(service("quest", &[("CRASH_AFTER_MS", "1"), ("NEVER_READY", "1")])).await;
    assert!(matches!(stage.outcome("quest", accepted).await, Outcome::Failed(_)));
    let quest = stage.until("quest", "no task is left", |quest| quest.tasks.is_empty()).await;
    assert_eq!((quest.revision, quest.desired, quest.failed), (1, 2, true));
    let again = stage.put(service("quest", &[("CRASH_AFTER_MS", "1"), ("NEVER_READY", "1")])).await;
    assert_eq!((again.revision, again.deployment_id), (1, 2));
}

#[tokio::test]
async fn a_program_that_cannot_run_fails_the_deployment() {
    let stage = Stage::start().await;
    let program = stage.dir.path().join("not-a-program");
    std::fs::write(&program, "words").unwrap();
    let mut put = service("quest", &[]);
    put.spec.program = program;
    let accepted = stage.put(put).await;
    let Outcome::Failed(deployment) = stage.outcome("quest", accepted).await else { panic!("it must fail") };
    assert!(deployment.log.join("\n").contains("failed to run `"), "{:?}", deployment.log);
}

#[tokio::test]
async fn scaling_starts_and_stops_the_newest_tasks() {
    let stage = Stage::start().await;
    let two = stage.deploy(service("quest", &[])).await;
    let four = stage.deploy(PutService { tasks: 4, ..service("quest", &[]) }).await;
    assert_eq!((four.revision, four.declared_tasks, four.desired, ready(&four).len()), (1, 2, 4, 4));
    let again = stage.deploy(service("quest", &[])).await;
    assert_eq!(pids(&two), pids(&again));
    assert!(stage.deploy(PutService { tasks: 0, ..service("quest", &[]) }).await.tasks.is_empty());
}

#[tokio::test]
async fn a_rollback_goes_back_to_the_old_number() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[])).await;
    let second = stage.deploy(service("quest", &[("PRINT", "second")])).await;
    assert_eq!(second.revision, 2);
    assert_eq!(second.previous.iter().map(|stored| stored.revision).collect::<Vec<_>>(), [1]);
    let first = stage.deploy(service("quest", &[])).await;
    assert_eq!(first.revision, 1);
    assert_eq!(first.previous.iter().map(|stored| stored.revision).collect::<Vec<_>>(), [2]);
    assert_eq!(stage.deploy(service("quest", &[("PRINT", "third")])).await.revision, 3);
}

#[tokio::test]
async fn a_newer_deployment_supersedes_one_in_progress() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let stuck = stage.put(service("quest", &[("NEVER_READY", "1")])).await;
    let after = stage.deploy(service("quest", &[("PRINT", "third")])).await;
    assert_eq!(stage.outcome("quest", stuck).await, Outcome::Superseded(None));
    assert_eq!((after.revision, ready(&after).len()), (3, 2));
    assert!(!pids(&before).into_iter().any(runs));
}

#[tokio::test]
async fn reverting_a_stuck_deployment_leaves_the_old_tasks() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    stage.put(service("quest", &[("NEVER_READY", "1")])).await;
    let after = stage.deploy(service("quest", &[])).await;
    assert_eq!(pids(&before), pids(&after));
}

#[tokio::test]
async fn a_task_that_is_killed_is_replaced() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[])).await;
    let victim = pids(&before)[0];
    super::stage::kill(victim);
    let after = stage
        .until("quest", "the killed task is replaced", |quest| {
            ready(quest).len() == 2 && !pids(quest).contains(&victim)
        })
        .await;
    let replacement = after.tasks.iter().find(|task| task.restarts == 1).unwrap();
    assert_eq!(replacement.last_exit, Some(Exit::Signal(9)));
    assert_eq!(after.deployment().unwrap().state, DeploymentState::Completed);
}

#[tokio::test]
async fn a_task_that_is_not_alive_is_killed_and_replaced() {
    let stage = Stage::start().await;
    let sick = stage.dir.path().join("sick");
    let before = stage.deploy(service("quest", &[("SICK_IF", sick.to_str().unwrap())])).await;
    std::fs::write(&sick, "").unwrap();
    let seen = stage.until("quest", "a task is killed", |quest| quest.tasks.iter().any(|task| task.restarts > 0)).await;
    std::fs::remove_file(&sick).unwrap();
    assert!(seen.tasks.iter().any(|task| task.last_exit == Some(Exit::Signal(9))));
    stage
        .until("quest", "it has recovered", |quest| {
            ready(quest).len() == 2 && !pids(quest).iter().any(|pid| pids(&before).contains(pid))
        })
        .await;
}

#[tokio::test]
async fn a_task_that_does_not_stop_is_killed() {
    let stage = Stage::start().await;
    let mut stubborn = service("quest", &[("IGNORE_TERM", "1")]);
    stubborn.spec.definition.stop_timeout = Duration::from_millis(300);
    let before = stage.deploy(stubborn).await;
    let started = std::time::Instant::now();
    stage.client.delete_service("quest").await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(!pids(&before).into_iter().any(runs));
    assert!(stage.describe().await.services.is_empty());
}

#[tokio::test]
async fn a_stopped_task_drains_while_another_takes_its_place() {
    let stage = Stage::start().await;
    let before = stage.deploy(service("quest", &[("DRAIN_MS", "500")])).await;
    let (id, pid) = (before.tasks[0].id.clone(), pids(&before)[0]);
    stage.client.stop_task("quest", &id).await.unwrap();
    let during = stage.until("quest", "another task is ready", |quest| ready(quest).len() == 2).await;
    let stopped = during.tasks.iter().find(|task| task.id == id).expect("it still drains");
    assert_eq!((stopped.state, stopped.pid), (TaskState::Draining, Some(pid)));
    let after = stage.until("quest", "the stopped task is gone", |quest| quest.tasks.len() == 2).await;
    assert!(!runs(pid));
    assert!(after.tasks.iter().all(|task| task.restarts == 0 && task.last_exit.is_none()));
    assert_eq!((after.failed, after.deployments), (false, before.deployments));
    let log = std::fs::read_to_string(stage.dir.path().join(format!("logs/quest/{id}.log"))).unwrap();
    assert_eq!(log, "hello\nasked to stop\n");
}

#[tokio::test]
async fn a_stopped_task_that_does_not_end_is_killed() {
    let stage = Stage::start().await;
    let mut stubborn = service("quest", &[("IGNORE_TERM", "1")]);
    stubborn.spec.definition.stop_timeout = Duration::from_millis(300);
    let before = stage.deploy(stubborn).await;
    let started = std::time::Instant::now();
    stage.client.stop_task("quest", &before.tasks[0].id).await.unwrap();
    stage.until("quest", "it is gone", |quest| !pids(quest).contains(&pids(&before)[0])).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(!stage.service("quest").await.failed);
}

#[tokio::test]
async fn a_task_that_cannot_be_stopped_is_refused_with_those_that_can() {
    let stage = Stage::start().await;
    let quest = stage.deploy(service("quest", &[("DRAIN_MS", "2000")])).await;
    let (first, second) = (&quest.tasks[0].id, &quest.tasks[1].id);
    let refusal = async |service: &str, task: &str| match stage.client.stop_task(service, task).await {
        Err(Error::Refused(Refusal { message, hint })) => (message, hint.unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal("quest", "00000000").await,
        ("service `quest` has no task `00000000`".to_owned(), format!("its running tasks: `{first}`, `{second}`"))
    );
    assert_eq!(
        refusal("gateway", first).await,
        ("service `gateway` is not deployed".to_owned(), "deployed services: `quest`".to_owned())
    );
    stage.client.stop_task("quest", first).await.unwrap();
    let (message, _) = refusal("quest", first).await;
    assert_eq!(message, format!("task `{first}` of service `quest` is stopping already"));
}

#[tokio::test]
async fn stopping_a_new_task_during_a_deployment_does_not_make_it_fail() {
    let stage = Stage::start().await;
    stage.deploy(service("quest", &[])).await;
    let accepted = stage.put(service("quest", &[("READY_AFTER_MS", "300")])).await;
    let new = |quest: &ServiceStatus| quest.tasks.iter().find(|task| task.revision == accepted.revision).cloned();
    let new = new(&stage.service("quest").await).unwrap();
    stage.client.stop_task("quest", &new.id).await.unwrap();
    assert_eq!(stage.outcome("quest", accepted).await, Outcome::Completed);
    let after = stage.service("quest").await;
    assert!(after.tasks.iter().all(|task| task.revision == accepted.revision && task.id != new.id));
}
