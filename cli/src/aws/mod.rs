//! The platform AWS: services on ECS, images in a registry, and the handover, one parameter in which Terraform describes what it made.
//!
//! Only this folder knows AWS. Its modules are functions that take the clients and names that they need; the types of the SDKs stay
//! inside a file, and what modules hand to each other is natsctl's own. Nothing here decides the desired state: it observes,
//! takes single steps, and follows deployments that it started.
#![allow(
    clippy::redundant_closure_for_method_calls,
    reason = "the paths of the SDKs' methods are longer than the closures"
)]

mod api;
pub(crate) mod apply;
mod arn;
mod audit;
mod autoscaling;
pub(crate) mod bus;
pub(crate) mod calls;
pub(crate) mod clients;
pub(crate) mod desired;
pub(crate) mod drift;
pub(crate) mod ecr;
mod ecs_service;
pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod identities;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod ledger;
mod limits;
pub(crate) mod lock;
pub(crate) mod logs;
mod named_image;
pub(crate) mod nodes;
pub(crate) mod notify;
pub(crate) mod observe;
pub(crate) mod platform;
pub(crate) mod proof;
pub(crate) mod register;
mod remote_task;
pub(crate) mod revisions;
pub(crate) mod rollout;
pub(crate) mod run;
mod secrets;
pub(crate) mod service_events;
mod service_settings;
pub(crate) mod services;
pub(crate) mod session;
pub(crate) mod status;
mod tags;
pub(crate) mod task_definition;
pub(crate) mod tasks;
pub(crate) mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, Once};

use anyhow::Context as _;
use tokio::sync::OnceCell;

use self::bus::Bus;
use self::clients::{Clients, Cluster};
use self::error::failed;
use self::task_definition::Names;
use crate::error::Hinted;
use crate::handover::Handover;
use crate::manifest::{AwsEnvironment, Environment, Manifests};
use crate::model::desired::Definition;
use crate::screen::note;
use crate::screen::progress::during;

/// Calls that run at the same time, unless `--max-parallel` says otherwise.
pub(crate) const AT_ONCE: usize = 8;

/// An environment on AWS, and the caller that works on it.
pub(crate) struct Aws {
    pub(crate) manifests: Manifests,
    /// The manifest of the environment.
    pub(crate) described: AwsEnvironment,
    /// The folder that holds the manifests and the sources.
    pub(crate) workspace: PathBuf,
    /// Folder on this machine for files that can be made again, such as packed images.
    pub(crate) cache: PathBuf,
    pub(crate) clients: Clients,
    pub(crate) handover: Handover,
    /// ARN of the caller.
    pub(crate) caller: String,
    /// The command, as typed.
    pub(crate) command_line: String,
    /// The connection to NATS, once it was made.
    bus: OnceCell<Bus>,
    /// What people should know of NATS, said once.
    notice: Once,
    /// Task definitions that were described, by ARN or `family:revision`: a revision never changes.
    revisions: Mutex<BTreeMap<String, Definition>>,
}

impl Aws {
    /// How a service and its container are called, by its manifest.
    fn names<'a>(&'a self, service: &'a str) -> Names<'a> {
        let manifest = self.manifests.services.get(service);
        Names { service, container: manifest.map_or(service, |manifest| manifest.container_name()) }
    }

    /// Asks for the caller's identity, refuses another account than the environment's, and reads the handover.
    pub(crate) async fn open(
        manifests: Manifests,
        workspace: PathBuf,
        cache: PathBuf,
        command_line: String,
    ) -> anyhow::Result<Self> {
        let Environment::Aws(described) = &manifests.environment else {
            anyhow::bail!("environment `{}` is not on AWS", manifests.name);
        };
        let described = described.clone();
        let account = account(&manifests.name, &described)?;
        let clients = Clients::new(&described.region).await?;
        let caller = during("asking AWS who calls", identity(&clients, &manifests.name, &account)).await?;
        let handover = during("reading the handover", read_handover(&clients, &described.handover)).await?;
        handover.fits(&manifests, &described, &account)?;
        Ok(Self {
            manifests,
            described,
            workspace,
            cache,
            clients,
            handover,
            caller,
            command_line,
            bus: OnceCell::new(),
            notice: Once::new(),
            revisions: Mutex::default(),
        })
    }

    /// Host of the registry for images: from `NATSCTL_REGISTRY`, the environment's manifest, or the handover.
    pub(crate) fn registry(&self) -> String {
        let typed = std::env::var("NATSCTL_REGISTRY").ok().filter(|registry| !registry.is_empty());
        typed.or_else(|| self.described.registry.clone()).unwrap_or_else(|| self.handover.registry.clone())
    }

    /// Where it is, and who works on it.
    pub(crate) fn place(&self) -> String {
        // arn:aws:sts::<account>:…
        let account = self.caller.split(':').nth(4).unwrap_or_default();
        let (environment, region) = (&self.manifests.name, &self.described.region);
        format!("environment {environment}: account {account}, {region}, as {}", self.caller)
    }

    /// Name of the ECS cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.handover.cluster
    }

    /// The ECS cluster, with its client.
    pub(crate) fn ecs_cluster(&self) -> Cluster<'_> {
        Cluster { ecs: self.clients.ecs(), name: self.cluster() }
    }

    /// A deployment observes its environment more than once.
    fn say_once(&self, notice: Option<String>) {
        if let Some(text) = notice {
            self.notice.call_once(|| note(&text));
        }
    }

    /// The connection to NATS; made once.
    pub(crate) async fn bus(&self) -> anyhow::Result<&Bus> {
        self.bus.get_or_try_init(|| Bus::connect(self)).await
    }
}

/// The account of the environment, from its manifest or `NATSCTL_ACCOUNT`.
fn account(environment: &str, described: &AwsEnvironment) -> anyhow::Result<String> {
    let typed = std::env::var("NATSCTL_ACCOUNT").ok().filter(|account| !account.is_empty());
    let account = described.account.clone().or(typed).ok_or_else(|| {
        let hint = format!("set NATSCTL_ACCOUNT, or `account` in `environments/{environment}.yaml`");
        Hinted::new(format!("nothing says which account environment `{environment}` is in"), hint)
    })?;
    if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(account);
    }
    let message = format!("`{account}` is not the number of an account");
    Err(Hinted::new(message, "it has 12 digits; see NATSCTL_ACCOUNT").into())
}

/// ARN of the caller.
async fn identity(clients: &Clients, environment: &str, account: &str) -> anyhow::Result<String> {
    let answer = clients.sts().get_caller_identity().send().await;
    let identity = answer.map_err(|error| failed("find out who calls", error))?;
    let (found, caller) = (identity.account().unwrap_or_default(), identity.arn().unwrap_or_default());
    if found == account {
        return Ok(caller.to_owned());
    }
    let message =
        format!("the credentials are of account {found} (`{caller}`), environment `{environment}` is in {account}");
    Err(Hinted::new(message, "use other credentials (AWS_PROFILE), or another `--env`; nothing was changed").into())
}

async fn read_handover(clients: &Clients, name: &str) -> anyhow::Result<Handover> {
    let answer = clients.ssm().get_parameter().name(name).with_decryption(true).send().await;
    let answer = answer.map_err(|error| {
        let missing = error.as_service_error().is_some_and(|error| error.is_parameter_not_found());
        let error = failed(&format!("read the handover `{name}`"), error);
        let hint = "Terraform writes it: `terraform apply` in the environment's folder; or the region is another";
        if missing { Hinted::new(format!("there is no parameter `{name}`"), hint).because(error).into() } else { error }
    })?;
    let text = answer.parameter().and_then(|parameter| parameter.value()).unwrap_or_default();
    text.parse().with_context(|| format!("the handover `{name}` cannot be read"))
}
