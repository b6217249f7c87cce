"""What natsctl and Terraform need of moto 5.2.5 and it lacks."""

import re

import moto_frame
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.core.responses import ActionResult, BaseResponse
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.responses import IamResponse
from moto.sts.models import STSBackend

# A call to each service that changes nothing: its action, and its body or form.
READS = {
    "application-autoscaling": ("AnyScaleFrontendService.DescribeScalableTargets", {"ServiceNamespace": "ecs"}),
    "dynamodb": ("DynamoDB_20120810.ListTables", {}),
    "ec2": ("DescribeVpcs", {"Version": "2016-11-15"}),
    "elasticloadbalancing": ("DescribeTargetGroups", {"Version": "2015-12-01"}),
    "iam": ("ListRoles", {"Version": "2010-05-08"}),
    "kms": ("TrentService.ListKeys", {}),
    "monitoring": ("DescribeAlarms", {"Version": "2010-08-01"}),
    "secretsmanager": ("secretsmanager.ListSecrets", {}),
    "sns": ("ListTopics", {"Version": "2010-03-31"}),
    "ssm": ("AmazonSSM.DescribeParameters", {}),
    "sts": ("GetCallerIdentity", {"Version": "2011-06-15"}),
}

WITHOUT_A_RULE = "implicitDeny"
DECISIONS = {PermissionResult.PERMITTED: "allowed", PermissionResult.DENIED: "explicitDeny"}


def apply():
    # ECS is another process's: its services are not known here.
    ApplicationAutoscalingBackend._ecs_service_exists_for_target = lambda _backend, _resource: True
    BaseResponse.access_key_regex = re.compile(r"Credential=([^/]+)/")
    STSBackend.get_caller_identity = get_caller_identity
    IamResponse.simulate_principal_policy = simulate_principal_policy
    moto_frame.apply()


stock_identity = STSBackend.get_caller_identity


def get_caller_identity(backend, access_key_id, region):
    """Who is not known otherwise is the user that the access key id names: `alice`, or `alice.999999999999` elsewhere."""
    user_id, arn, account = stock_identity(backend, access_key_id, region)
    if arn.endswith(":user/moto"):
        name, _, elsewhere = access_key_id.partition(".")
        account = elsewhere or account
        user_id, arn = f"AIDA{name.upper()}", f"arn:aws:iam::{account}:user/{name}"
    return user_id, arn, account


def simulate_principal_policy(response):
    """Decides by the policies that the role or user really has: actions and resources, not conditions."""
    source = response._get_param("PolicySourceArn")
    backend = response.backend
    policies = [IAMPolicy(policy) for policy in policies_of(backend, source)]
    results = []
    for action in response._get_param("ActionNames", []):
        for resource in response._get_param("ResourceArns", []) or ["*"]:
            results.append({
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": decide(policies, action, resource),
                "MatchedStatements": [],
                "MissingContextValues": [],
            })
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def policies_of(backend, source):
    name = source.rsplit("/", 1)[-1]
    if ":role/" in source or ":assumed-role/" in source:
        role = backend.get_role(name if ":role/" in source else source.split("/")[-2])
        return [*role.policies.values(), *role.managed_policies.values()]
    if ":user/" in source and (user := backend.users.get(name)):
        return [*user.policies.values(), *user.managed_policies.values()]
    return ['{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}']


def decide(policies, action, resource):
    answers = {policy.is_action_permitted(action, resource) for policy in policies}
    for answer in (PermissionResult.DENIED, PermissionResult.PERMITTED):
        if answer in answers:
            return DECISIONS[answer]
    return WITHOUT_A_RULE
