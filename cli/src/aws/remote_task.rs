//! A remote task: natsctl's own image, run once in the cluster to reach NATS when this machine is outside the network, with an identity
//! that has few permissions. Its answer is in its log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::types::{
    AssignPublicIp, Compatibility, ContainerDefinition, ContainerOverride, KernelCapabilities, KeyValuePair,
    LaunchType, LinuxParameters, LogConfiguration, LogDriver, NetworkMode, Secret, TaskOverride,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::desired::identity_from;
use super::ecs_service::network;
use super::error::{code, failed};
use super::task_definition::platform;
use super::tasks::{self, Task};
use super::{Aws, images, revisions, secrets, tags};
use crate::cleanup;
use crate::error::Hinted;
use crate::image::{self, Binaries, BuildOptions, Compression, Store};
use crate::model::desired::Architecture;
use crate::model::secret::SecretReference;
use crate::model::task::user_and_group;
use crate::nats::bus::{BusRequest, PROTOCOL, RespondingTasks, TASK_COMMAND, parse_reply};
use crate::nats::permissions::REMOTE_TASK;
use crate::screen::note;

/// Name of the package, the container, and, where a service has its own, the repository.
const NAME: &str = "natsctl";
/// Label with the digest of everything that the task definition depends on.
const DIGEST: &str = "natsctl.remote-task";
/// Variable: folder of static binaries, natsctl's own among them, if no option names one.
const BINARIES: &str = "NATSCTL_BINARIES";
/// Variable: an existing image, in place of one that is built here.
const IMAGE: &str = "NATSCTL_BUS_IMAGE";
/// CPU units and MiB of the smallest task that Fargate has.
const SIZE: (&str, &str) = ("256", "512");
/// Characters of a request: ECS takes 8192 of overrides, where a quotation mark counts twice.
const LONGEST_REQUEST: usize = 5_000;
/// How long the task may take; Fargate needs most of it to start it.
const TIMEOUT: Duration = Duration::from_secs(240);
/// Between two calls that describe the task.
const POLL: Duration = Duration::from_secs(1);
/// Lines of its log that an error shows.
const LAST_LINES: usize = 10;
/// CloudWatch may show a line so long after the task that wrote it has stopped.
const LOG_DELAY: Duration = Duration::from_secs(15);

/// Sends a request to NATS by a task.
///
/// # Errors
/// A task that cannot be made, does not start or does not answer; the error that it answers.
pub(super) async fn ask(
    aws: &Aws,
    request: BusRequest,
    binaries: Option<&Binaries>,
) -> anyhow::Result<RespondingTasks> {
    let definition = task_definition(aws, binaries).await?;
    let mut found = RespondingTasks::new();
    for part in request.parts(LONGEST_REQUEST) {
        let mut running = start(aws, &definition, &part).await?;
        note(&format!("task {} asks the bus", running.task));
        found.extend(answer(aws, &mut running).await?);
    }
    Ok(found)
}

/// ARN of the task definition: the newest one, or a new one if that was registered for something else.
async fn task_definition(aws: &Aws, binaries: Option<&Binaries>) -> anyhow::Result<String> {
    let secret = secret(aws).await?;
    let given = std::env::var(IMAGE).ok().filter(|image| !image.is_empty());
    let digest = digest(aws, &secret, given.as_deref());
    let family = format!("{NAME}-{}-{}", aws.handover.project, aws.handover.environment);
    let newest = revisions::newest(aws.clients.ecs(), NAME, &family).await?;
    let label = newest.as_ref().and_then(|newest| newest.containers.iter().find_map(|one| one.labels.get(DIGEST)));
    if let (Some(newest), true) = (&newest, label == Some(&digest)) {
        return Ok(newest.arn.clone());
    }
    let image = match given {
        Some(image) => image,
        None => push_own_image(aws, binaries).await?,
    };
    register(aws, &family, container(aws, image, &secret, digest)?).await
}

async fn register(aws: &Aws, family: &str, container: ContainerDefinition) -> anyhow::Result<String> {
    let call = aws.clients.ecs().register_task_definition().family(family);
    let call = call.network_mode(NetworkMode::Awsvpc).requires_compatibilities(Compatibility::Fargate);
    let call = call.cpu(SIZE.0).memory(SIZE.1).runtime_platform(platform(architecture(aws)));
    let call = call.execution_role_arn(&aws.handover.execution_role).container_definitions(container);
    let answer = call.set_tags(Some(tags::of(&aws.handover, NAME))).send().await;
    let answer = answer.map_err(|error| failed(&format!("register the task definition `{family}`"), error))?;
    let arn = answer.task_definition.and_then(|definition| definition.task_definition_arn);
    arn.with_context(|| format!("ECS gave no ARN for the task definition `{family}`"))
}

/// ARN of the secret with the task's identity on NATS.
async fn secret(aws: &Aws) -> anyhow::Result<String> {
    let name = aws.handover.nats_secret(REMOTE_TASK);
    secrets::arns(aws.clients.secrets(), &aws.handover).await?.remove(&name).ok_or_else(|| {
        let hint = "Terraform makes it: `terraform apply` in the environment's folder";
        Hinted::new(format!("there is no secret `{name}`"), hint).into()
    })
}

/// The same as long as a task definition can be used again.
fn digest(aws: &Aws, secret: &str, image: Option<&str>) -> String {
    let registry = aws.registry();
    let parts = [
        PROTOCOL,
        env!("CARGO_PKG_VERSION"),
        image.unwrap_or_default(),
        &registry,
        secret,
        &aws.handover.execution_role,
        &aws.handover.log_group,
        architecture(aws).target_arch(),
    ];
    data_encoding::HEXLOWER.encode(&Sha256::digest(parts.join("\n")))
}

fn container(aws: &Aws, image: String, secret_arn: &str, digest: String) -> Result<ContainerDefinition, BuildError> {
    let secret = |(variable, from): (String, SecretReference)| {
        Secret::builder().name(variable).value_from(from.value_from()).build()
    };
    let log = LogConfiguration::builder()
        .log_driver(LogDriver::Awslogs)
        .options("awslogs-group", &aws.handover.log_group)
        .options("awslogs-region", &aws.handover.region)
        .options("awslogs-stream-prefix", NAME)
        .build()?;
    let linux = LinuxParameters::builder().capabilities(KernelCapabilities::builder().drop("ALL").build()).build();
    Ok(ContainerDefinition::builder()
        .name(NAME)
        .image(image)
        .essential(true)
        .command(TASK_COMMAND)
        .set_secrets(Some(identity_from(secret_arn).map(secret).collect::<Result<_, _>>()?))
        .user(user_and_group())
        .readonly_root_filesystem(true)
        .linux_parameters(linux)
        .docker_labels(DIGEST, digest)
        .log_configuration(log)
        .build())
}

/// That of all services, if they have one in common: then natsctl is built for no other.
fn architecture(aws: &Aws) -> Architecture {
    let mut services = aws.manifests.services.values();
    let is_arm = services.all(|service| service.settings.architecture == Architecture::Arm64);
    if is_arm { Architecture::Arm64 } else { Architecture::X86_64 }
}

/// Builds and pushes natsctl's own image; gives its reference, with its digest.
async fn push_own_image(aws: &Aws, binaries: Option<&Binaries>) -> anyhow::Result<String> {
    let folder = std::env::var_os(BINARIES).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.map(Binaries::Folder);
    let by_cargo = Binaries::Cargo { profile: "release".to_owned() };
    let binaries = folder.as_ref().or(binaries).unwrap_or(&by_cargo);
    let store = Store::open(&aws.cache.join("images")).context("failed to make the folder of images")?;
    let order = BuildOptions {
        manifests: &aws.manifests,
        names: &BTreeSet::new(),
        workspace: &aws.workspace,
        binaries,
        compression: Compression::default(),
        store: &store,
    };
    note("natsctl cannot reach the bus from here: making an image of it that can");
    let made = image::of_package(&order, architecture(aws), NAME).await.map_err(|error| {
        let hint = format!("name a folder with a static `natsctl` in {BINARIES}, or an image in {IMAGE}");
        Hinted::new("failed to make natsctl's own image", hint).because(error)
    })?;
    let repository = aws.handover.names.repository.replace("{ecs_name}", NAME).replace("{service}", NAME);
    let registry = images::registry(aws)?;
    let pushed = registry.push(&repository, &made, &store, &|_| ()).await?;
    Ok(format!("{}/{repository}@{}", registry.host(), pushed.digest))
}

async fn start(aws: &Aws, definition: &str, request: &BusRequest) -> anyhow::Result<Running> {
    let request = KeyValuePair::builder().name("NATSCTL_BUS_REQUEST").value(serde_json::to_string(request)?);
    let overrides = ContainerOverride::builder().name(NAME).environment(request.build()).build();
    let network =
        network(&aws.handover.network.subnets, &aws.handover.network.security_groups, AssignPublicIp::Disabled)?;
    let call = aws.clients.ecs().run_task().cluster(aws.cluster()).task_definition(definition).count(1);
    let call = call.network_configuration(network);
    let call = call.overrides(TaskOverride::builder().container_overrides(overrides).build());
    // The same in each attempt: an answer that is lost starts no second task.
    let call = call.client_token(format!("{:032x}", fastrand::u128(..)));
    let call = call.started_by(NAME).launch_type(LaunchType::Fargate).set_tags(Some(tags::of(&aws.handover, NAME)));
    let answer = call.send().await.map_err(|error| failed("run the task that asks the bus", error))?;
    let Some(task) = answer.tasks().first() else {
        let reasons: Vec<&str> = answer.failures().iter().filter_map(|failure| failure.reason()).collect();
        let message = format!("failed to run the task that asks the bus: {}", reasons.join(", "));
        return Err(Hinted::new(message, "running it again is safe: nothing was started").into());
    };
    let (client, cluster) = (aws.clients.ecs().clone(), aws.cluster().to_owned());
    Ok(Running { client, cluster, task: Task::from(task.clone()).id, caller: aws.caller.clone(), has_ended: false })
}

/// Waits for the answer of a task.
async fn answer(aws: &Aws, running: &mut Running) -> anyhow::Result<RespondingTasks> {
    let stream = format!("{NAME}/{NAME}/{}", running.task);
    let deadline = Instant::now() + TIMEOUT;
    let mut stopped: Option<(Instant, Task)> = None;
    loop {
        let lines = log(aws.clients.logs(), &aws.handover.log_group, &stream).await?;
        if let Some(answer) = parse_reply(lines.iter().map(String::as_str)) {
            // It has nothing left to do, and ends by itself.
            running.has_ended = true;
            return answer;
        }
        if let Some((since, task)) = &stopped
            && since.elapsed() > LOG_DELAY
        {
            return Err(without_answer(task, &lines));
        }
        if stopped.is_none() {
            let task = tasks::describe(aws.ecs_cluster(), std::slice::from_ref(&running.task)).await?.pop();
            let task = task.filter(Task::has_stopped);
            running.has_ended = task.is_some();
            let has_never_run = |task: &&Task| task.container().and_then(|container| container.exit_code).is_none();
            if let Some(task) = task.as_ref().filter(has_never_run) {
                return Err(without_answer(task, &lines));
            }
            stopped = task.map(|task| (Instant::now(), task));
        }
        if Instant::now() > deadline {
            let message = format!("task {} has not answered within {} s", running.task, TIMEOUT.as_secs());
            return Err(Hinted::new(message, "it is being stopped; see `natsctl tasks --stopped`").into());
        }
        sleep(POLL).await;
    }
}

/// All lines of a log stream; none if it does not exist yet.
async fn log(logs: &aws_sdk_cloudwatchlogs::Client, group: &str, stream: &str) -> anyhow::Result<Vec<String>> {
    let call = logs.get_log_events().log_group_name(group).log_stream_name(stream);
    let mut pages = call.start_from_head(true).into_paginator().send();
    let mut lines = Vec::new();
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => lines.extend(page.events.unwrap_or_default().into_iter().filter_map(|event| event.message)),
            Err(error) if code(&error) == Some("ResourceNotFoundException") => break,
            Err(error) => return Err(failed(&format!("read the log stream `{stream}`"), error)),
        }
    }
    Ok(lines)
}

/// A task that was started here; it is stopped if natsctl stops waiting for it.
struct Running {
    client: aws_sdk_ecs::Client,
    cluster: String,
    task: String,
    caller: String,
    has_ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let stop = self.client.stop_task().cluster(&self.cluster).task(&self.task);
        let stop = stop.reason(format!("its answer is not needed any more (natsctl, {})", self.caller));
        cleanup::leave(async move {
            if let Err(error) = stop.send().await {
                note(&format!("{:#}", failed("stop the task that asks the bus", error)));
            }
        });
    }
}

fn without_answer(task: &Task, lines: &[String]) -> anyhow::Error {
    let reason = task.reason().unwrap_or_else(|| "ECS gives no reason".to_owned());
    let mut message = format!("task {} has not answered: {reason}", task.id);
    for line in lines.iter().rev().take(LAST_LINES).rev() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    Hinted::new(message, "`natsctl verify` says what is missing: image, secrets, roles or network").into()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Container, Task as SdkTask};

    use super::*;

    #[test]
    fn a_task_that_does_not_answer_says_why() {
        let container = Container::builder().name(NAME).reason("CannotPullContainerError").build();
        let task = SdkTask::builder().task_arn("arn/0123").stopped_reason("Task failed to start").containers(container);
        let lines: Vec<String> = (0..20).map(|number| format!("line {number}")).collect();
        let message = without_answer(&task.build().into(), &lines).to_string();
        assert!(
            message
                .starts_with("task 0123 has not answered: Task failed to start: CannotPullContainerError\n  line 10")
        );
        assert!(message.ends_with("  line 19"));
    }
}
