//! AWS on this machine, for tests: two emulators that others wrote, a real registry, and in front of them a proxy that
//! records the calls and makes them fail as the test wants.
//!
//! - ECS, ECR and Logs are ministack's; everything else is moto's. `python/` starts both and adds what they lack: tasks
//!   and deployments that behave as those of ECS, `SimulatePrincipalPolicy` from the policies that are really there.
//! - Containers of images that were pushed to [`Emulator::registry`] are real processes. Other images are only names, and
//!   do what [`Emulator::behave`] says: by default they run for ever.
//! - `LookupEvents` is answered by the proxy from the calls that it recorded: who did it is the access key id. So are
//!   `StartSession` and `TerminateSession`; the session leads nowhere.
//! - With [`Emulator::machines`] the instances of NATS nodes are machines with a systemd, on which Systems Manager runs scripts.
//! - [`Emulator::clean`] goes back to what [`Emulator::foundation`] made, in a few milliseconds.
//!
//! `docs/testing-aws.md` says what is real, what is not, and what cannot be tested here.

#![allow(dead_code, reason = "tests, benchmarks and examples each use another part of it")]

mod calls;
mod children;
mod faults;
mod forks;
mod foundation;
mod http;
pub(crate) mod nodes;
mod proxy;
mod registry;
pub(crate) mod sessions;
mod trail;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use calls::Call;
pub(crate) use faults::{Fault, Gate, Rule, Side};
pub(crate) use foundation::Foundation;
pub(crate) use registry::Transfer;

use children::Child;
use http::{Request, Server};

/// The account that the emulators are.
pub(crate) const ACCOUNT: &str = "123456789012";
/// The region that they are in.
pub(crate) const REGION: &str = "us-east-1";
/// The access key id, and so the user, of [`Emulator::env`].
pub(crate) const CALLER: &str = "natsctl";

/// Everything, started; ended when dropped.
pub(crate) struct Emulator {
    proxy: Server,
    front: Option<Server>,
    shared: Arc<proxy::Shared>,
    images: Option<Arc<registry::Shared>>,
    moto: Child,
    ministack: Child,
    registry: Option<Child>,
    machines: Option<nodes::Machines>,
    dir: tempfile::TempDir,
}

impl Emulator {
    /// Starts the emulators, the registry if there is one on this machine, and the proxy: about a second.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (moto, ministack) = (Child::moto(dir.path()), Child::start("ministack", dir.path()));
        let registry = has("docker-registry").then(|| Child::start("registry", dir.path()));
        let (ministack_at, moto_at) = (ministack.port(), moto.port());
        moto.read();
        let shared = proxy::Shared::new(moto_at, ministack_at);
        let proxy = proxy::start(Arc::clone(&shared));
        let registry_at = registry.as_ref().map(Child::port);
        let images = registry_at.map(|at| registry::Shared::new(at, ministack_at));
        let front = images.as_ref().map(|images| registry::start(Arc::clone(images)));
        ministack.command(json!({
            "command": "configure",
            "moto": moto_at.to_string(),
            "settings": {
                "registry": registry_at.map(|at| at.to_string()),
                "registries": front.as_ref().map(|front| front.address.to_string()).into_iter().collect::<Vec<_>>(),
                "store": dir.path().join("images"),
                "endpoint": format!("http://{}", proxy.address),
            }
        }));
        let emulator = Self { proxy, front, shared, images, moto, ministack, registry, machines: None, dir };
        emulator.save();
        emulator
    }

    /// For `AWS_ENDPOINT_URL`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.address)
    }

    /// Host and port of the registry.
    pub(crate) fn registry(&self) -> String {
        self.front.as_ref().expect("`docker-registry` is installed (scripts/emulator)").address.to_string()
    }

    /// The environment in which the SDKs, the CLI and natsctl find the emulators.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("AWS_ENDPOINT_URL".to_owned(), self.endpoint()),
            ("AWS_REGION".to_owned(), REGION.to_owned()),
            ("AWS_DEFAULT_REGION".to_owned(), REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), CALLER.to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "secret".to_owned()),
            ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
            ("NATSCTL_ACCOUNT".to_owned(), ACCOUNT.to_owned()),
        ]);
        if self.front.is_some() {
            env.insert("NATSCTL_REGISTRY".to_owned(), self.registry());
        }
        env
    }

    /// Everything that went through the proxy since [`Emulator::reset_calls`], in the order of arrival.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How often each action was called, by its name: `ecs:UpdateService`.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls() {
            *counts.entry(call.name()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn reset_calls(&self) {
        self.shared.calls.lock().unwrap().clear();
    }

    /// From now on the rule applies, until [`Emulator::heal`] or [`Emulator::clean`].
    pub(crate) fn inject(&self, rule: Rule) {
        self.shared.rules.lock().unwrap().push(rule);
    }

    /// The `n`th call from now has its effect, and its answer waits until the gate is released.
    pub(crate) fn hold(&self, n: usize) -> Gate {
        let gate = Gate::new();
        self.inject(Rule::nth(n, Fault::Gate(gate.clone(), Side::After)));
        gate
    }

    /// The `n`th call from now waits before it has any effect.
    pub(crate) fn hold_before(&self, n: usize) -> Gate {
        let gate = Gate::new();
        self.inject(Rule::nth(n, Fault::Gate(gate.clone(), Side::Before)));
        gate
    }

    /// No faults any more.
    pub(crate) fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// What containers do whose image's name begins with `image`. A list: one container after the other, the last for
    /// ever. `log`: lines; `exit`: `{code, after_ms}`; `health`: `{status, after_ms}`; `stop_ms`; `pull_ms`; `pull_error`;
    /// `one_off`: the same for tasks of no service.
    pub(crate) fn behave(&self, image: &str, behaviour: Value) {
        self.ministack.command(json!({ "command": "behave", "image": image, "behaviour": behaviour }));
    }

    /// Sets fields of a `cluster` (`name`), `service` (`cluster/name`) or `task` (ARN) of ECS, which no call can.
    pub(crate) fn change(&self, kind: &str, key: &str, set: Value) {
        self.ministack.command(json!({ "command": "change", "kind": kind, "key": key, "set": set }));
    }

    /// What is there now is what [`Emulator::clean`] goes back to. Only without tasks.
    pub(crate) fn save(&self) {
        self.each(Child::save);
    }

    /// Back to the last [`Emulator::save`]; no calls, no faults, no containers.
    pub(crate) fn clean(&self) {
        self.heal();
        self.each(Child::restore);
        self.reset_calls();
        if let Some(images) = &self.images {
            images.transfers.lock().unwrap().clear();
            let mut rules = images.rules.lock().unwrap();
            (rules.cut, rules.login) = (None, None);
        }
    }

    fn each(&self, action: impl Fn(&Child)) {
        for child in [Some(&self.moto), Some(&self.ministack), self.registry.as_ref()].into_iter().flatten() {
            action(child);
        }
    }

    /// Requests that the registry has answered.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        self.images.as_ref().map(|images| images.transfers.lock().unwrap().clone()).unwrap_or_default()
    }

    /// The `nth` upload of a blob from now is cut after so many bytes.
    pub(crate) fn cut_upload(&self, nth: usize, bytes: u64) {
        self.images.as_ref().unwrap().rules.lock().unwrap().cut = Some((nth, bytes));
    }

    /// The registry asks for a name and a password; ECR's tokens have `AWS` and `ministack-auth-token`.
    pub(crate) fn require_login(&self, name: &str, password: &str) {
        self.images.as_ref().unwrap().rules.lock().unwrap().login = Some((name.to_owned(), password.to_owned()));
    }

    /// Pushes a blob, past the front; its digest and size.
    pub(crate) fn push_blob(&self, repository: &str, blob: &[u8]) -> (String, usize) {
        (self.images.as_ref().unwrap().push_blob(repository, blob), blob.len())
    }

    /// Pushes a manifest through the front; its digest.
    ///
    /// # Panics
    /// If it is refused.
    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        self.try_push_manifest(repository, tag, manifest).unwrap()
    }

    /// The same; a refusal is what the registry said.
    pub(crate) fn try_push_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Result<String, String> {
        registry::push_manifest(self.front.as_ref().unwrap().address, repository, tag, manifest)
    }

    /// One call that is neither recorded nor disturbed, to a service that speaks JSON: `call("ecs", "ListClusters", …)`.
    ///
    /// # Panics
    /// If it is refused.
    pub(crate) fn call(&self, service: &str, action: &str, body: &Value) -> Value {
        let response = self.try_call(service, action, body);
        response.unwrap_or_else(|problem| panic!("{service}:{action} {body}: {problem}"))
    }

    /// The same; refusals are values.
    pub(crate) fn try_call(&self, service: &str, action: &str, body: &Value) -> Result<Value, Value> {
        let target = format!("{}.{action}", target_of(service));
        let machines = self.shared.machines.get().filter(|_| service == "ssm" && nodes::is_command(action));
        let upstream = machines.copied().unwrap_or_else(|| self.shared.upstream(service));
        let response = http::send(upstream, &signed(service, &target, body)).unwrap();
        let answer = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        if response.status < 300 { Ok(answer) } else { Err(answer) }
    }

    /// The aws CLI with these arguments, through the proxy; `None` if there is no aws CLI on this machine.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn aws(&self, arguments: &[&str]) -> Option<Value> {
        if !has("aws") {
            return None;
        }
        let output = Command::new("aws").args(arguments).args(["--output", "json"]).envs(self.env()).output().unwrap();
        assert!(output.status.success(), "aws {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// Makes an alarm that nothing but this method sets off, or changes its state: `OK`, `ALARM`, `INSUFFICIENT_DATA`.
    pub(crate) fn alarm(&self, name: &str, state: &str) {
        let call = |pairs: &[(&str, &str)]| foundation::form(self, "monitoring", pairs);
        call(&[
            ("Action", "PutMetricAlarm"),
            ("AlarmName", name),
            ("ComparisonOperator", "GreaterThanThreshold"),
            ("EvaluationPeriods", "1"),
            ("Threshold", "80"),
            ("MetricName", "CPUUtilization"),
            ("Namespace", "AWS/ECS"),
            ("Period", "60"),
            ("Statistic", "Average"),
        ]);
        call(&[
            ("Action", "SetAlarmState"),
            ("AlarmName", name),
            ("StateValue", state),
            ("StateReason", "a test says so"),
        ]);
    }

    /// Where the emulator is that knows a service, past the proxy.
    pub(crate) fn upstream(&self, service: &str) -> std::net::SocketAddr {
        self.shared.upstream(service)
    }

    /// Makes what Terraform would have made, and saves it.
    pub(crate) fn foundation(&self, foundation: &Foundation) {
        foundation.build(self);
        if let Some(images) = &self.images {
            let mut rules = images.rules.lock().unwrap();
            rules.repositories = Some(foundation.repositories());
            rules.immutable_tags = true;
        }
        self.save();
        self.reset_calls();
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn target_of(service: &str) -> &'static str {
    match service {
        "ecs" => "AmazonEC2ContainerServiceV20141113",
        "ecr" => "AmazonEC2ContainerRegistry_V20150921",
        "logs" => "Logs_20140328",
        "ssm" => "AmazonSSM",
        "secretsmanager" => "secretsmanager",
        "dynamodb" => "DynamoDB_20120810",
        "application-autoscaling" => "AnyScaleFrontendService",
        "kms" => "TrentService",
        "cloudtrail" => "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101",
        "monitoring" => "GraniteServiceVersion20100801",
        _ => panic!("`{service}` does not speak JSON"),
    }
}

/// A call in JSON with a signature that is not checked.
pub(crate) fn signed(service: &str, target: &str, body: &Value) -> Request {
    let version = if service == "dynamodb" { "1.0" } else { "1.1" };
    Request {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: vec![
            ("Authorization".to_owned(), authorization(service)),
            ("Content-Type".to_owned(), format!("application/x-amz-json-{version}")),
            ("X-Amz-Target".to_owned(), target.to_owned()),
        ],
        body: body.to_string().into_bytes(),
    }
}

fn authorization(service: &str) -> String {
    let scope = format!("terraform/20260101/{REGION}/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
}
