//! Every call of AWS that natsctl makes: on what, whether it changes anything, and which commands need it. `docs/iam.md` is made of
//! this table, `natsctl verify` asks by it what the caller may do, and a test finds calls that are not in it.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::handover::Handover;

/// A call, and who needs the right to make it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// As policies call the service: `ecs`.
    pub(crate) service: &'static str,
    /// As policies call the action: `UpdateService`.
    pub(crate) action: &'static str,
    pub(crate) access: Access,
    pub(crate) on: On,
    pub(crate) condition: Condition,
    pub(crate) groups: &'static [Group],
    /// Why the right is needed although natsctl makes no such call itself.
    pub(crate) implied: Option<&'static str>,
}

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It does not.
    Read,
    /// It may.
    Write,
}

/// Commands that need the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Group {
    /// What changes nothing. Every other group needs it too.
    Look,
    /// `natsctl verify`.
    Verify,
    /// Pushing images.
    Build,
    /// Changing services.
    Deploy,
    /// Tasks and sessions by hand.
    Operate,
    /// Identities on NATS.
    Identities,
    /// NATS on its nodes.
    Nats,
}

/// What a call acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// AWS knows no narrower right for this action.
    Anything,
    AnySecret,
    Cluster,
    ExecutedCommands,
    Handover,
    Keys,
    Ledger,
    LinkedRoles,
    LogGroup,
    LogGroups,
    NatsSecrets,
    NatsTargets,
    OperatorSecret,
    Repositories,
    Roles,
    ScalableTargets,
    Scripts,
    ServiceDeployments,
    Services,
    Sessions,
    TaskDefinitions,
    Tasks,
    Topics,
    Tunnels,
}

/// What the resources of an environment follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) handover: &'a Handover,
    /// ARNs of roles that manifests name.
    pub(crate) roles: &'a BTreeSet<String>,
}

/// When a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Always.
    None,
    /// In our cluster alone.
    InCluster,
    /// For a new service, task or task definition.
    OnCreation,
    /// Handed to ECS tasks alone.
    ToTasks,
    /// Through Secrets Manager alone.
    ThroughSecrets,
}

/// The service that runs tasks, as roles know it.
pub(crate) const TASKS: &str = "ecs-tasks.amazonaws.com";

use Group::{Build, Deploy, Identities, Look, Nats, Operate, Verify};

/// All of them. Sorted by service, reads first.
pub(crate) const CALLS: &[Call] = &[
    read("application-autoscaling", "DescribeScalableTargets", On::Anything, &[Look]),
    read("application-autoscaling", "DescribeScalingPolicies", On::Anything, &[Look]),
    read("application-autoscaling", "DescribeScheduledActions", On::Anything, &[Look]),
    write("application-autoscaling", "RegisterScalableTarget", On::ScalableTargets, &[Deploy]),
    write("application-autoscaling", "DeregisterScalableTarget", On::ScalableTargets, &[Deploy]),
    write("application-autoscaling", "PutScalingPolicy", On::ScalableTargets, &[Deploy]),
    write("application-autoscaling", "DeleteScalingPolicy", On::ScalableTargets, &[Deploy]),
    read("cloudtrail", "LookupEvents", On::Anything, &[Look]),
    read("cloudwatch", "DescribeAlarms", On::Anything, &[Look]),
    read("dynamodb", "GetItem", On::Ledger, &[Look]),
    read("dynamodb", "Query", On::Ledger, &[Look]),
    read("dynamodb", "DescribeTable", On::Ledger, &[Verify]),
    write("dynamodb", "PutItem", On::Ledger, &[Deploy, Identities, Nats]),
    write("dynamodb", "UpdateItem", On::Ledger, &[Deploy, Identities, Nats]),
    write("dynamodb", "DeleteItem", On::Ledger, &[Deploy, Identities, Nats]),
    read("ec2", "DescribeInstances", On::Anything, &[Nats]),
    read("ec2", "DescribeSecurityGroups", On::Anything, &[Verify]),
    read("ec2", "DescribeSubnets", On::Anything, &[Verify]),
    read("ecr", "GetAuthorizationToken", On::Anything, &[Look]),
    read("ecr", "BatchGetImage", On::Repositories, &[Look]).implied("the registry asks for it to show a manifest"),
    read("ecr", "DescribeRepositories", On::Repositories, &[Verify]),
    read("ecr", "BatchCheckLayerAvailability", On::Repositories, &[Build])
        .implied("the registry asks for it to find a layer"),
    read("ecr", "GetDownloadUrlForLayer", On::Repositories, &[Build])
        .implied("the registry asks for it to mount a layer"),
    write("ecr", "InitiateLayerUpload", On::Repositories, &[Build]).implied("the registry asks for it to take a layer"),
    write("ecr", "UploadLayerPart", On::Repositories, &[Build]).implied("the registry asks for it to take a layer"),
    write("ecr", "CompleteLayerUpload", On::Repositories, &[Build]).implied("the registry asks for it to take a layer"),
    write("ecr", "PutImage", On::Repositories, &[Build]).implied("the registry asks for it to take a manifest"),
    read("ecs", "DescribeClusters", On::Cluster, &[Verify]),
    read("ecs", "DescribeServiceDeployments", On::ServiceDeployments, &[Look]).when(Condition::InCluster),
    read("ecs", "DescribeServices", On::Services, &[Look]).when(Condition::InCluster),
    read("ecs", "DescribeTaskDefinition", On::Anything, &[Look]),
    read("ecs", "DescribeTasks", On::Tasks, &[Look]).when(Condition::InCluster),
    read("ecs", "ListServices", On::Anything, &[Look]).when(Condition::InCluster),
    read("ecs", "ListTaskDefinitionFamilies", On::Anything, &[Look]),
    read("ecs", "ListTaskDefinitions", On::Anything, &[Look]),
    read("ecs", "ListTasks", On::Anything, &[Look]).when(Condition::InCluster),
    write("ecs", "CreateService", On::Services, &[Deploy]).when(Condition::InCluster),
    write("ecs", "UpdateService", On::Services, &[Deploy]).when(Condition::InCluster),
    write("ecs", "DeleteService", On::Services, &[Deploy]).when(Condition::InCluster),
    write("ecs", "StopServiceDeployment", On::ServiceDeployments, &[Deploy]).when(Condition::InCluster),
    write("ecs", "RegisterTaskDefinition", On::Anything, &[Deploy]),
    write("ecs", "DeregisterTaskDefinition", On::Anything, &[Deploy]),
    write("ecs", "TagResource", On::Anything, &[Deploy, Operate])
        .when(Condition::OnCreation)
        .implied("ECS asks for it when something is made with tags"),
    write("ecs", "RunTask", On::TaskDefinitions, &[Deploy, Operate]).when(Condition::InCluster),
    write("ecs", "StopTask", On::Tasks, &[Deploy, Operate]).when(Condition::InCluster),
    write("ecs", "ExecuteCommand", On::ExecutedCommands, &[Operate]),
    read("elasticloadbalancing", "DescribeTargetHealth", On::Anything, &[Nats]),
    write("elasticloadbalancing", "DeregisterTargets", On::NatsTargets, &[Nats]),
    write("elasticloadbalancing", "RegisterTargets", On::NatsTargets, &[Nats]),
    read("iam", "GetRole", On::Roles, &[Verify]),
    read("iam", "SimulatePrincipalPolicy", On::Anything, &[Verify]),
    write("iam", "PassRole", On::Roles, &[Deploy, Operate])
        .when(Condition::ToTasks)
        .implied("ECS asks for it when a task definition names roles"),
    write("iam", "CreateServiceLinkedRole", On::LinkedRoles, &[Deploy]).implied(
        "ECS asks for it with the first service of an account, Application Auto Scaling with the first target",
    ),
    read("kms", "Decrypt", On::Keys, &[Verify, Deploy, Operate, Identities, Nats])
        .when(Condition::ThroughSecrets)
        .implied("Secrets Manager asks for it if secrets have a key of their own"),
    write("kms", "GenerateDataKey", On::Keys, &[Identities, Nats])
        .when(Condition::ThroughSecrets)
        .implied("Secrets Manager asks for it if secrets have a key of their own"),
    read("logs", "FilterLogEvents", On::LogGroup, &[Look]),
    read("logs", "GetLogEvents", On::LogGroup, &[Look]),
    read("logs", "DescribeLogGroups", On::LogGroups, &[Verify]),
    read("secretsmanager", "ListSecrets", On::Anything, &[Look]),
    read("secretsmanager", "DescribeSecret", On::AnySecret, &[Verify]),
    read("secretsmanager", "BatchGetSecretValue", On::Anything, &[Verify, Identities, Nats]),
    read("secretsmanager", "GetSecretValue", On::NatsSecrets, &[Verify, Identities, Nats]),
    read("secretsmanager", "GetSecretValue", On::OperatorSecret, &[Deploy, Operate]),
    write("secretsmanager", "PutSecretValue", On::NatsSecrets, &[Identities, Nats]),
    read("ssm", "DescribeParameters", On::Anything, &[Verify]),
    write("sns", "Publish", On::Topics, &[Deploy]),
    read("ssm", "DescribeInstanceInformation", On::Anything, &[Nats]),
    read("ssm", "GetCommandInvocation", On::Anything, &[Nats]),
    read("ssm", "GetParameter", On::Handover, &[Look]),
    read("ssm", "ListCommandInvocations", On::Anything, &[Nats]),
    write("ssm", "CancelCommand", On::Anything, &[Nats]),
    write("ssm", "SendCommand", On::Scripts, &[Nats]),
    write("ssm", "StartSession", On::Tunnels, &[Deploy, Operate]),
    write("ssm", "TerminateSession", On::Sessions, &[Deploy, Operate]),
    read("sts", "GetCallerIdentity", On::Anything, &[Look]),
];

const fn read(service: &'static str, action: &'static str, on: On, groups: &'static [Group]) -> Call {
    Call { service, action, access: Access::Read, on, condition: Condition::None, groups, implied: None }
}

const fn write(service: &'static str, action: &'static str, on: On, groups: &'static [Group]) -> Call {
    Call { access: Access::Write, ..read(service, action, on, groups) }
}

impl Call {
    const fn when(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    const fn implied(self, why: &'static str) -> Self {
        Self { implied: Some(why), ..self }
    }

    /// As policies say it: `ecs:UpdateService`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }
}

/// A right in words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Right {
    pub(crate) call: String,
    pub(crate) resources: Vec<String>,
    pub(crate) changes: bool,
    /// Groups of commands that need it.
    pub(crate) groups: Vec<String>,
    /// Why it is needed although natsctl makes no such call itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) implied: Option<&'static str>,
}

/// All rights, in an environment.
pub(crate) fn rights(scope: Scope<'_>) -> Vec<Right> {
    let right = |call: &Call| Right {
        call: call.name(),
        resources: call.on.arns(scope),
        changes: call.access == Access::Write,
        groups: call.groups.iter().map(|group| group.name()).collect(),
        implied: call.implied,
    };
    CALLS.iter().map(right).collect()
}

impl Group {
    /// As it is typed.
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The calls that its commands make besides those of `Look`.
    pub(crate) fn calls(self) -> impl Iterator<Item = &'static Call> {
        CALLS.iter().filter(move |call| call.groups.contains(&self))
    }

    /// The policy that allows its commands and no more; with that of `Look`, which all need.
    pub(crate) fn policy(self, scope: Scope<'_>) -> Value {
        let mut statements: Vec<(On, Condition, Vec<String>)> = Vec::new();
        for call in self.calls() {
            match statements.iter_mut().find(|(on, condition, _)| (*on, *condition) == (call.on, call.condition)) {
                Some((_, _, actions)) => actions.push(call.name()),
                None => statements.push((call.on, call.condition, vec![call.name()])),
            }
        }
        let statements = statements.into_iter().map(|(on, condition, actions)| {
            let mut statement = json!({ "Effect": "Allow", "Action": actions, "Resource": on.arns(scope) });
            if let Some(condition) = condition.json(scope.handover) {
                statement["Condition"] = condition;
            }
            statement
        });
        json!({ "Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>() })
    }
}

impl On {
    /// ARNs, with `*` for what differs from service to service.
    pub(crate) fn arns(self, Scope { handover, roles }: Scope<'_>) -> Vec<String> {
        let Handover { account, region, cluster, .. } = handover;
        let arn =
            |service: &str, rest: String| format!("arn:{}:{service}:{region}:{account}:{rest}", handover.partition());
        let ecs = |kind: &str| arn("ecs", format!("{kind}/{cluster}/*"));
        // Secrets Manager adds a dash and six letters to a secret's name.
        let secret = |name: &str| arn("secretsmanager", format!("secret:{}-*", any(name)));
        let group = arn("logs", format!("log-group:{}", handover.log_group));
        let names = &handover.names;
        match self {
            Self::Anything => vec!["*".to_owned()],
            Self::AnySecret => vec![format!("arn:{}:secretsmanager:*:*:secret:*", handover.partition())],
            Self::Cluster => vec![arn("ecs", format!("cluster/{cluster}"))],
            Self::ExecutedCommands => vec![arn("ecs", format!("cluster/{cluster}")), ecs("task")],
            Self::Handover => {
                vec![arn("ssm", format!("parameter/{}/{}/natsctl", handover.project, handover.environment))]
            }
            Self::Keys => vec![arn("kms", "key/*".to_owned())],
            Self::Ledger => vec![arn("dynamodb", format!("table/{}", handover.ledger))],
            Self::LinkedRoles => {
                vec![format!("arn:{}:iam::{account}:role/aws-service-role/*ecs*", handover.partition())]
            }
            Self::LogGroup => vec![group.clone(), format!("{group}:*")],
            Self::LogGroups => vec![arn("logs", "log-group:*".to_owned())],
            Self::NatsSecrets => vec![secret(&names.nats_secret)],
            Self::NatsTargets => vec![handover.nats.target_group.clone()],
            Self::OperatorSecret => vec![secret(&handover.nats.operator_secret)],
            Self::Repositories => vec![arn("ecr", format!("repository/{}", any(&names.repository)))],
            Self::Roles => {
                let made = [handover.execution_role.clone(), any(&names.task_role)];
                made.into_iter().chain(roles.iter().cloned()).collect()
            }
            Self::ScalableTargets => vec![arn("application-autoscaling", "scalable-target/*".to_owned())],
            Self::Scripts => {
                let nodes = handover.nats.nodes.values().map(|node| arn("ec2", format!("instance/{}", node.instance)));
                let document = format!("arn:{}:ssm:{region}::document/AWS-RunShellScript", handover.partition());
                nodes.chain([document]).collect()
            }
            Self::ServiceDeployments => vec![ecs("service"), ecs("service-deployment")],
            Self::Services => vec![ecs("service")],
            Self::Sessions => vec![arn("ssm", "session/*".to_owned())],
            Self::TaskDefinitions => vec![arn("ecs", "task-definition/*".to_owned())],
            Self::Tasks => vec![ecs("task")],
            Self::Topics => vec![arn("sns", "*".to_owned())],
            Self::Tunnels => {
                let nodes = handover.nats.nodes.values().map(|node| arn("ec2", format!("instance/{}", node.instance)));
                let document = "document/AWS-StartPortForwardingSession*";
                let document = format!("arn:{}:ssm:{region}::{document}", handover.partition());
                nodes.chain([ecs("task"), document]).collect()
            }
        }
    }
}

impl Condition {
    /// The same as key and value of the context that IAM is asked about.
    pub(crate) fn context(self, handover: &Handover) -> Option<(&'static str, String)> {
        match self {
            Self::InCluster => {
                let Handover { account, region, cluster, .. } = handover;
                Some(("ecs:cluster", format!("arn:{}:ecs:{region}:{account}:cluster/{cluster}", handover.partition())))
            }
            Self::ToTasks => Some(("iam:PassedToService", TASKS.to_owned())),
            Self::ThroughSecrets => {
                Some(("kms:ViaService", format!("secretsmanager.{}.amazonaws.com", handover.region)))
            }
            Self::None | Self::OnCreation => None,
        }
    }

    fn json(self, handover: &Handover) -> Option<Value> {
        if self == Self::OnCreation {
            let actions = ["CreateService", "RegisterTaskDefinition", "RunTask"];
            return Some(json!({ "StringEquals": { "ecs:CreateAction": actions } }));
        }
        let (key, value) = self.context(handover)?;
        let test = if self == Self::InCluster { "ArnEquals" } else { "StringEquals" };
        Some(json!({ test: { key: value } }))
    }
}

/// A template with `*` for its parts.
fn any(template: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        text.push('*');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text + rest
}

#[cfg(test)]
mod tests;
