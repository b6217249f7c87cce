//! `natsctl nats plan` and `apply` on five machines with a real systemd: the scripts that Systems Manager would run are run. One set of
//! machines for all of it, as they take seconds to boot; each step leaves them as planned.

#![allow(clippy::print_stderr, reason = "what is skipped is reported, and what was measured")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use natsctl::nats::locate::locate;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::fleet::{Fleet, Ran};
use super::iam::documented;
use crate::emulator::nodes::{FILES_INSIDE, impossible};
use crate::emulator::{Emulator, Fault, Foundation, Gate, Rule, Side};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is tried, and how.
type Step = (&'static str, fn(&Stage));

struct Stage {
    fleet: Fleet,
    emulator: Emulator,
    foundation: Foundation,
    files: BTreeMap<String, String>,
    /// The environment's manifest, with the release that is served.
    manifest: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = locate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        let version = server.version.to_string();
        let archive = folder.path().join("nats-server.tar.gz");
        let release = format!("nats-server-v{version}-linux-amd64");
        fs::create_dir(folder.path().join(&release)).unwrap();
        fs::copy(&server.path, folder.path().join(&release).join("nats-server")).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--create", "--gzip", "--file"]).arg(&archive).arg("--directory").arg(folder.path()).arg(&release);
        assert!(tar.status().unwrap().success());
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(fs::read(&archive).unwrap()));

        let fleet = Fleet::of(7);
        let file = fleet.manifests().join("environments/production.yaml");
        let manifest = fs::read_to_string(&file).unwrap().replace(
            "nodes: 5\n",
            &format!(
                "nodes: 5\n  version: {version}\n  mirror: {FILES_INSIDE}/nats-{{arch}}.tar.gz\n  \
                 sha256: {{ amd64: {digest}, arm64: {digest} }}\n"
            ),
        );
        fs::write(file, &manifest).unwrap();
        let foundation = Foundation { nats: ("nats.gaming-system.internal".to_owned(), 4222), ..fleet.foundation() };
        let mut emulator = Emulator::start();
        emulator.foundation(&foundation);
        let files = BTreeMap::from([("/nats-amd64.tar.gz".to_owned(), archive.display().to_string())]);
        emulator.start_machines(&foundation, &files);
        Self { fleet, emulator, foundation, files, manifest, _folder: folder }
    }

    fn natsctl(&self, arguments: &[&str]) -> Ran {
        self.fleet.natsctl(&self.emulator, arguments)
    }

    /// natsctl in the network of the nodes.
    fn inside(&self, arguments: &[&str]) -> Ran {
        let outside = self.fleet.command(&self.emulator, arguments);
        let folder = outside.get_current_dir().unwrap();
        let mut command = self.emulator.machines().inside(env!("CARGO_BIN_EXE_natsctl"), folder);
        command.args(outside.get_args()).stdin(Stdio::null());
        for (name, value) in outside.get_envs().filter(|(name, _)| *name != "AWS_ENDPOINT_URL") {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ran::of(command.env("NATSCTL_BUS", "direct").output().unwrap())
    }

    /// The environment's manifest is another one until the next call.
    fn describe(&self, change: impl FnOnce(String) -> String) {
        let file = self.fleet.manifests().join("environments/production.yaml");
        fs::write(file, change(self.manifest.clone())).unwrap();
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.fleet.manifests().join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    fn shell(&self, node: &str, script: &str) -> String {
        self.emulator.machines().shell(node, script)
    }

    fn process(&self, node: &str) -> String {
        self.shell(node, "systemctl show --property MainPID --value nats")
    }

    fn processes(&self) -> BTreeMap<String, String> {
        (1..=5).map(|number| format!("nats-{number}")).map(|node| (node.clone(), self.process(&node))).collect()
    }

    /// How many nodes the load balancer sends clients to.
    fn targets(&self) -> usize {
        let mut group = Value::Null;
        self.foundation.hand_over(&self.emulator, |handover| group = handover["nats"]["target_group"].clone());
        let arguments = ["elbv2", "describe-target-health", "--target-group-arn", group.as_str().unwrap()];
        let answer = self.emulator.aws(&arguments).expect("the aws CLI");
        answer["TargetHealthDescriptions"].as_array().unwrap().len()
    }

    fn commands(&self) -> usize {
        self.emulator.counts().get("ssm:SendCommand").copied().unwrap_or_default()
    }

    /// Everything is as planned, and apply does nothing.
    #[track_caller]
    fn is_as_planned(&self) {
        let plan = self.natsctl(&["nats", "plan"]);
        assert_eq!(plan.code, Some(0), "{plan:#?}");
    }
}

#[test]
fn five_fresh_nodes_become_a_cluster_that_stays_as_planned() {
    if let Some(reason) = impossible() {
        eprintln!("skipped: five_fresh_nodes_become_a_cluster_that_stays_as_planned: {reason}");
        return;
    }
    let started = Instant::now();
    let stage = Stage::new();
    eprintln!("machines: {:?}", started.elapsed());
    let steps: [Step; 15] = [
        ("what is not ready is named at once", what_is_not_ready_is_named_at_once),
        ("a wrong checksum is refused", a_wrong_checksum_is_refused),
        ("fresh nodes form a cluster", fresh_nodes_form_a_cluster),
        ("a second apply does nothing", a_second_apply_does_nothing),
        ("the cluster takes clients", the_cluster_takes_clients),
        ("a node reads no secret but its own", a_node_reads_no_secret_but_its_own),
        ("another account is a reload", another_account_is_a_reload),
        ("what takes a restart is left to a roll", what_takes_a_restart_is_left_to_a_roll),
        ("a roll that was interrupted goes on", a_roll_that_was_interrupted_goes_on),
        (
            "a configuration that the server refuses changes nothing",
            a_configuration_that_the_server_refuses_changes_nothing,
        ),
        ("a server that ended is started again", a_server_that_ended_is_started_again),
        ("a script that fails half way goes on", a_script_that_fails_half_way_goes_on),
        ("long output is read whole", long_output_is_read_whole),
        ("Systems Manager fails in its ways", systems_manager_fails_in_its_ways),
        ("a second operator is refused", a_second_operator_is_refused),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        let started = Instant::now();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(&stage)));
        eprintln!("{name}: {:?}", started.elapsed());
        failed.extend(done.is_err().then_some(name));
    }
    assert!(failed.is_empty(), "{failed:?}");
    eprintln!("all: {:?}", started.elapsed());
}

fn what_is_not_ready_is_named_at_once(stage: &Stage) {
    let machines = stage.emulator.machines();
    stage.emulator.stop_instance("nats-2");
    machines.agent("nats-3", "offline");
    machines.agent("nats-4", "unknown");
    stage.natsctl(&["nats", "apply"]).failed(&[
        "the NATS nodes are not ready",
        "`nats-2`: instance `i-",
        "stopped",
        "`nats-3`: the agent on instance",
        "offline (ConnectionLost)",
        "`nats-4`: the agent on instance",
        "never reached Systems Manager",
        "nothing was changed",
    ]);
    stage.emulator.start_instance("nats-2");
    machines.agent("nats-3", "online");
    machines.agent("nats-4", "online");
    assert_eq!(stage.commands(), 0, "nothing was sent");

    // A handover with fewer nodes, and with two that are one.
    let mut before = Value::Null;
    stage.foundation.hand_over(&stage.emulator, |handover| {
        before = handover["nats"]["nodes"].clone();
        let nodes = handover["nats"]["nodes"].as_object_mut().unwrap();
        nodes.remove("nats-5");
        let first = nodes["nats-1"].clone();
        nodes["nats-2"] = first;
    });
    stage.natsctl(&["nats", "plan"]).failed(&["the handover has 4 nodes", "`nats-2` and `nats-1` have one instance"]);
    stage.foundation.hand_over(&stage.emulator, |handover| {
        handover["nats"]["nodes"] = before.clone();
        handover["nats"]["nodes"]["nats-1"]["instance"] = before["nats-2"]["instance"].clone();
        handover["nats"]["nodes"]["nats-2"]["instance"] = before["nats-1"]["instance"].clone();
    });
    stage.natsctl(&["nats", "plan"]).failed(&["is node `nats-2` by its tag", "is node `nats-1` by its tag"]);
    stage.foundation.hand_over(&stage.emulator, |handover| handover["nats"]["nodes"] = before);

    // Machines that are others than they should be.
    stage.shell("nats-1", "echo 'gaming-system-development nats-1' >/var/lib/nats/natsctl-server");
    stage.shell("nats-2", "hostname nats-1");
    stage.shell("nats-3", "umount /var/lib/nats");
    stage.natsctl(&["nats", "apply"]).failed(&[
        "the data volume of `nats-1` belongs to server `nats-1` of cluster `gaming-system-development`",
        "`nats-2` is a machine that calls itself `nats-1`",
        "`nats-3` has no data volume mounted",
    ]);
    stage.shell("nats-1", "rm /var/lib/nats/natsctl-server");
    stage.shell("nats-2", "hostname nats-2");
    stage.shell(
        "nats-3",
        "/bin/mount -t tmpfs -o noexec data /var/lib/nats && install -d -o nats -g nats /var/lib/nats/jetstream",
    );
    assert_eq!(stage.shell("nats-1", "ls /opt | grep -c '^nats$' || true"), "0", "nothing was installed");
}

fn a_wrong_checksum_is_refused(stage: &Stage) {
    let (wrong, found) = ("ab".repeat(32), stage.manifest.split("amd64: ").nth(1).unwrap()[..64].to_owned());
    stage.describe(|manifest| manifest.replace(&found, &wrong));
    stage.natsctl(&["nats", "apply"]).failed(&["`nats-1`: the SHA-256 of http", &found, &wrong, "goes on from there"]);
    assert_eq!(stage.shell("nats-1", "ls /opt/nats; systemctl is-active nats || true"), "inactive");
    stage.describe(|manifest| manifest);
}

fn fresh_nodes_form_a_cluster(stage: &Stage) {
    let plan = stage.natsctl(&["nats", "plan"]);
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    assert!(plan.stdout.contains("+ nats-5: is started"), "{plan:#?}");

    stage.emulator.reset_calls();
    let started = Instant::now();
    let applied = stage.natsctl(&["nats", "apply"]).succeeded();
    eprintln!("fresh nodes to quorum: {:?}, {} calls", started.elapsed(), stage.emulator.calls().len());
    assert!(applied.stdout.contains("every node is healthy, `nats-"), "{applied:#?}");
    assert!(applied.stdout.contains("the NATS nodes are as planned"), "{applied:#?}");

    // What it called is what the policy of the group allows; nodes have a role of their own.
    let documented = documented();
    for call in stage.emulator.calls().iter().filter(|call| !call.caller.starts_with("node-")) {
        let groups = &documented[&call.name()];
        assert!(groups.contains("nats") || groups.contains("look"), "{} is for {groups:?}", call.name());
    }
    // No secret is in a command, and none in what it said.
    for call in stage.emulator.calls().iter().filter(|call| call.action == "SendCommand") {
        let sent = call.body.to_string();
        assert!(!sent.contains("PRIVATE KEY") && !sent.contains("SEED"), "{sent}");
    }
    let listed = stage.emulator.call("ssm", "ListCommands", &json!({}));
    for command in listed["Commands"].as_array().unwrap() {
        for instance in stage.emulator.machines().instances.values() {
            let wanted = json!({ "CommandId": command["CommandId"], "InstanceId": instance });
            let said = stage.emulator.try_call("ssm", "GetCommandInvocation", &wanted).unwrap_or_default().to_string();
            assert!(!said.contains("PRIVATE KEY"), "{said}");
        }
    }
    let security = stage.shell("nats-1", "systemd-analyze security nats --no-pager | tail -n 1");
    eprintln!("systemd-analyze security: {security}");
    let exposure: f64 = security.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(exposure <= 2.0, "{security}");
    let modes = stage.shell("nats-1", "stat -c '%U:%G %a' /etc/nats/tls/*/server-tls.key /etc/nats/nats.conf");
    assert_eq!(modes, "root:nats 640\nroot:nats 640");
    let routes =
        stage.shell("nats-1", "curl -s http://$(hostname -I | cut -d ' ' -f 1):8222/routez | grep -c remote_name");
    assert!(routes.parse::<usize>().unwrap() >= 4, "{routes}");
}

fn a_second_apply_does_nothing(stage: &Stage) {
    stage.is_as_planned();
    stage.emulator.reset_calls();
    let started = Instant::now();
    let again = stage.natsctl(&["nats", "apply"]).succeeded();
    eprintln!("second apply: {:?}, {:?}", started.elapsed(), stage.emulator.counts());
    assert!(again.stdout.ends_with("nothing had to be done\n"), "{again:#?}");
    let writes = stage.emulator.calls().into_iter().filter(|call| call.is_write && call.service != "ssm").count();
    assert_eq!((writes, stage.commands()), (0, 1), "one script looks, nothing is written");
}

fn the_cluster_takes_clients(stage: &Stage) {
    // Over TLS, with natsctl's own identity, through the load balancer: the streams that a deployment would make are listed as missing.
    let plan = stage.inside(&["plan", "--proof", "bus"]);
    assert_eq!(plan.code, Some(2), "{plan:#?}");
    assert!(plan.stdout.contains("stream"), "{plan:#?}");
    let verified = stage.inside(&["verify"]);
    assert!(verified.stdout.contains("TLS required"), "{verified:#?}");
}

fn a_node_reads_no_secret_but_its_own(stage: &Stage) {
    let read = |name: &str| {
        let aws = "AWS_ENDPOINT_URL=http://10.0.0.2:80 AWS_ACCESS_KEY_ID=node-nats-1 /opt/lab/bin/aws";
        let secret = format!("--secret-id gaming-system/production/nats/{name} --query SecretString --output text");
        let call = format!("{aws} secretsmanager get-secret-value --region us-east-1 {secret}");
        stage.shell("nats-1", &format!("env {call} 2>&1 || true"))
    };
    assert!(read("nats-1").contains("PRIVATE KEY"));
    assert!(read("nats-2").contains("AccessDenied"));
}

fn another_account_is_a_reload(stage: &Stage) {
    let before = stage.process("nats-3");
    let secret = json!({ "Name": "gaming-system/production/nats/weather" });
    stage.emulator.call("secretsmanager", "CreateSecret", &secret);
    stage.fleet.manifest("weather", &format!("build: {{ image: \"{}\" }}\n", Fleet::image("weather", 1)));
    let planned = stage.natsctl(&["nats", "plan"]);
    assert_eq!(planned.code, Some(2), "{planned:#?}");
    assert!(planned.stdout.contains("~ nats-3: is reloaded") && planned.stdout.contains("+weather"), "{planned:#?}");
    let told = stage.natsctl(&["deploy", "--all", "--dry-run", "--proof", "ecs"]);
    assert!(told.stderr.contains("the NATS nodes are not as the manifests describe them"), "{told:#?}");

    stage.edit("fleet.yaml", "max_payload: 1 MiB", "max_payload: 2 MiB");
    let shown = stage.natsctl(&["deploy", "--all", "--with-nats", "--dry-run", "--proof", "ecs"]);
    assert!(shown.stderr.contains("max_payload: 2097152"), "{shown:#?}");
    let deployed = stage.natsctl(&["deploy", "--all", "--with-nats", "--proof", "ecs"]).succeeded();
    assert!(deployed.stderr.contains("nats-3: reloaded") && deployed.stdout.contains("weather"), "{deployed:#?}");
    assert!(!deployed.stderr.contains("not as the manifests describe"), "{deployed:#?}");
    assert_eq!(stage.process("nats-3"), before, "no server was restarted");
    stage.is_as_planned();
}

fn what_takes_a_restart_is_left_to_a_roll(stage: &Stage) {
    let before = stage.process("nats-1");
    stage.edit("fleet.yaml", "max_file_store: 100 GiB", "max_file_store: 50 GiB");
    let applied = stage.natsctl(&["nats", "apply"]);
    assert_eq!(applied.code, Some(2), "{applied:#?}");
    assert!(applied.stdout.contains("> nats-1: needs a roll"), "{applied:#?}");
    assert!(applied.stdout.contains("takes a restart: jetstream.max_file_store"), "{applied:#?}");
    assert_eq!(stage.process("nats-1"), before);
    stage.natsctl(&["deploy", "--all", "--with-nats", "--proof", "ecs"]).failed(&["until they are restarted"]);

    // One server after the other, without the load balancer's clients.
    let planned = stage.natsctl(&["nats", "roll", "--config", "--dry-run"]);
    assert_eq!(planned.code, Some(2), "{planned:#?}");
    assert!(planned.stdout.contains("5 nodes to roll, one after the other"), "{planned:#?}");
    let rolled = stage.natsctl(&["nats", "roll", "--config"]).succeeded();
    assert!(rolled.stdout.contains("rolled 5 nodes"), "{rolled:#?}");
    assert_ne!(stage.process("nats-1"), before);
    stage.is_as_planned();
    assert_eq!(stage.targets(), 5, "all of them are in the load balancer");
    assert_eq!(stage.shell("nats-3", "grep -c 'max_file_store: 53687091200' /etc/nats/nats.conf"), "1");
}

fn a_roll_that_was_interrupted_goes_on(stage: &Stage) {
    stage.natsctl(&["nats", "roll", "--certificates"]).failed(&["on AWS a roll makes no certificates"]);
    stage.natsctl(&["nats", "roll", "--version", "2.99.0"]).failed(&["asks for nats-server", "not 2.99.0"]);
    stage.natsctl(&["nats", "check"]).succeeded();
    let before = stage.processes();
    let mut command = stage.fleet.command(&stage.emulator, &["nats", "roll", "--restart"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.by_ref().map(Result::unwrap).find(|line| line.contains(": leaves")).expect("a server is taken");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let rolled = stage.natsctl(&["nats", "roll", "--resume"]).succeeded();
    assert!(rolled.stdout.contains("rolled "), "{rolled:#?}");
    for (node, process) in &before {
        assert_ne!(&stage.process(node), process, "`{node}` was restarted: {rolled:#?}");
    }
    assert_eq!(stage.targets(), 5);
    // A node whose agent is silent cannot be judged, so nothing is restarted.
    let before = stage.processes();
    stage.emulator.machines().agent("nats-4", "offline");
    stage.natsctl(&["nats", "roll", "--restart", "--timeout", "1s"]).failed(&["nats-4"]);
    stage.emulator.machines().agent("nats-4", "online");
    assert_eq!(stage.processes(), before);
    stage.natsctl(&["nats", "lame-duck", "nats-2"]).succeeded();
    let after = stage.processes();
    let restarted: Vec<&String> = before.keys().filter(|node| before[*node] != after[*node]).collect();
    assert_eq!(restarted, ["nats-2"]);
}

fn a_configuration_that_the_server_refuses_changes_nothing(stage: &Stage) {
    let key = "/etc/nats/tls/*/server-tls.key";
    stage.shell("nats-1", &format!("cp {key} /root/kept && echo damaged >{key}"));
    let before = stage.shell("nats-1", "sha256sum /etc/nats/nats.conf");
    stage.edit("fleet.yaml", "max_payload: 2 MiB", "max_payload: 3 MiB");
    stage.natsctl(&["nats", "apply"]).failed(&["`nats-1`: nats-server refuses the configuration", "PEM"]);
    assert_eq!(stage.shell("nats-1", "sha256sum /etc/nats/nats.conf"), before);
    assert_eq!(stage.shell("nats-2", "grep -c 3145728 /etc/nats/nats.conf || true"), "0", "it stopped at the first");
    stage.edit("fleet.yaml", "max_payload: 3 MiB", "max_payload: 2 MiB");
    stage.shell("nats-1", &format!("cat /root/kept >{key}"));
    stage.is_as_planned();
}

fn a_server_that_ended_is_started_again(stage: &Stage) {
    // By systemd, if it was killed.
    let before = stage.process("nats-2");
    stage.shell("nats-2", "kill -KILL $(systemctl show --property MainPID --value nats)");
    let deadline = Instant::now() + PATIENCE;
    while ["0", &before].contains(&stage.process("nats-2").as_str()) {
        assert!(Instant::now() < deadline, "systemd does not start it again");
    }
    // By apply, if it was stopped.
    stage.shell("nats-2", "systemctl stop nats");
    let planned = stage.natsctl(&["nats", "plan"]);
    assert!(planned.stdout.contains("+ nats-2: is started"), "{planned:#?}");
    let applied = stage.natsctl(&["nats", "apply"]).succeeded();
    assert!(applied.stdout.contains("nats-2: started nats-server"), "{applied:#?}");
}

fn a_script_that_fails_half_way_goes_on(stage: &Stage) {
    stage.emulator.machines().serve(&BTreeMap::new());
    stage.shell("nats-4", "systemctl stop nats; rm -r /opt/nats");
    stage.natsctl(&["nats", "apply"]).failed(&["`nats-4`: http", "cannot be downloaded"]);
    stage.emulator.machines().serve(&stage.files);
    let applied = stage.natsctl(&["nats", "apply"]).succeeded();
    assert!(applied.stdout.contains("nats-4: installed nats-server"), "{applied:#?}");
    let history = stage.natsctl(&["history"]).succeeded().stdout;
    assert!(history.contains("`nats-4`: http") && history.contains("natsctl --env production nats apply"), "{history}");
}

fn long_output_is_read_whole(stage: &Stage) {
    stage.shell(
        "nats-5",
        "cp /etc/nats/nats.conf /root/kept; seq -f '# line %g of many that nobody needs' 2000 >>/etc/nats/nats.conf",
    );
    let planned = stage.natsctl(&["nats", "plan", "--output", "json"]);
    let nodes = planned.json()["nodes"].as_array().unwrap().clone();
    let lines = nodes[4]["changes"][0]["diff"].as_array().unwrap().len();
    assert_eq!(lines, 2000, "{}", planned.stdout);
    stage.shell("nats-5", "cat /root/kept >/etc/nats/nats.conf");
    stage.is_as_planned();
}

fn systems_manager_fails_in_its_ways(stage: &Stage) {
    let machines = stage.emulator.machines();
    stage.emulator.inject(Rule::every("ssm:*", Fault::Throttle).at_most(3));
    stage.is_as_planned();
    stage.emulator.heal();
    stage.emulator.inject(Rule::nth_of(1, "ssm:SendCommand", Fault::LostAnswer));
    stage.is_as_planned();
    stage.emulator.heal();
    stage.emulator.inject(Rule::every("ssm:SendCommand", Fault::Deny));
    stage.natsctl(&["nats", "plan"]).failed(&["AccessDenied", "docs/iam.md"]);
    stage.emulator.heal();

    machines.agent("nats-2", "silent");
    stage.natsctl(&["nats", "plan"]).failed(&["`nats-2` did not take the command within 60 s"]);
    machines.agent("nats-2", "slow");
    stage.natsctl(&["nats", "plan"]).failed(&["`nats-2`: the script did not end in time"]);
    machines.agent("nats-2", "waiting");
    std::thread::scope(|scope| {
        let planning = scope.spawn(|| stage.natsctl(&["nats", "plan"]));
        stage.emulator.reset_calls();
        let deadline = Instant::now() + PATIENCE;
        while !stage.emulator.counts().contains_key("ssm:ListCommandInvocations") {
            assert!(Instant::now() < deadline, "no command is followed");
            std::thread::yield_now();
        }
        let newest = stage.emulator.call("ssm", "ListCommands", &json!({}))["Commands"][0]["CommandId"].clone();
        stage.emulator.call("ssm", "CancelCommand", &json!({ "CommandId": newest }));
        planning.join().unwrap().failed(&["`nats-2`: another user has cancelled the command"]);
    });
    ctrl_c_cancels_what_runs_on_the_nodes(stage);
    machines.agent("nats-2", "online");
}

fn ctrl_c_cancels_what_runs_on_the_nodes(stage: &Stage) {
    stage.emulator.reset_calls();
    let child = stage.fleet.command(&stage.emulator, &["nats", "plan"]).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !stage.emulator.counts().contains_key("ssm:ListCommandInvocations") {
        assert!(Instant::now() < deadline, "no command is followed");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert_eq!(stage.emulator.counts()["ssm:CancelCommand"], 1, "{ran:#?}");
}

fn a_second_operator_is_refused(stage: &Stage) {
    stage.shell("nats-3", "systemctl stop nats");
    let gate = Gate::new();
    // The first script looks, without the lock; the second one looks again, with it.
    stage.emulator.inject(Rule::nth_of(2, "ssm:SendCommand", Fault::Gate(gate.clone(), Side::Before)));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| stage.natsctl(&["nats", "apply"]));
        gate.reached(PATIENCE).expect("the first operator holds the lock");
        stage.natsctl(&["nats", "apply", "--no-wait-lock"]).failed(&["natsctl", "nats apply"]);
        gate.release();
        first.join().unwrap().succeeded();
    });
    stage.emulator.heal();
    stage.is_as_planned();
}
