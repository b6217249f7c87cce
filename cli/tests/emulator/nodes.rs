//! Machines for NATS: instances of EC2 that are there, with a systemd, an agent of Systems Manager, and a network between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Emulator;
use super::calls::Call;
use super::children::Child;
use super::foundation::{Foundation, element, form};

/// Where nodes and natsctl inside their network reach the emulators, and where the server of files is.
pub(crate) const AWS_INSIDE: &str = "http://10.0.0.2:80";
/// See [`AWS_INSIDE`].
pub(crate) const FILES_INSIDE: &str = "http://10.0.0.2:81";

/// The machines, started; ended when dropped.
pub(crate) struct Machines {
    server: Child,
    /// The process whose namespaces are the hub's: inside the network of the nodes.
    pub(crate) hub: u64,
    /// First process of each node.
    pub(crate) nodes: BTreeMap<String, u64>,
    /// Instance of each node.
    pub(crate) instances: BTreeMap<String, String>,
}

/// Why there can be no machines here; `None` if there can.
pub(crate) fn impossible() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("namespaces need root");
    }
    let has = |file: &str| Path::new(file).exists();
    if !has("/lib/systemd/systemd") {
        return Some("systemd is not installed (Debian and Ubuntu: apt-get install systemd)");
    }
    if !has("/sbin/ip") && !has("/usr/sbin/ip") {
        return Some("`ip` is not installed (Debian and Ubuntu: apt-get install iproute2)");
    }
    let unshared = Command::new("unshare").args(["--fork", "--pid", "--mount", "--net", "--cgroup", "true"]).output();
    unshared.map_or(true, |output| !output.status.success()).then_some("this machine allows no namespaces")
}

/// Whether a call of Systems Manager is about scripts on machines.
pub(super) fn is_command(action: &str) -> bool {
    const ACTIONS: [&str; 6] = [
        "SendCommand",
        "GetCommandInvocation",
        "ListCommands",
        "ListCommandInvocations",
        "CancelCommand",
        "DescribeInstanceInformation",
    ];
    ACTIONS.contains(&action)
}

/// Why a node may not do this: its role allows it to read its own secret.
pub(super) fn denied(call: &Call) -> Option<String> {
    let node = call.caller.strip_prefix("node-")?;
    let secret = call.body["SecretId"].as_str().unwrap_or_default();
    let is_own = call.name() == "secretsmanager:GetSecretValue" && secret.ends_with(&format!("/nats/{node}"));
    (!is_own).then(|| format!("the role of {node} may not {} `{secret}`", call.name()))
}

impl Emulator {
    /// Makes instances for five nodes and boots them, as Terraform's user data leaves them; they are in the handover afterwards. `files`
    /// are served at [`FILES_INSIDE`]. Takes about five seconds.
    pub(crate) fn start_machines(&mut self, foundation: &Foundation, files: &BTreeMap<String, String>) {
        let names: Vec<String> = (1..=5).map(|number| format!("nats-{number}")).collect();
        let instances: BTreeMap<&String, (String, String)> =
            names.iter().map(|name| (name, self.launch(name))).collect();
        let boots = instances.iter().map(|(name, (instance, address))| {
            let node = json!({ "instance": instance, "address": address, "user_data": user_data(name) });
            ((*name).clone(), node)
        });
        let boots: serde_json::Map<String, Value> = boots.collect();
        let server = Child::start("nodes", self.dir.path());
        let port = server.port();
        let answer = server.ask(json!({
            "command": "boot", "nodes": boots, "endpoint": self.proxy.address.port(), "files": files,
        }));
        self.shared.machines.set(port).unwrap();
        foundation.hand_over(self, |handover| {
            for (name, (instance, address)) in &instances {
                handover["nats"]["nodes"][name.as_str()]["instance"] = instance.as_str().into();
                handover["nats"]["nodes"][name.as_str()]["address"] = address.as_str().into();
            }
        });
        let nodes = answer["nodes"].as_object().unwrap().iter();
        self.machines = Some(Machines {
            server,
            hub: answer["hub"].as_u64().unwrap(),
            nodes: nodes.map(|(name, pid)| (name.clone(), pid.as_u64().unwrap())).collect(),
            instances: instances.into_iter().map(|(name, (instance, _))| (name.clone(), instance)).collect(),
        });
        self.reset_calls();
    }

    /// The machines.
    ///
    /// # Panics
    /// If none were started.
    pub(crate) fn machines(&self) -> &Machines {
        self.machines.as_ref().unwrap()
    }

    /// An instance as moto has it: its id and its private address.
    fn launch(&self, name: &str) -> (String, String) {
        let zone = name.trim_start_matches("nats-").parse::<usize>().unwrap() - 1;
        let subnets = form(
            self,
            "ec2",
            &[
                ("Action", "DescribeSubnets"),
                ("Filter.1.Name", "cidr-block"),
                ("Filter.1.Value.1", &format!("10.0.{}.0/24", zone % 3 + 1)),
            ],
        );
        let answer = form(
            self,
            "ec2",
            &[
                ("Action", "RunInstances"),
                ("ImageId", "ami-12c6146b"),
                ("InstanceType", "m6i.large"),
                ("MinCount", "1"),
                ("MaxCount", "1"),
                ("SubnetId", &element(&subnets, "subnetId")),
                ("TagSpecification.1.ResourceType", "instance"),
                ("TagSpecification.1.Tag.1.Key", "node"),
                ("TagSpecification.1.Tag.1.Value", name),
            ],
        );
        (element(&answer, "instanceId"), element(&answer, "privateIpAddress"))
    }

    /// Stops an instance, as EC2 sees it; the machine goes on.
    pub(crate) fn stop_instance(&self, node: &str) {
        let instance = &self.machines().instances[node];
        form(self, "ec2", &[("Action", "StopInstances"), ("InstanceId.1", instance)]);
    }

    /// The same back again.
    pub(crate) fn start_instance(&self, node: &str) {
        let instance = &self.machines().instances[node];
        form(self, "ec2", &[("Action", "StartInstances"), ("InstanceId.1", instance)]);
    }
}

impl Machines {
    /// How the agent of a node behaves from now on: `online`, `offline`, `unknown`, `silent`, `waiting`, `slow`.
    pub(crate) fn agent(&self, node: &str, mode: &str) {
        self.server.command(json!({ "command": "agent", "node": node, "mode": mode }));
    }

    /// Other files are served.
    pub(crate) fn serve(&self, files: &BTreeMap<String, String>) {
        self.server.command(json!({ "command": "files", "files": files }));
    }

    /// What a script in the shell says on a node.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn shell(&self, node: &str, script: &str) -> String {
        let target = self.nodes[node].to_string();
        let mut command = Command::new("nsenter");
        let output = command.args(["--target", &target, "--all", "--", "bash", "-euc", script]).output().unwrap();
        assert!(output.status.success(), "{node}: {script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A program in the network of the nodes, and in a folder.
    pub(crate) fn inside(&self, program: &str, folder: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.hub.to_string(), "--net", "--mount"]);
        command.arg(format!("--wd={}", folder.display())).args(["--", program]);
        command.env("AWS_ENDPOINT_URL", AWS_INSIDE);
        command
    }
}

/// What the instance of a node runs at its first start, with a volume and names that do not matter here.
fn user_data(node: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform/modules/nats-cluster/prepare.sh.tftpl");
    let template = std::fs::read_to_string(file).unwrap();
    let values = [("node", node), ("volume", "vol0"), ("namespace", "test/nats"), ("log_group", "/ec2/test-nats")];
    let text = values.iter().fold(template, |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    assert!(!text.contains("${"), "the template has other variables");
    text
}
