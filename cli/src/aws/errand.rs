//! A task that asks the bus, where natsctl itself is outside the network: natsctl's own image, run once inside, with an identity that can
//! do little else. Its answer is in its log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_ecs::error::BuildError;
use aws_sdk_ecs::types::{
    Compatibility, Container, ContainerDefinition, ContainerOverride, KernelCapabilities, KeyValuePair, LaunchType,
    LinuxParameters, LogConfiguration, LogDriver, NetworkMode, Secret, Task, TaskOverride,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::Aws;
use super::apply::network;
use super::definition::platform;
use super::desired::identity_from;
use super::error::{code, failed};
use super::tasks::{self, id, stopped_reason};
use crate::cleanup;
use crate::error::Hinted;
use crate::image::{self, Binaries, BuildOptions, Compression, Store};
use crate::model::desired::Architecture;
use crate::model::task::user_and_group;
use crate::nats::bus::{BusRequest, PROTOCOL, RespondingTasks, parse_reply};
use crate::nats::permissions::REMOTE_TASK;
use crate::screen::note;

/// Name of the package, the container, and, where a service has its own, the repository.
const NAME: &str = "natsctl";
/// Label with the digest of what the task definition was made for.
const MADE_FOR: &str = "natsctl.errand";
/// Folder of static binaries, natsctl's own among them, where no command names one.
const BINARIES: &str = "NATSCTL_BINARIES";
/// An image that exists already, in the place of one that is made here.
const IMAGE: &str = "NATSCTL_BUS_IMAGE";
/// The smallest that Fargate has.
const SIZE: (&str, &str) = ("256", "512");
/// ECS takes 8192 characters of overrides, and in them a quotation mark is two.
const LONGEST: usize = 5_000;
/// How long the task may take: most of it is Fargate's.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is looked at.
const POLL: Duration = Duration::from_secs(1);
/// Of its log, so many lines are shown.
const LAST_LINES: usize = 10;
/// What a task has written may come to CloudWatch after it has ended.
const LATE: Duration = Duration::from_secs(15);

impl Aws {
    /// Asks the bus by a task.
    ///
    /// # Errors
    /// A task that cannot be made, does not start, or does not answer; what it answers when it has failed.
    pub(crate) async fn errand(
        &self,
        request: BusRequest,
        binaries: Option<&Binaries>,
    ) -> anyhow::Result<RespondingTasks> {
        let definition = self.errand_definition(binaries).await?;
        let mut found = RespondingTasks::new();
        for part in request.parts(LONGEST) {
            let mut running = self.start_errand(&definition, &part).await?;
            note(&format!("task {} asks the bus", running.task));
            found.extend(self.answer(&mut running).await?);
        }
        Ok(found)
    }

    // ------------------------------------------------------------------------------------------ what runs

    /// Where the log goes, and how the task definition is called.
    fn errand_family(&self) -> String {
        format!("{NAME}-{}-{}", self.handover.project, self.handover.environment)
    }

    /// The task definition: the one that is there, or another if that was made for something else.
    async fn errand_definition(&self, binaries: Option<&Binaries>) -> anyhow::Result<String> {
        let secret = self.errand_secret().await?;
        let given = std::env::var(IMAGE).ok().filter(|image| !image.is_empty());
        let made_for = self.made_for(&secret, given.as_deref());
        let family = self.errand_family();
        let there = self.newest(&family).await?;
        let label = |container: &ContainerDefinition| container.docker_labels()?.get(MADE_FOR).cloned();
        let there =
            there.filter(|there| there.container_definitions().iter().find_map(label) == Some(made_for.clone()));
        if let Some(arn) = there.and_then(|there| there.task_definition_arn) {
            return Ok(arn);
        }
        let image = match given {
            Some(image) => image,
            None => self.own_image(binaries).await?,
        };
        let container = self.errand_container(image, &secret, made_for)?;
        let call = self.clients.ecs().register_task_definition().family(&family);
        let call = call.network_mode(NetworkMode::Awsvpc).requires_compatibilities(Compatibility::Fargate);
        let call = call.cpu(SIZE.0).memory(SIZE.1).runtime_platform(platform(self.errand_architecture()));
        let call = call.execution_role_arn(&self.handover.execution_role).container_definitions(container);
        let answer = call.set_tags(Some(self.tags(NAME))).send().await;
        let answer = answer.map_err(|error| failed(&format!("register the task definition `{family}`"), error))?;
        answer
            .task_definition
            .and_then(|definition| definition.task_definition_arn)
            .with_context(|| format!("ECS says nothing of the task definition `{family}` that it has registered"))
    }

    async fn errand_secret(&self) -> anyhow::Result<String> {
        let name = self.handover.nats_secret(REMOTE_TASK);
        self.secrets().await?.remove(&name).ok_or_else(|| {
            let hint = "Terraform makes it: `terraform apply` in the environment's folder";
            Hinted::new(format!("there is no secret `{name}`"), hint).into()
        })
    }

    /// The same as long as a task definition would do.
    fn made_for(&self, secret: &str, image: Option<&str>) -> String {
        let registry = self.registry();
        let parts = [
            PROTOCOL,
            env!("CARGO_PKG_VERSION"),
            image.unwrap_or_default(),
            &registry,
            secret,
            &self.handover.execution_role,
            &self.handover.log_group,
            self.errand_architecture().target_arch(),
        ];
        data_encoding::HEXLOWER.encode(&Sha256::digest(parts.join("\n")))
    }

    fn errand_container(
        &self,
        image: String,
        secret_arn: &str,
        made_for: String,
    ) -> Result<ContainerDefinition, BuildError> {
        let secret = |(variable, from): (String, String)| Secret::builder().name(variable).value_from(from).build();
        let log = LogConfiguration::builder()
            .log_driver(LogDriver::Awslogs)
            .options("awslogs-group", &self.handover.log_group)
            .options("awslogs-region", &self.handover.region)
            .options("awslogs-stream-prefix", NAME)
            .build()?;
        let linux = LinuxParameters::builder().capabilities(KernelCapabilities::builder().drop("ALL").build()).build();
        Ok(ContainerDefinition::builder()
            .name(NAME)
            .image(image)
            .essential(true)
            .command("remote-task")
            .set_secrets(Some(identity_from(secret_arn).map(secret).collect::<Result<_, _>>()?))
            .user(user_and_group())
            .readonly_root_filesystem(true)
            .linux_parameters(linux)
            .docker_labels(MADE_FOR, made_for)
            .log_configuration(log)
            .build())
    }

    fn errand_architecture(&self) -> Architecture {
        let mut services = self.manifests.services.values();
        // Where everything runs on the one kind, nothing of the other needs to be built.
        let is_arm = services.all(|service| service.settings.architecture == Architecture::Arm64);
        if is_arm { Architecture::Arm64 } else { Architecture::X86_64 }
    }

    /// natsctl's own image, in the registry, with its digest.
    async fn own_image(&self, binaries: Option<&Binaries>) -> anyhow::Result<String> {
        let folder = std::env::var_os(BINARIES).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = folder.map(Binaries::Folder);
        let by_cargo = Binaries::Cargo { profile: "release".to_owned() };
        let binaries = folder.as_ref().or(binaries).unwrap_or(&by_cargo);
        let store = Store::open(&self.cache.join("images")).context("failed to make the folder of images")?;
        let order = BuildOptions {
            manifests: &self.manifests,
            names: &BTreeSet::new(),
            workspace: &self.workspace,
            binaries,
            compression: Compression::default(),
            store: &store,
        };
        note("natsctl cannot reach the bus from here: making an image of it that can");
        let made = image::of_package(&order, self.errand_architecture(), NAME).await.map_err(|error| {
            let hint = format!("name a folder with a static `natsctl` in {BINARIES}, or an image in {IMAGE}");
            Hinted::new("failed to make natsctl's own image", hint).because(error)
        })?;
        let repository = self.handover.names.repository.replace("{ecs_name}", NAME).replace("{service}", NAME);
        let registry = self.open_registry()?;
        let pushed = registry.push(&repository, &made, &store, &|_| ()).await?;
        Ok(format!("{}/{repository}@{}", registry.host(), pushed.digest))
    }

    // ------------------------------------------------------------------------------------------ running it

    async fn start_errand(&self, definition: &str, request: &BusRequest) -> anyhow::Result<Running> {
        let request = KeyValuePair::builder().name("NATSCTL_BUS_REQUEST").value(serde_json::to_string(request)?);
        let overrides = ContainerOverride::builder().name(NAME).environment(request.build()).build();
        let network = network(&self.handover.network.subnets, &self.handover.network.security_groups)?;
        let call = self.clients.ecs().run_task().cluster(self.cluster()).task_definition(definition).count(1);
        let call = call.network_configuration(network);
        let call = call.overrides(TaskOverride::builder().container_overrides(overrides).build());
        // The same in each attempt: an answer that is lost starts no second task.
        let call = call.client_token(format!("{:032x}", fastrand::u128(..)));
        let call = call.started_by(NAME).launch_type(LaunchType::Fargate).set_tags(Some(self.tags(NAME)));
        let answer = call.send().await.map_err(|error| failed("run the task that asks the bus", error))?;
        let reason = || answer.failures().iter().filter_map(|failure| failure.reason()).collect::<Vec<_>>().join(", ");
        let Some(task) = answer.tasks().first() else {
            let message = format!("failed to run the task that asks the bus: {}", reason());
            return Err(Hinted::new(message, "running it again is safe: nothing was started").into());
        };
        let (client, cluster, id) = (self.clients.ecs().clone(), self.cluster().to_owned(), id(task).to_owned());
        Ok(Running { client, cluster, task: id, caller: self.caller.clone(), is_over: false })
    }

    /// What the task answers.
    async fn answer(&self, running: &mut Running) -> anyhow::Result<RespondingTasks> {
        let stream = format!("{NAME}/{NAME}/{}", running.task);
        let deadline = Instant::now() + PATIENCE;
        let mut stopped: Option<(Instant, Task)> = None;
        loop {
            let lines = self.log_stream(&stream).await?;
            if let Some(answer) = parse_reply(lines.iter().map(String::as_str)) {
                // It has nothing left to do, and ends by itself.
                running.is_over = true;
                return answer;
            }
            if let Some((since, task)) = &stopped
                && since.elapsed() > LATE
            {
                return Err(without_answer(task, &lines));
            }
            if stopped.is_none() {
                let described = self.describe_tasks(std::slice::from_ref(&running.task)).await?.pop();
                let described = described.filter(|task| task.last_status() == Some("STOPPED"));
                running.is_over = described.is_some();
                stopped = described.map(|task| (Instant::now(), task));
                let never_ran =
                    |(_, task): &(Instant, Task)| tasks::container(task).and_then(Container::exit_code).is_none();
                if let Some((_, task)) = stopped.as_ref().filter(|stopped| never_ran(stopped)) {
                    return Err(without_answer(task, &lines));
                }
            }
            if Instant::now() > deadline {
                let message = format!("task {} has not answered within {} s", running.task, PATIENCE.as_secs());
                return Err(Hinted::new(message, "it is being stopped; see `natsctl tasks --stopped`").into());
            }
            sleep(POLL).await;
        }
    }
}

impl Aws {
    /// What a task has written.
    async fn log_stream(&self, stream: &str) -> anyhow::Result<Vec<String>> {
        let call =
            self.clients.logs().get_log_events().log_group_name(&self.handover.log_group).log_stream_name(stream);
        let mut pages = call.start_from_head(true).into_paginator().send();
        let mut lines = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => lines.extend(page.events.unwrap_or_default().into_iter().filter_map(|event| event.message)),
                // Nothing was written yet.
                Err(error) if code(&error) == Some("ResourceNotFoundException") => break,
                Err(error) => return Err(failed(&format!("read the log stream `{stream}`"), error)),
            }
        }
        Ok(lines)
    }
}

/// A task that is stopped when nobody waits for it any more.
struct Running {
    client: aws_sdk_ecs::Client,
    cluster: String,
    task: String,
    caller: String,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let stop = self.client.stop_task().cluster(&self.cluster).task(&self.task);
        let stop = stop.reason(format!("nobody waits for it any more (natsctl, {})", self.caller));
        cleanup::leave(async move {
            if let Err(error) = stop.send().await {
                note(&format!("{:#}", failed("stop the task that asks the bus", error)));
            }
        });
    }
}

fn without_answer(task: &Task, lines: &[String]) -> anyhow::Error {
    let reason = stopped_reason(task).unwrap_or_else(|| "ECS gives no reason".to_owned());
    let mut message = format!("task {} has not answered: {reason}", id(task));
    for line in lines.iter().rev().take(LAST_LINES).rev() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    Hinted::new(message, "`natsctl verify` says what is missing: image, secrets, roles or network").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_does_not_answer_says_why() {
        let container = Container::builder().name(NAME).reason("CannotPullContainerError").build();
        let task = Task::builder().task_arn("arn/0123").stopped_reason("Task failed to start").containers(container);
        let lines: Vec<String> = (0..20).map(|number| format!("line {number}")).collect();
        let message = without_answer(&task.build(), &lines).to_string();
        assert!(
            message
                .starts_with("task 0123 has not answered: Task failed to start: CannotPullContainerError\n  line 10")
        );
        assert!(message.ends_with("  line 19"));
    }
}
