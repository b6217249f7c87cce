//! A standalone task of a service, with another command: started, followed, and stopped if natsctl is interrupted.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, Failure, LaunchType,
    NetworkConfiguration, PropagateTags, TaskOverride,
};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::error::{code, failed};
use super::services::{self, CapacityProvider, Network, Service};
use super::task_definition::Container;
use super::tasks::{self, Task};
use super::{Aws, revisions};
use crate::error::{Code, Hinted};
use crate::model::log::Line;
use crate::screen::{INTERRUPTED, note};

/// Between two calls that describe the task.
const POLL: Duration = Duration::from_secs(1);
/// The log of a task that has stopped is complete when no line has come for so long.
const QUIET: Duration = Duration::from_secs(2);

/// The command to run.
pub(crate) struct Job<'a> {
    pub(crate) service: &'a str,
    /// Given to the image's entry point.
    pub(crate) command: &'a [String],
    pub(crate) timeout: Option<Duration>,
}

/// How waiting for a task ended.
enum End {
    Stopped(Box<Task>),
    Interrupted,
    TimedOut(Duration),
}

/// Runs a task to its end, and gives its exit code; `show` is given each line that it logs.
///
/// # Errors
/// A task that did not start, or took too long.
pub(crate) async fn run(aws: &Aws, job: Job<'_>, show: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    // Before the task is started: a signal in between would leave it behind.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let mut interrupted = std::pin::pin!(async {
        let received = signals.iter_mut().flatten().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(received).await;
    });
    let mut running = start(aws, &job).await?;
    note(&format!("task {} runs `{}`", running.id, job.command.join(" ")));
    let time_out = async {
        match job.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        ended = running.follow(show) => match ended {
            Ok(task) => End::Stopped(Box::new(task)),
            Err(error) => return Err(running.abandon(error).await),
        },
        () = &mut interrupted => End::Interrupted,
        () = time_out => End::TimedOut(job.timeout.unwrap_or_default()),
    };
    match end {
        End::Stopped(task) => exit_code(&task, &running.container),
        End::Interrupted => {
            running.stop("interrupted").await?;
            note(&format!("interrupted; task {} is being stopped", running.id));
            Ok(INTERRUPTED)
        }
        End::TimedOut(timeout) => {
            running.stop("took too long").await?;
            let message = format!("task {} took longer than {} s", running.id, timeout.as_secs());
            Err(Hinted::new(message, "it is being stopped; `--timeout` gives it more time").into())
        }
    }
}

/// Starts a task as the service has them now.
async fn start<'a>(aws: &'a Aws, job: &Job<'_>) -> anyhow::Result<Running<'a>> {
    let name = job.service.to_owned();
    let mut found = services::converted(services::of_manifests(aws, [&name]).await?);
    let service = found.remove(&name).ok_or_else(|| {
        let hint = format!("`natsctl deploy {name}` deploys it");
        Hinted::new(format!("`{name}` is not deployed"), hint).code(Code::NotDeployed)
    })?;
    let arn = &service.task_definition;
    let definition = revisions::describe(aws.clients.ecs(), aws.names(&name), arn).await?;
    let container = definition.container().with_context(|| format!("`{arn}` has no container"))?;
    let id = run_task(aws, &service, &container.name, job).await?;
    let log = log_stream(container, &id);
    Ok(Running { aws, service: name, id, container: container.name.clone(), log, token: None })
}

/// Gives the id of the task.
async fn run_task(aws: &Aws, service: &Service, container: &str, job: &Job<'_>) -> anyhow::Result<String> {
    let command = ContainerOverride::builder().name(container).set_command(Some(job.command.to_vec())).build();
    let placement = &service.placement;
    let providers = &placement.capacity_providers;
    let strategy = providers.iter().map(strategy_item).collect::<Result<Vec<_>, _>>()?;
    // A task has either a launch type or a strategy, as the service has it.
    let launch_type = placement.launch_type.as_deref().filter(|_| providers.is_empty()).map(LaunchType::from);
    let call = aws.clients.ecs().run_task().cluster(aws.cluster()).count(1);
    let answer = call
        .task_definition(&service.task_definition)
        .set_network_configuration(placement.network.as_ref().map(network).transpose()?)
        .set_capacity_provider_strategy((!strategy.is_empty()).then_some(strategy))
        .set_launch_type(launch_type)
        .set_platform_version(placement.platform_version.clone())
        .overrides(TaskOverride::builder().container_overrides(command).build())
        .propagate_tags(PropagateTags::TaskDefinition)
        .started_by("natsctl run")
        // The same in each attempt: an answer that is lost starts no second task.
        .client_token(format!("{:032x}", fastrand::u128(..)))
        .send()
        .await;
    let what = format!("run a task of `{}`", job.service);
    let answer = answer.map_err(|error| failed(&what, error))?;
    if let Some(task) = answer.tasks.and_then(|tasks| tasks.into_iter().next()) {
        return Ok(Task::from(task).id);
    }
    let reason =
        |failure: &Failure| [failure.reason(), failure.detail()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let reasons: Vec<String> = answer.failures.iter().flatten().map(reason).collect();
    let hint = "running it again is safe: nothing was started";
    Err(Hinted::new(format!("failed to {what}: {}", reasons.join(", ")), hint).into())
}

fn network(network: &Network) -> Result<NetworkConfiguration, BuildError> {
    let public_ip = if network.public_ip { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled };
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(network.subnets.clone()))
        .set_security_groups(Some(network.security_groups.clone()))
        .assign_public_ip(public_ip)
        .build()?;
    Ok(NetworkConfiguration::builder().awsvpc_configuration(vpc).build())
}

fn strategy_item(provider: &CapacityProvider) -> Result<CapacityProviderStrategyItem, BuildError> {
    let item = CapacityProviderStrategyItem::builder().capacity_provider(&provider.name);
    item.weight(provider.weight).base(provider.base).build()
}

/// A task that was started here.
struct Running<'a> {
    aws: &'a Aws,
    service: String,
    id: String,
    container: String,
    log: Option<LogStream>,
    /// Where reading the log goes on.
    token: Option<String>,
}

/// A log stream in CloudWatch Logs.
#[derive(Debug, PartialEq, Eq)]
struct LogStream {
    group: String,
    name: String,
}

impl Running<'_> {
    /// Shows the log of the task until it has stopped.
    async fn follow(&mut self, mut show: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<Task> {
        let mut status = String::new();
        let task = loop {
            // Right after its start, ECS may not know it yet.
            let task = tasks::describe(self.aws.ecs_cluster(), std::slice::from_ref(&self.id)).await?.pop();
            self.show_log(&mut show).await?;
            let now = task.as_ref().map_or("PENDING", |task| task.status.as_str());
            if now != status {
                now.clone_into(&mut status);
                tracing::info!(task = self.id, status, "status");
            }
            match task.filter(Task::has_stopped) {
                Some(task) => break task,
                None => tokio::time::sleep(POLL).await,
            }
        };
        let mut quiet_since = Instant::now();
        while self.log.is_some() && quiet_since.elapsed() < QUIET {
            if self.show_log(&mut show).await? > 0 {
                quiet_since = Instant::now();
            }
            tokio::time::sleep(POLL / 4).await;
        }
        Ok(task)
    }

    /// Shows the lines that are new, and gives their number.
    async fn show_log(&mut self, show: &mut impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<usize> {
        let Some(LogStream { group, name }) = &self.log else { return Ok(0) };
        let call = self.aws.clients.logs().get_log_events().log_group_name(group).log_stream_name(name);
        let call = call.start_from_head(true);
        let mut shown = 0;
        loop {
            let answer = match call.clone().set_next_token(self.token.clone()).send().await {
                Ok(answer) => answer,
                // Nothing was written yet.
                Err(error) if code(&error) == Some("ResourceNotFoundException") => return Ok(shown),
                Err(error) => return Err(failed(&format!("read the log stream `{name}`"), error)),
            };
            for event in answer.events() {
                show(&Line {
                    service: self.service.clone(),
                    task: self.id.clone(),
                    time: event.timestamp().and_then(|time| Timestamp::from_millisecond(time).ok()),
                    text: event.message().unwrap_or_default().trim_end_matches(['\r', '\n']).to_owned(),
                })?;
            }
            shown += answer.events().len();
            let at_end = answer.events().is_empty();
            self.token = answer.next_forward_token.or(self.token.take());
            if at_end {
                return Ok(shown);
            }
        }
    }

    async fn stop(&self, why: &str) -> anyhow::Result<()> {
        let stopped = tasks::stop(self.aws.ecs_cluster(), &self.id, why, &self.aws.caller).await;
        stopped.with_context(|| format!("task {} still runs; `natsctl stop {}` stops it", self.id, self.id))
    }

    /// The task could not be followed: it goes on, unless the output of natsctl was closed.
    async fn abandon(&self, error: anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<io::Error>().is_none() {
            return error
                .context(format!("task {} goes on; `natsctl tasks` shows it and `natsctl stop` stops it", self.id));
        }
        match self.stop("its output was closed").await {
            Ok(()) => error,
            Err(error) => error,
        }
    }
}

/// The log stream of a task; `None` if its container does not log to CloudWatch Logs.
fn log_stream(container: &Container, task: &str) -> Option<LogStream> {
    let log = container.log.as_ref()?;
    Some(LogStream { group: log.group.clone(), name: format!("{}/{}/{task}", log.prefix, container.name) })
}

fn exit_code(task: &Task, container: &str) -> anyhow::Result<u8> {
    let reason = || task.reason().unwrap_or_else(|| "ECS gives no reason".to_owned());
    let ours = task.containers.iter().find(|one| one.name == container);
    let Some(code) = ours.and_then(|container| container.exit_code) else {
        let message = format!("task {} has not started: {}", task.id, reason());
        let hint = "`natsctl verify` says what is missing: image, secrets, roles or network";
        return Err(Hinted::new(message, hint).into());
    };
    if code != 0 {
        note(&format!("exit code {code}: {}", reason()));
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{
        Container as SdkContainer, ContainerDefinition, LogConfiguration, LogDriver, Task as SdkTask,
        TaskDefinition as SdkTaskDefinition,
    };

    use super::*;
    use crate::aws::task_definition::TaskDefinition;

    fn stopped(code: Option<i32>) -> Task {
        let container =
            SdkContainer::builder().name("auth").set_exit_code(code).reason("CannotPullContainerError").build();
        let task = SdkTask::builder().task_arn("arn/0123").stopped_reason("Task failed to start");
        task.containers(container).build().into()
    }

    #[test]
    fn the_code_of_the_container_is_the_one_that_counts() {
        assert_eq!(exit_code(&stopped(Some(0)), "auth").unwrap(), 0);
        assert_eq!(exit_code(&stopped(Some(137)), "auth").unwrap(), 137);
        assert_eq!(exit_code(&stopped(Some(-1)), "auth").unwrap(), 255);
        let error = exit_code(&stopped(None), "auth").unwrap_err();
        assert_eq!(error.to_string(), "task 0123 has not started: Task failed to start: CannotPullContainerError");
    }

    #[test]
    fn the_log_is_found_by_what_the_task_definition_says() {
        let log = LogConfiguration::builder()
            .log_driver(LogDriver::Awslogs)
            .options("awslogs-group", "/ecs/g")
            .options("awslogs-stream-prefix", "auth-nats")
            .build()
            .unwrap();
        let ours = ContainerDefinition::builder().name("auth").log_configuration(log).build();
        let other = ContainerDefinition::builder().name("proxy").essential(true).build();
        let definition = SdkTaskDefinition::builder().container_definitions(other).container_definitions(ours).build();
        let of = |service: &str| TaskDefinition::new(service.into(), definition.clone(), &[]).unwrap();
        let auth = of("auth");
        let found = auth.container().unwrap();
        let expected = LogStream { group: "/ecs/g".to_owned(), name: "auth-nats/auth/0123".to_owned() };
        assert_eq!(log_stream(found, "0123"), Some(expected));
        assert_eq!(log_stream(of("proxy").container().unwrap(), "0123"), None);
    }
}
