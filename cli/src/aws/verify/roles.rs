//! Roles: whether they exist, which principals they trust, and which rights they have.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, EvaluationResult, PolicyEvaluationDecisionType};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use super::secrets::{Listed, Use};
use super::{APPLY, Finding};
use crate::aws::calls::{Condition, Group, On, Scope, TASKS};
use crate::aws::error::{code, failed};
use crate::aws::{AT_ONCE, Aws};
use crate::handover::Handover;
use crate::manifest::{Manifests, ServiceManifest};
use crate::model::desired::Role;
use crate::model::secret::SecretReference;

/// Whether the roles of the handover and of the services exist, and tasks may assume them.
pub(super) async fn trust(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let mut arns = named(&aws.manifests);
    arns.insert(aws.handover.execution_role.clone());
    for service in aws.manifests.services.values() {
        let needs_role = service.role != Role::Standalone || !service.aws.is_empty();
        arns.extend((service.ecs.task_role.is_none() && needs_role).then(|| aws.handover.task_role(&service.name)));
    }
    let (own, foreign): (Vec<String>, Vec<String>) =
        arns.into_iter().partition(|arn| arn.split(':').nth(4) == Some(&*aws.handover.account));
    let one = |arn: String| async move {
        let name = role_name(&arn).to_owned();
        let trusts = match aws.clients.iam().get_role().role_name(&name).send().await {
            Ok(answer) => {
                let document = answer.role().and_then(|role| role.assume_role_policy_document());
                Ok(Some(trusts_tasks(document.unwrap_or_default())))
            }
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_entity_exception()) => Ok(None),
            Err(error) => Err(failed(&format!("describe the role `{name}`"), error)),
        };
        (name, trusts)
    };
    let found: Vec<(String, anyhow::Result<Option<bool>>)> =
        futures::stream::iter(own).map(one).buffered(AT_ONCE).collect().await;
    let foreign = foreign.into_iter().map(|arn| {
        let hint = "ECS takes roles of its own account alone: correct the manifest";
        Finding::missing(format!("role `{arn}`"), "no role of this account", hint)
    });
    Ok(judge_trust(&found).into_iter().chain(foreign).collect())
}

/// ARNs of the roles that manifests name.
pub(crate) fn named(manifests: &Manifests) -> BTreeSet<String> {
    let of_service = |service: &ServiceManifest| [service.ecs.task_role.clone(), service.ecs.execution_role.clone()];
    manifests.services.values().flat_map(of_service).flatten().collect()
}

/// Of each role, whether tasks may assume it; `None` if it does not exist. Where no role could be read, the reason is shown once.
pub(super) fn judge_trust(found: &[(String, anyhow::Result<Option<bool>>)]) -> Vec<Finding> {
    let good = found.iter().filter(|(_, trusts)| matches!(trusts, Ok(Some(true)))).count();
    let mut findings = Vec::new();
    if let Some((_, Err(error))) = found.first().filter(|_| found.iter().all(|(_, trusts)| trusts.is_err())) {
        return vec![Finding::unknown("roles", error)];
    }
    if good > 0 {
        findings.push(Finding::ok("roles", format!("{good} of {}, for tasks of ECS", found.len())));
    }
    findings.extend(found.iter().filter_map(|(name, trusts)| {
        let what = format!("role `{name}`");
        match trusts {
            Ok(Some(true)) => None,
            Ok(Some(false)) => {
                let found = "tasks may not assume it: it does not trust `ecs-tasks.amazonaws.com`";
                Some(Finding::missing(what, found, APPLY))
            }
            Ok(None) => Some(Finding::missing(what, "not there", APPLY)),
            Err(error) => Some(Finding::unknown(what, error)),
        }
    }));
    findings
}

/// Whether a role's trust policy, as IAM gives it (percent-encoded JSON), lets tasks of ECS assume it.
pub(super) fn trusts_tasks(document: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(&decoded(document)) else { return false };
    list(&policy["Statement"]).iter().any(|statement| {
        let has = |value: &Value, wanted: &str| list(value).iter().any(|one| one.as_str() == Some(wanted));
        statement["Effect"] == "Allow"
            && has(&statement["Principal"]["Service"], TASKS)
            && (has(&statement["Action"], "sts:AssumeRole") || has(&statement["Action"], "sts:*"))
    })
}

/// A policy says one thing with or without a list around it.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether each execution role may pull the images of its services, read their secrets and write their logs.
pub(super) async fn execution(aws: &Aws, secrets: &anyhow::Result<Listed>) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (role, services) in execution_roles(aws) {
        findings.extend(rights_of(aws, secrets, role, &services).await?);
    }
    Ok(findings)
}

/// The execution roles with the services that have them; that of the handover also without any.
fn execution_roles(aws: &Aws) -> BTreeMap<&str, Vec<&ServiceManifest>> {
    let mut roles = BTreeMap::from([(&*aws.handover.execution_role, Vec::new())]);
    for service in aws.manifests.services.values() {
        let role = service.ecs.execution_role.as_deref().unwrap_or(&aws.handover.execution_role);
        roles.entry(role).or_default().push(service);
    }
    roles
}

async fn rights_of(
    aws: &Aws,
    secrets: &anyhow::Result<Listed>,
    role: &str,
    services: &[&ServiceManifest],
) -> anyhow::Result<Vec<Finding>> {
    let handover = &aws.handover;
    let log = format!(
        "arn:{}:logs:{}:{}:log-group:{}:log-stream:*",
        handover.partition(),
        handover.region,
        handover.account,
        handover.log_group
    );
    let is_own = role == handover.execution_role;
    let logs_here = is_own || services.iter().any(|service| service.ecs.container.log_configuration.is_none());
    let log = logs_here.then_some(log).into_iter().collect();
    let mut questions = vec![Question::new(&["logs:CreateLogStream", "logs:PutLogEvents"], log)];
    if aws.registry() == handover.registry {
        let prefix = format!("arn:{}:ecr:{}:{}:repository", handover.partition(), handover.region, handover.account);
        let built = services.iter().filter(|service| service.build.as_ref().is_none_or(|build| build.image.is_none()));
        let repositories: Vec<String> =
            built.map(|service| format!("{prefix}/{}", handover.repository(service))).collect();
        let pull = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"];
        let login = if repositories.is_empty() { Vec::new() } else { vec!["*".to_owned()] };
        questions.push(Question::new(&pull, repositories));
        questions.push(Question::new(&["ecr:GetAuthorizationToken"], login));
    }
    if let Ok(listed) = secrets {
        let wanted = listed.wanted_by(aws, services.iter().copied());
        // No task is started with what natsctl itself uses.
        let wanted = wanted.into_iter().filter(|(_, of)| *of != Use::Own);
        let arns = wanted.filter_map(|(name, _)| listed.by_name.get(&name)).map(|secret| secret.arn.clone());
        questions.push(Question::new(&["secretsmanager:GetSecretValue"], arns.collect()));
    }
    let named = services.iter().flat_map(|service| service.all_secrets());
    let (secrets, parameters): (Vec<String>, Vec<String>) =
        named.filter_map(|reference| by_arn(handover, reference)).partition(|arn| arn.contains(":secret:"));
    questions.push(Question::new(&["secretsmanager:GetSecretValue"], secrets));
    questions.push(Question::new(&["ssm:GetParameters"], parameters));
    questions.retain(|question| !question.resources.is_empty());
    let what = format!("rights of `{}`", role_name(role));
    let hint = if is_own { APPLY } else { "allow it in a policy of the role, or name another `ecs.execution_role`" };
    match denied(aws, role, questions).await? {
        Answer::NotKnown(found) => Ok(vec![Finding::note(what, found, NOT_KNOWN)]),
        Answer::Denied(denied) if denied.is_empty() => {
            Ok(vec![Finding::ok(what, "pulls images, reads secrets, writes logs")])
        }
        Answer::Denied(denied) => Ok(denied
            .into_iter()
            .map(|(action, on)| Finding::missing(&what, format!("may not `{action}` on `{on}`"), hint))
            .collect()),
    }
}

/// ARN of what a manifest names and Terraform does not make: a secret named by its ARN, or a parameter.
fn by_arn(handover: &Handover, reference: &SecretReference) -> Option<String> {
    match reference {
        SecretReference::Secret { .. } if reference.own_name().is_some() => None,
        SecretReference::Secret { secret, .. } => Some(secret.clone()),
        SecretReference::Parameter(arn) if arn.starts_with("arn:") => Some(arn.clone()),
        SecretReference::Parameter(name) => {
            let Handover { region, account, .. } = handover;
            let name = name.trim_start_matches('/');
            Some(format!("arn:{}:ssm:{region}:{account}:parameter/{name}", handover.partition()))
        }
    }
}

/// Which rights that `deploy` needs the caller lacks. A caller that only reads needs none of them, so this is a note.
pub(super) async fn caller(aws: &Aws) -> anyhow::Result<Vec<Finding>> {
    let what = "rights of the caller to deploy";
    let Some(principal) = principal(&aws.caller) else {
        return Ok(vec![Finding::note(what, format!("IAM has no policies of `{}`", aws.caller), NOT_KNOWN)]);
    };
    let roles = named(&aws.manifests);
    let scope = Scope { handover: &aws.handover, roles: &roles };
    let mut questions: Vec<(On, Condition, Question)> = Vec::new();
    for call in [Group::Look, Group::Build, Group::Deploy].into_iter().flat_map(Group::calls) {
        // Every caller may ask for its identity; and IAM does not simulate rights that depend on how they are used.
        if call.service == "sts" || call.service == "kms" || call.condition == Condition::OnCreation {
            continue;
        }
        match questions.iter_mut().find(|(on, condition, _)| (*on, *condition) == (call.on, call.condition)) {
            Some((_, _, question)) => question.actions.push(call.name()),
            None => {
                let mut question = Question::new(&[&call.name()], call.on.arns(scope));
                question.context = call.condition.context(&aws.handover);
                questions.push((call.on, call.condition, question));
            }
        }
    }
    let questions = questions.into_iter().map(|(_, _, question)| question).collect();
    match denied(aws, &principal, questions).await? {
        Answer::NotKnown(found) => Ok(vec![Finding::note(what, found, NOT_KNOWN)]),
        Answer::Denied(denied) if denied.is_empty() => Ok(vec![Finding::ok(what, format!("`{principal}` may"))]),
        Answer::Denied(denied) => {
            let actions: BTreeSet<String> = denied.into_iter().map(|(action, _)| format!("`{action}`")).collect();
            let found = format!("`{principal}` may not {}", actions.into_iter().collect::<Vec<_>>().join(", "));
            Ok(vec![Finding::note(what, found, "docs/iam.md has the policy of `deploy`; reading needs fewer rights")])
        }
    }
}

const NOT_KNOWN: &str = "allow the caller `iam:SimulatePrincipalPolicy` to have this checked too";

/// Actions that a principal should be allowed on resources.
struct Question {
    actions: Vec<String>,
    resources: Vec<String>,
    /// Key and value of the request's context.
    context: Option<(&'static str, String)>,
}

impl Question {
    fn new(actions: &[&str], resources: Vec<String>) -> Self {
        Self { actions: actions.iter().map(|action| (*action).to_owned()).collect(), resources, context: None }
    }
}

/// What IAM answers.
enum Answer {
    /// Action and resource of each right that is lacking.
    Denied(Vec<(String, String)>),
    /// Nothing, for this reason.
    NotKnown(String),
}

/// Which of these rights a principal lacks.
async fn denied(aws: &Aws, principal: &str, questions: Vec<Question>) -> anyhow::Result<Answer> {
    let questions = questions.into_iter().filter(|question| !question.resources.is_empty());
    let asked: Vec<_> = questions.map(|question| ask(aws, principal, question)).collect();
    let answers: Vec<Answer> = futures::stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    let mut denied = Vec::new();
    for answer in answers {
        match answer {
            Answer::Denied(lacking) => denied.extend(lacking),
            unknown @ Answer::NotKnown(_) => return Ok(unknown),
        }
    }
    Ok(Answer::Denied(denied))
}

async fn ask(aws: &Aws, principal: &str, question: Question) -> anyhow::Result<Answer> {
    let context = question.context.map(|(key, value)| {
        let entry = ContextEntry::builder().context_key_name(key).context_key_values(value);
        vec![entry.context_key_type(ContextKeyTypeEnum::String).build()]
    });
    let call = aws.clients.iam().simulate_principal_policy().policy_source_arn(principal);
    let call = call.set_action_names(Some(question.actions)).set_resource_arns(Some(question.resources));
    let mut results = call.set_context_entries(context).max_items(1000).into_paginator().items().send();
    let mut denied = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(result) => denied.extend(lacking(&result)),
            Err(error) if code(&error).is_some_and(|code| code.starts_with("AccessDenied")) => {
                return Ok(Answer::NotKnown("the caller may not ask IAM".to_owned()));
            }
            Err(error) if code(&error) == Some("NoSuchEntity") => {
                return Ok(Answer::NotKnown(format!("IAM does not know `{principal}`")));
            }
            Err(error) => return Err(failed(&format!("ask IAM what `{principal}` may"), error)),
        }
    }
    Ok(Answer::Denied(denied))
}

/// The resources on which an action is not allowed.
pub(super) fn lacking(result: &EvaluationResult) -> Vec<(String, String)> {
    let refused = |decision: &PolicyEvaluationDecisionType| *decision != PolicyEvaluationDecisionType::Allowed;
    let on = |resource: &str| (result.eval_action_name().to_owned(), resource.to_owned());
    match result.resource_specific_results() {
        [] if refused(result.eval_decision()) => vec![on(result.eval_resource_name().unwrap_or("*"))],
        specific => {
            let specific = specific.iter().filter(|one| refused(one.eval_resource_decision()));
            specific.map(|one| on(one.eval_resource_name())).collect()
        }
    }
}

/// The identity whose policies IAM knows: of a session, its role. `None` for the account itself.
pub(super) fn principal(caller: &str) -> Option<String> {
    let (start, resource) = caller.rsplit_once(':')?;
    if let Some(session) = resource.strip_prefix("assumed-role/") {
        let role = session.split('/').next()?;
        return Some(format!("{}:role/{role}", start.replacen(":sts:", ":iam:", 1)));
    }
    (resource.starts_with("user/") || resource.starts_with("role/")).then(|| caller.to_owned())
}

/// The name at the end of a role's ARN; paths before it are not part of it.
fn role_name(arn: &str) -> &str {
    arn.rsplit(['/', ':']).next().unwrap_or(arn)
}
