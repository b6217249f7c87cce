//! One task of a service on its own, with another command: started, followed, and stopped if nobody waits for it any more.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::types::{
    Container, ContainerDefinition, ContainerOverride, LogConfiguration, LogDriver, PropagateTags, Service, Task,
    TaskDefinition, TaskOverride,
};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::Aws;
use super::error::{code, failed};
use super::tasks::{id, stopped_reason};
use crate::error::Hinted;
use crate::model::log::Line;
use crate::screen::{INTERRUPTED, note};

/// How often the task is looked at.
const POLL: Duration = Duration::from_secs(1);
/// A task that has ended has no more to say when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(2);

/// What should run.
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

impl Aws {
    /// Runs a task to its end, and says with what code it exited; `show` is given each line that it writes.
    ///
    /// # Errors
    /// A task that did not start, or took too long.
    pub(crate) async fn run(&self, job: Job<'_>, show: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<u8> {
        // Before anything is begun: what comes in between would leave a task behind.
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let mut asked_to_stop = std::pin::pin!(async {
            let received = signals.iter_mut().flatten().map(|signal| Box::pin(signal.recv()));
            futures::future::select_all(received).await;
        });
        let mut running = self.start_job(&job).await?;
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
            () = &mut asked_to_stop => End::Interrupted,
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

    async fn start_job(&self, job: &Job<'_>) -> anyhow::Result<Running<'_>> {
        let name = self.manifests.named(job.service)?;
        let on_ecs = self.manifests.services[&name].ecs_name();
        let mut found = self.describe_services(std::slice::from_ref(&on_ecs)).await?;
        let service = found.remove(&on_ecs).ok_or_else(|| {
            Hinted::new(format!("`{name}` is not deployed"), format!("`natsctl deploy {name}` deploys it"))
        })?;
        let arn = service.task_definition().unwrap_or_default();
        let definition = self.task_definition(arn).await?;
        let container = container(&name, &definition).with_context(|| format!("`{arn}` has no container"))?;
        let task = self.run_task(&service, container, job).await?;
        let (id, container) = (id(&task).to_owned(), container.clone());
        let stream = stream(&container, &id);
        let container = container.name.unwrap_or_default();
        Ok(Running { aws: self, service: name, id, container, stream, token: None })
    }

    async fn run_task(
        &self,
        service: &Service,
        container: &ContainerDefinition,
        job: &Job<'_>,
    ) -> anyhow::Result<Task> {
        let instead = ContainerOverride::builder().set_name(container.name.clone());
        let instead = instead.set_command(Some(job.command.to_vec())).build();
        let strategy = service.capacity_provider_strategy.clone().filter(|strategy| !strategy.is_empty());
        // One or the other, as the service has it.
        let launch = service.launch_type.clone().filter(|_| strategy.is_none());
        let call = self.clients.ecs().run_task().cluster(self.cluster()).count(1);
        let answer = call
            .set_task_definition(service.task_definition.clone())
            .set_network_configuration(service.network_configuration.clone())
            .set_capacity_provider_strategy(strategy)
            .set_launch_type(launch)
            .set_platform_version(service.platform_version.clone())
            .overrides(TaskOverride::builder().container_overrides(instead).build())
            .propagate_tags(PropagateTags::TaskDefinition)
            .started_by("natsctl run")
            // The same in each attempt: an answer that is lost starts no second task.
            .client_token(format!("{:032x}", fastrand::u128(..)))
            .send()
            .await;
        let what = format!("run a task of `{}`", job.service);
        let answer = answer.map_err(|error| failed(&what, error))?;
        if let Some(task) = answer.tasks.and_then(|tasks| tasks.into_iter().next()) {
            return Ok(task);
        }
        let reason = |failure: &aws_sdk_ecs::types::Failure| {
            [failure.reason(), failure.detail()].into_iter().flatten().collect::<Vec<_>>().join(": ")
        };
        let reasons: Vec<String> = answer.failures.iter().flatten().map(reason).collect();
        let hint = "running it again is safe: nothing was started";
        Err(Hinted::new(format!("failed to {what}: {}", reasons.join(", ")), hint).into())
    }

    /// Stops a task; ECS starts another one if it belongs to a service.
    pub(crate) async fn stop_task(&self, task: &str, why: &str) -> anyhow::Result<()> {
        let call = self.clients.ecs().stop_task().cluster(self.cluster()).task(task);
        let stopped = call.reason(format!("{why} (natsctl, {})", self.caller)).send().await;
        stopped.map_err(|error| failed(&format!("stop the task `{task}`"), error)).map(drop)
    }
}

/// A task that was started here.
struct Running<'a> {
    aws: &'a Aws,
    service: String,
    id: String,
    container: String,
    /// Group and stream of its log.
    stream: Option<(String, String)>,
    /// Where reading the log goes on.
    token: Option<String>,
}

impl Running<'_> {
    /// Shows what the task writes until it has stopped.
    async fn follow(&mut self, mut show: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<Task> {
        let mut status = String::new();
        let task = loop {
            // Right after its start, ECS may not know it yet.
            let task = self.aws.describe_tasks(std::slice::from_ref(&self.id)).await?.pop();
            self.show_log(&mut show).await?;
            let now = task.as_ref().and_then(Task::last_status).unwrap_or("PENDING");
            if now != status {
                now.clone_into(&mut status);
                tracing::info!(task = self.id, status, "status");
            }
            match task.filter(|task| task.last_status() == Some("STOPPED")) {
                Some(task) => break task,
                None => tokio::time::sleep(POLL).await,
            }
        };
        let mut quiet_since = Instant::now();
        while self.stream.is_some() && quiet_since.elapsed() < QUIET {
            if self.show_log(&mut show).await? > 0 {
                quiet_since = Instant::now();
            }
            tokio::time::sleep(POLL / 4).await;
        }
        Ok(task)
    }

    /// Shows what was written since the last time, and says how many lines that was.
    async fn show_log(&mut self, show: &mut impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<usize> {
        let Some((group, stream)) = &self.stream else { return Ok(0) };
        let call = self.aws.clients.logs().get_log_events().log_group_name(group).log_stream_name(stream);
        let call = call.start_from_head(true);
        let mut shown = 0;
        loop {
            let answer = match call.clone().set_next_token(self.token.clone()).send().await {
                Ok(answer) => answer,
                // Nothing was written yet.
                Err(error) if code(&error) == Some("ResourceNotFoundException") => return Ok(shown),
                Err(error) => return Err(failed(&format!("read the log stream `{stream}`"), error)),
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
        let stopped = self.aws.stop_task(&self.id, why).await;
        stopped.with_context(|| format!("task {} still runs; `natsctl stop {}` stops it", self.id, self.id))
    }

    /// The task could not be followed. It is left alone, unless nobody reads what it writes.
    async fn abandon(&self, error: anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<io::Error>().is_none() {
            return error.context(format!("task {} goes on; `natsctl tasks` and `natsctl stop` know it", self.id));
        }
        match self.stop("nobody reads its output").await {
            Ok(()) => error,
            Err(error) => error,
        }
    }
}

/// The container whose command is replaced: the service's.
fn container<'a>(name: &str, definition: &'a TaskDefinition) -> Option<&'a ContainerDefinition> {
    let containers = definition.container_definitions();
    let named = containers.iter().find(|container| container.name() == Some(name));
    named.or(containers.iter().find(|container| container.essential() == Some(true))).or(containers.first())
}

/// Group and stream that the log driver writes to; `None` if it is another one.
fn stream(container: &ContainerDefinition, task: &str) -> Option<(String, String)> {
    let log = container.log_configuration().filter(|log| *log.log_driver() == LogDriver::Awslogs);
    let option = |name: &str| log.and_then(LogConfiguration::options)?.get(name).cloned();
    let (group, prefix) = (option("awslogs-group")?, option("awslogs-stream-prefix")?);
    Some((group, format!("{prefix}/{}/{task}", container.name().unwrap_or_default())))
}

fn exit_code(task: &Task, container: &str) -> anyhow::Result<u8> {
    let reason = || stopped_reason(task).unwrap_or_else(|| "ECS gives no reason".to_owned());
    let ours = task.containers().iter().find(|one| one.name() == Some(container));
    let Some(code) = ours.and_then(Container::exit_code) else {
        let message = format!("task {} has not started: {}", id(task), reason());
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
    use super::*;

    fn stopped(code: Option<i32>) -> Task {
        let container =
            Container::builder().name("auth").set_exit_code(code).reason("CannotPullContainerError").build();
        Task::builder().task_arn("arn/0123").stopped_reason("Task failed to start").containers(container).build()
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
        let definition = TaskDefinition::builder().container_definitions(other).container_definitions(ours).build();
        let found = container("auth", &definition).unwrap();
        assert_eq!(stream(found, "0123"), Some(("/ecs/g".to_owned(), "auth-nats/auth/0123".to_owned())));
        assert_eq!(stream(container("quest", &definition).unwrap(), "0123"), None);
    }
}
