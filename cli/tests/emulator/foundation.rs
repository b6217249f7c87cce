//! What Terraform would have made, by plain API calls, in well under a second.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::http::{Request, send};
use super::{ACCOUNT, Emulator, REGION, authorization};

/// A service, as far as Terraform is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// The manifest's name.
    pub(crate) name: String,
    /// Its name on ECS.
    pub(crate) ecs_name: String,
    /// Names of secrets.
    pub(crate) secrets: Vec<String>,
}

/// What is to be there.
#[derive(Clone, Debug)]
pub(crate) struct Foundation {
    pub(crate) project: String,
    pub(crate) environment: String,
    pub(crate) services: Vec<Service>,
    /// Host and port of NATS, for the handover.
    pub(crate) nats: (String, u16),
    pub(crate) redis: bool,
    pub(crate) gateway: bool,
    /// Whether it has its families of task definitions for itself, as it has with the modules since they have a template for them.
    pub(crate) own_families: bool,
}

impl Foundation {
    /// For services of these names, in `production`; the one called `gateway` is the gateway.
    pub(crate) fn of(names: &[&str]) -> Self {
        let service = |name: &&str| {
            let ecs_name = if *name == "gateway" { "http-nats-gateway".to_owned() } else { format!("{name}-nats") };
            Service { name: (*name).to_owned(), ecs_name, secrets: Vec::new() }
        };
        Self {
            project: "gaming-system".to_owned(),
            environment: "production".to_owned(),
            services: names.iter().map(service).collect(),
            nats: ("nats.gaming-system.internal".to_owned(), 4222),
            redis: true,
            gateway: names.contains(&"gateway"),
            own_families: true,
        }
    }

    /// For the services whose manifests are in a folder.
    pub(crate) fn of_manifests(folder: &Path) -> Self {
        let mut foundation = Self::of(&[]);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let manifest: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let name = manifest["name"].as_str().unwrap().to_owned();
            let ecs_name = manifest["ecs_name"].as_str().map_or_else(|| format!("{name}-nats"), str::to_owned);
            let secrets = manifest["secrets"].as_object().into_iter().flatten();
            let named = |reference: &Value| reference.as_str().or(reference["secret"].as_str()).map(str::to_owned);
            let secrets = secrets.filter_map(|(_, reference)| named(reference));
            let secrets = secrets.filter(|name| !name.starts_with("arn:")).collect();
            foundation.gateway |= manifest["role"] == "gateway";
            foundation.services.push(Service { name, ecs_name, secrets });
        }
        foundation.services.sort_by(|one, other| one.name.cmp(&other.name));
        foundation
    }

    /// Where the handover is.
    pub(crate) fn parameter(&self) -> String {
        format!("/{}/{}/natsctl", self.project, self.environment)
    }

    pub(crate) fn repositories(&self) -> BTreeSet<String> {
        let names = self.services.iter().map(|service| service.ecs_name.as_str()).chain(["natsctl"]);
        names.map(|name| format!("{}/{name}", self.suffixed("bodybroker-services"))).collect()
    }

    /// `<what>` in production, `<what>-<environment>` elsewhere.
    fn suffixed(&self, what: &str) -> String {
        match self.environment.as_str() {
            "production" => what.to_owned(),
            other => format!("{what}-{other}"),
        }
    }

    /// The name of the ECS cluster.
    pub(crate) fn cluster(&self) -> String {
        self.suffixed(&format!("{}-cluster", self.project))
    }

    fn prefix(&self) -> String {
        format!("{}-{}", self.project, self.environment)
    }

    fn secrets(&self) -> String {
        format!("{}/{}", self.project, self.environment)
    }

    pub(crate) fn build(&self, emulator: &Emulator) {
        let (network, alerts, groups) = (Mutex::default(), Mutex::default(), Mutex::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let made = self.network(emulator);
                let vpc = made["vpc"].as_str().unwrap();
                *groups.lock().unwrap() = ["nats", "gateway"].map(|name| self.target_group(emulator, name, vpc));
                *network.lock().unwrap() = made;
                let topic = self.suffixed(&format!("{}-alerts", self.project));
                let answer = form(emulator, "sns", &[("Action", "CreateTopic"), ("Name", &topic)]);
                *alerts.lock().unwrap() = element(&answer, "TopicArn");
            });
            scope.spawn(|| self.roles(emulator));
            scope.spawn(|| self.containers(emulator));
            scope.spawn(|| self.values(emulator));
        });
        let groups: [String; 2] = groups.into_inner().unwrap();
        let handover = self.handover(&network.into_inner().unwrap(), &alerts.into_inner().unwrap(), &groups);
        let parameter =
            json!({ "Name": self.parameter(), "Value": handover.to_string(), "Type": "String", "Overwrite": true });
        emulator.call("ssm", "PutParameter", &parameter);
    }

    fn network(&self, emulator: &Emulator) -> Value {
        let ec2 = |pairs: &[(&str, &str)]| form(emulator, "ec2", pairs);
        let vpc = element(&ec2(&[("Action", "CreateVpc"), ("CidrBlock", "10.0.0.0/16")]), "vpcId");
        let subnets: Vec<_> = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(index, zone)| {
                let (zone, cidr) = (format!("{REGION}{zone}"), format!("10.0.{}.0/24", index + 1));
                let answer = ec2(&[
                    ("Action", "CreateSubnet"),
                    ("VpcId", &vpc),
                    ("AvailabilityZone", &zone),
                    ("CidrBlock", &cidr),
                ]);
                element(&answer, "subnetId")
            })
            .collect();
        let name = format!("{}-tasks", self.prefix());
        let group = ec2(&[
            ("Action", "CreateSecurityGroup"),
            ("VpcId", &vpc),
            ("GroupName", &name),
            ("GroupDescription", "tasks"),
        ]);
        json!({ "vpc": vpc, "subnets": subnets, "security_groups": [element(&group, "groupId")] })
    }

    fn target_group(&self, emulator: &Emulator, name: &str, vpc: &str) -> String {
        let name = format!("{}-{name}", self.environment);
        let pairs = [
            ("Action", "CreateTargetGroup"),
            ("Name", name.as_str()),
            ("Protocol", "TCP"),
            ("Port", "4222"),
            ("VpcId", vpc),
            ("TargetType", "ip"),
        ];
        element(&form(emulator, "elasticloadbalancing", &pairs), "TargetGroupArn")
    }

    fn roles(&self, emulator: &Emulator) {
        let trust = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "Service": "ecs-tasks.amazonaws.com" }
        }] })
        .to_string();
        let iam = |pairs: &[(&str, &str)]| form(emulator, "iam", pairs);
        let execution = format!("{}-execution", self.prefix());
        iam(&[("Action", "CreateRole"), ("RoleName", &execution), ("AssumeRolePolicyDocument", &trust)]);
        let policy = self.execution_policy().to_string();
        iam(&[
            ("Action", "PutRolePolicy"),
            ("RoleName", &execution),
            ("PolicyName", "execution"),
            ("PolicyDocument", &policy),
        ]);
        for service in &self.services {
            let role = format!("{}-{}", self.prefix(), service.name);
            iam(&[("Action", "CreateRole"), ("RoleName", &role), ("AssumeRolePolicyDocument", &trust)]);
        }
    }

    fn execution_policy(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*" },
            {
                "Effect": "Allow",
                "Action": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                "Resource": format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/bodybroker-services/*"),
            },
            {
                "Effect": "Allow",
                "Action": ["secretsmanager:GetSecretValue"],
                "Resource": format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{}/*", self.secrets()),
            },
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{}:*", self.log_group()),
            },
        ] })
    }

    /// The log group of all services.
    pub(crate) fn log_group(&self) -> String {
        self.suffixed(&format!("/ecs/{}-nats", self.project))
    }

    /// The table in which natsctl keeps its lock and its records.
    pub(crate) fn ledger(&self) -> String {
        format!("{}-natsctl", self.prefix())
    }

    fn containers(&self, emulator: &Emulator) {
        emulator.call(
            "ecs",
            "CreateCluster",
            &json!({
                "clusterName": self.cluster(),
                "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
                "settings": [{ "name": "containerInsights", "value": "enabled" }],
            }),
        );
        emulator.call("logs", "CreateLogGroup", &json!({ "logGroupName": self.log_group() }));
        for repository in self.repositories() {
            let body = json!({ "repositoryName": repository, "imageTagMutability": "IMMUTABLE" });
            emulator.call("ecr", "CreateRepository", &body);
        }
    }

    fn values(&self, emulator: &Emulator) {
        emulator.call("dynamodb", "CreateTable", &json!({
            "TableName": self.ledger(),
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                { "AttributeName": "pk", "AttributeType": "S" }, { "AttributeName": "sk", "AttributeType": "S" },
            ],
            "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }, { "AttributeName": "sk", "KeyType": "RANGE" }],
        }));
        let identity = json!({ "urls": format!("tls://{}:{}", self.nats.0, self.nats.1), "ca": "ca", "cert": "cert", "key": "key", "creds": "creds" });
        let nats = self.services.iter().map(|service| format!("nats/{}", service.name));
        for name in nats.chain(["nats/operator".to_owned()]) {
            self.secret(emulator, &name, &identity.to_string());
        }
        self.secret(emulator, "redis/auth", &json!({ "username": "services", "password": "password" }).to_string());
        let nodes = (1..=5).map(|number| format!("nats/nats-{number}"));
        for name in ["nats/authority", "nats/errand"].map(str::to_owned).into_iter().chain(nodes) {
            emulator.call("secretsmanager", "CreateSecret", &json!({ "Name": format!("{}/{name}", self.secrets()) }));
        }
        let own: BTreeSet<_> = self.services.iter().flat_map(|service| &service.secrets).collect();
        for name in own {
            self.secret(emulator, name, "a secret");
        }
    }

    fn secret(&self, emulator: &Emulator, name: &str, value: &str) {
        let body = json!({
            "Name": format!("{}/{name}", self.secrets()), "SecretString": value, "ClientRequestToken": "0".repeat(32),
        });
        emulator.call("secretsmanager", "CreateSecret", &body);
    }

    /// Another handover takes the place of that which is there.
    pub(crate) fn hand_over(&self, emulator: &Emulator, change: impl FnOnce(&mut Value)) {
        let found = emulator.call("ssm", "GetParameter", &json!({ "Name": self.parameter() }));
        let mut handover = serde_json::from_str(found["Parameter"]["Value"].as_str().unwrap()).unwrap();
        change(&mut handover);
        let parameter =
            json!({ "Name": self.parameter(), "Value": handover.to_string(), "Type": "String", "Overwrite": true });
        emulator.call("ssm", "PutParameter", &parameter);
    }

    fn handover(&self, network: &Value, alerts: &str, groups: &[String; 2]) -> Value {
        let nodes: serde_json::Map<_, _> = (1..=5)
            .map(|number| {
                let zone = format!("{REGION}{}", ["a", "b", "c"][(number - 1) % 3]);
                let node = json!({ "instance": format!("i-{number:017}"), "address": format!("10.0.{number}.10"), "zone": zone });
                (format!("nats-{number}"), node)
            })
            .collect();
        let mut handover = json!({
            "version": 1,
            "project": self.project,
            "environment": self.environment,
            "account": ACCOUNT,
            "region": REGION,
            "cluster": self.cluster(),
            "network": network,
            "execution_role": format!("arn:aws:iam::{ACCOUNT}:role/{}-execution", self.prefix()),
            "log_group": self.log_group(),
            "ledger": self.ledger(),
            "alerts_topic": alerts,
            "registry": format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"),
            "names": {
                "repository": format!("{}/{{ecs_name}}", self.suffixed("bodybroker-services")),
                "task_role": format!("arn:aws:iam::{ACCOUNT}:role/{}-{{service}}", self.prefix()),
                "secret": format!("{}/{{name}}", self.secrets()),
                "nats_secret": format!("{}/nats/{{service}}", self.secrets()),
                "alarm": format!("{}-{{service}}-{{kind}}", self.prefix()),
            },
            "nats": {
                "host": self.nats.0,
                "port": self.nats.1,
                "nodes": nodes,
                "target_group": groups[0],
                "operator_secret": format!("{}/nats/operator", self.secrets()),
            },
        });
        if self.own_families {
            handover["names"]["task_family"] = self.suffixed("{ecs_name}").into();
        }
        if self.redis {
            let auth = format!("{}/redis/auth", self.secrets());
            handover["redis"] = json!({ "host": "redis.gaming-system.internal", "port": 6379, "auth_secret": auth });
        }
        if self.gateway {
            handover["gateway"] = json!({ "target_group": groups[1], "url": "https://api.gaming-system.example" });
        }
        handover
    }
}

/// A call to a service that speaks forms; its XML.
pub(crate) fn form(emulator: &Emulator, service: &str, pairs: &[(&str, &str)]) -> String {
    let version = match service {
        "ec2" => "2016-11-15",
        "elasticloadbalancing" => "2015-12-01",
        "iam" => "2010-05-08",
        "monitoring" => "2010-08-01",
        _ => "2010-03-31",
    };
    let pairs = [pairs, &[("Version", version)]].concat();
    let body: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let request = Request {
        method: "POST".to_owned(),
        target: "/".to_owned(),
        headers: vec![
            ("Authorization".to_owned(), authorization(service)),
            ("Content-Type".to_owned(), "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
        ],
        body: body.join("&").into_bytes(),
    };
    let response = send(emulator.shared.upstream(service), &request).unwrap();
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert!(response.status < 300, "{service} {pairs:?}: {text}");
    text
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The text of the first element of this name.
pub(crate) fn element(xml: &str, name: &str) -> String {
    let text = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<')).map(|(text, _)| text);
    text.unwrap_or_else(|| panic!("no <{name}> in {xml}")).to_owned()
}
