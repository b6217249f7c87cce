use super::*;

fn started() -> StartedDeployment {
    StartedDeployment {
        service: "quest-system".to_owned(),
        ecs_name: "quest-system-nats".to_owned(),
        deployment: "ecs-svc/2".to_owned(),
        service_deployment: None,
        task_definition: "arn:task-definition/quest-system-nats:2".to_owned(),
        before: Some("arn:task-definition/quest-system-nats:1".to_owned()),
        tasks: 2,
        events: BTreeSet::new(),
    }
}

/// A deployment: its number, its status, how far it is, tasks that run and that should.
fn deployment(number: u32, status: &str, rollout: &str, running: i32, desired: i32) -> Deployment {
    Deployment::builder()
        .id(format!("ecs-svc/{number}"))
        .status(status)
        .task_definition(format!("arn:task-definition/quest-system-nats:{number}"))
        .rollout_state(rollout.into())
        .rollout_state_reason(format!("reason of {number}"))
        .running_count(running)
        .desired_count(desired)
        .build()
}

#[track_caller]
fn check(wait_until: WaitUntil, deployments: &[Deployment], expected: RolloutState) {
    let service =
        Service::builder().service_name("quest-system-nats").set_deployments(Some(deployments.to_vec())).build();
    assert_eq!(rollout_state(&started(), wait_until, Some(&service)), expected);
}

#[test]
fn only_the_deployment_that_was_started_counts() {
    let old = deployment(1, "ACTIVE", "COMPLETED", 2, 2);
    let under = RolloutState::InProgress { running: 1, desired: 2, failed: 0 };
    check(WaitUntil::Completed, &[deployment(2, "PRIMARY", "IN_PROGRESS", 1, 2), old.clone()], under);
    check(WaitUntil::Completed, &[deployment(2, "PRIMARY", "COMPLETED", 2, 2)], RolloutState::Completed);
    check(
        WaitUntil::Completed,
        &[deployment(2, "PRIMARY", "IN_PROGRESS", 2, 2), old],
        RolloutState::InProgress { running: 2, desired: 2, failed: 0 },
    );
}

#[test]
fn a_rollback_of_ecs_is_a_failure_although_the_service_is_stable() {
    let mut back = deployment(3, "PRIMARY", "COMPLETED", 2, 2);
    back.task_definition = Some("arn:task-definition/quest-system-nats:1".to_owned());
    check(WaitUntil::Completed, std::slice::from_ref(&back), RolloutState::Failed(WENT_BACK.to_owned()));
    check(
        WaitUntil::Completed,
        &[back, deployment(2, "ACTIVE", "FAILED", 0, 2)],
        RolloutState::Failed("reason of 2".to_owned()),
    );
}

#[test]
fn a_deployment_of_another_run_is_no_success_of_ours() {
    let other = deployment(7, "PRIMARY", "COMPLETED", 2, 2);
    check(
        WaitUntil::Completed,
        std::slice::from_ref(&other),
        RolloutState::Superseded("quest-system-nats:7".to_owned()),
    );
    check(
        WaitUntil::Completed,
        &[other, deployment(2, "ACTIVE", "IN_PROGRESS", 1, 2)],
        RolloutState::Superseded("quest-system-nats:7".to_owned()),
    );
}

#[test]
fn waiting_for_running_tasks_does_not_wait_for_old_ones_to_stop() {
    let deployments = [deployment(2, "PRIMARY", "IN_PROGRESS", 2, 2), deployment(1, "ACTIVE", "COMPLETED", 2, 2)];
    check(WaitUntil::Running, &deployments, RolloutState::Completed);
    assert_eq!(rollout_state(&started(), WaitUntil::Running, None), RolloutState::Gone);
}

#[test]
fn a_failure_fits_on_one_screen() {
    let stopped = StoppedTask {
        id: "0123".to_owned(),
        reason: "Essential container in task exited".to_owned(),
        exit_code: Some(101),
        unhealthy: true,
        crashed: true,
    };
    let failure = Failure {
        reason: "tasks failed to start".to_owned(),
        tasks: vec![stopped],
        log_task: None,
        log: vec!["panicked at main.rs".to_owned()],
        events: vec!["(service quest) was unable to place a task".to_owned()],
    };
    let screen = Outcome::Failed(failure).explanation("quest-system", 2, Some("r@sha256:1")).unwrap();
    for part in [
        "quest-system",
        "revision 2",
        "exit code 101",
        "health check failed",
        "| panicked",
        "sha256:1",
        "unable to place",
    ] {
        assert!(screen.contains(part), "`{part}` is not in:\n{screen}");
    }
}

#[test]
fn events_that_were_there_before_are_not_told_whatever_their_times() {
    let event = |id: &str, at: i64| {
        let at = aws_sdk_ecs::primitives::DateTime::from_secs(at);
        aws_sdk_ecs::types::ServiceEvent::builder().id(id).message(format!("event {id}")).created_at(at).build()
    };
    let service = |events: &[(&str, i64)]| {
        let events = events.iter().map(|(id, at)| event(id, *at)).collect();
        Service::builder().service_name("quest-system-nats").set_events(Some(events)).build()
    };
    // The clock of ECS is far behind, or far ahead.
    for at in [0, 4_000_000_000] {
        let started = StartedDeployment::of("quest-system", &service(&[("1", at)]), None, "arn:2");
        let mut following = Following::new(started, Activity::start("quest-system"));
        assert!(following.log_events(Some(&service(&[("2", at), ("1", at)]))));
        assert!(!following.log_events(Some(&service(&[("2", at), ("1", at)]))));
        assert_eq!(following.messages, ["event 2"]);
    }
}
