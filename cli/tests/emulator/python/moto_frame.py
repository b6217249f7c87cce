"""What Terraform's provider needs of moto 5.2.5 and it lacks: placement groups, ElastiCache's parameter groups, user groups and
nodes; and attributes that moto takes and forgets."""

import copy
import inspect
import zlib

from moto.awslambda.models import LambdaFunction
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance
from moto.ec2.models.nat_gateways import NatGatewayBackend
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.elasticache.exceptions import ElastiCacheException
from moto.elasticache.models import CacheCluster, ElastiCacheBackend
from moto.elasticache.responses import ElastiCacheResponse
from moto.route53.responses import Route53
from moto.secretsmanager.models import SecretsManagerBackend

# By kind and name. moto is one account and one region here.
stored = {"placement": {}, "parameters": {}, "users": {}}


def apply():
    for action in (
        create_placement_group,
        describe_placement_groups,
        delete_placement_group,
        monitor_instances,
        unmonitor_instances,
    ):
        setattr(EC2Response, action.__name__, action)
    remembering(EC2Response, "run_instances", of_instances)
    remembering(EC2Response, "create_subnet_cidr_reservation", of_reservation)
    remembering(Route53, "create_hosted_zone", of_zone)
    Instance.terminate = leaving_interfaces(Instance.terminate)
    NatGatewayBackend.delete_nat_gateway = with_its_interface(NatGatewayBackend.delete_nat_gateway)
    SecurityGroupRule.description = property(description_of_rule)
    LambdaFunction.__init__ = with_logging(LambdaFunction.__init__)
    LambdaFunction.get_configuration = configuration(LambdaFunction.get_configuration)
    SecretsManagerBackend.rotate_secret = rotate_secret
    for action in (
        create_cache_parameter_group,
        describe_cache_parameter_groups,
        describe_cache_parameters,
        modify_cache_parameter_group,
        reset_cache_parameter_group,
        delete_cache_parameter_group,
        delete_cache_subnet_group,
        create_user_group,
        describe_user_groups,
        modify_user_group,
        delete_user_group,
    ):
        setattr(ElastiCacheResponse, action.__name__, action)
    ElastiCacheBackend.list_tags_for_resource = lambda backend, arn: backend.tagging_service.list_tags_for_resource(arn)
    ElastiCacheBackend.create_replication_group = with_members(ElastiCacheBackend.create_replication_group)
    ElastiCacheBackend.delete_replication_group = delete_replication_group


def remembering(responses, action, remember):
    """Calls `remember` with the request and what was made."""
    original = getattr(responses, action)

    def answer(response):
        result = original(response)
        remember(response, result.result)
        return result

    setattr(responses, action, answer)


# EC2


def create_placement_group(response):
    name = response._get_param("GroupName")
    stored["placement"][name] = {
        "GroupName": name,
        "Strategy": response._get_param("Strategy"),
        "SpreadLevel": response._get_param("SpreadLevel"),
        "State": "available",
        "GroupId": f"pg-{zlib.crc32(name.encode()):08x}",
        "GroupArn": f"arn:aws:ec2:{response.region}:{response.current_account}:placement-group/{name}",
        "Tags": [tag for given in response._get_param("TagSpecifications", []) for tag in given["Tags"]],
    }
    return ActionResult({"PlacementGroup": stored["placement"][name]})


def describe_placement_groups(response):
    wanted = response._get_param("GroupNames", []) or list(stored["placement"])
    missing = [name for name in wanted if name not in stored["placement"]]
    if missing:
        raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{missing[0]}' is unknown.")
    return ActionResult({"PlacementGroups": [stored["placement"][name] for name in wanted]})


def delete_placement_group(response):
    stored["placement"].pop(response._get_param("GroupName"), None)
    return EmptyResult()


def monitor_instances(response):
    return monitoring(response, "enabled")


def unmonitor_instances(response):
    return monitoring(response, "disabled")


def monitoring(response, state):
    instances = response.ec2_backend.get_multi_instances_by_id(response._get_param("InstanceIds", []))
    for instance in instances:
        instance.monitoring_state = state
    return ActionResult({"InstanceMonitorings": [{"InstanceId": i.id, "Monitoring": {"State": state}} for i in instances]})


def of_instances(response, reservation):
    for instance in reservation.instances:
        instance.placement.group_name = response._get_param("Placement.GroupName") or ""
        instance.placement.zone = instance.nics[0].subnet.availability_zone
        instance.disable_api_termination = response._get_param("DisableApiTermination") or False


def leaving_interfaces(terminate):
    """An interface that outlives its instance is free again."""

    def terminated(instance):
        state = terminate(instance)
        for index, interface in list(instance.nics.items()):
            if not interface.delete_on_termination:
                instance.nics[index] = copy.copy(interface)
                interface.instance = interface.attachment_id = interface.attach_time = interface.device_index = None
                interface.status = "available"
        return state

    return terminated


def with_its_interface(delete_nat_gateway):
    def delete(backend, nat_gateway_id):
        gateway = delete_nat_gateway(backend, nat_gateway_id)
        backend.enis.pop(gateway._eni.id, None)
        return gateway

    return delete


def of_reservation(response, result):
    result["SubnetCidrReservation"].description = response._get_param("Description")


def description_of_rule(rule):
    return rule.ip_range.get("Description") or rule.source_group.get("Description")


# Route 53


def of_zone(response, result):
    """With a VPC a zone is private, whether the request says so or not."""
    zone, vpc = result["HostedZone"], response._get_param("VPC.VPCId")
    if vpc and not zone.vpcs:
        zone.private_zone = True
        zone.add_vpc(vpc, response._get_param("VPC.VPCRegion"))


# Lambda


def with_logging(made):
    def init(function, account_id, spec, *args, **kwargs):
        made(function, account_id, spec, *args, **kwargs)
        function.logging_config = spec.get("LoggingConfig", {})

    return init


def configuration(get_configuration):
    return lambda function, *args, **kwargs: get_configuration(function, *args, **kwargs) | {
        "LoggingConfig": function.logging_config
    }


# Secrets Manager


def rotate_secret(backend, secret_id, rotation_lambda_arn=None, rotation_rules=None, **_):
    """Keeps what was asked for. The function is not called: that would need Docker."""
    secret = backend.secrets[secret_id]
    secret.rotation_lambda_arn = rotation_lambda_arn or secret.rotation_lambda_arn
    secret.auto_rotate_after_days = (rotation_rules or {}).get("AutomaticallyAfterDays", 0)
    secret.rotation_requested = secret.rotation_enabled = True
    return secret.to_short_dict()


# ElastiCache


def arn(response, kind, name):
    return f"arn:aws:elasticache:{response.region}:{response.current_account}:{kind}:{name}"


def group(response, kind, code):
    name = response._get_param("CacheParameterGroupName") or response._get_param("UserGroupId")
    if name not in stored[kind]:
        raise ElastiCacheException(code, f"{name} not found")
    return stored[kind][name]


def parameter_group(response):
    return group(response, "parameters", "CacheParameterGroupNotFound")


def user_group(response):
    return group(response, "users", "UserGroupNotFound")


def create_cache_parameter_group(response):
    params = response._get_params()
    name = params["CacheParameterGroupName"]
    stored["parameters"][name] = {
        "CacheParameterGroupName": name,
        "CacheParameterGroupFamily": params["CacheParameterGroupFamily"],
        "Description": params.get("Description", ""),
        "ARN": arn(response, "parametergroup", name),
        "values": {},
    }
    tag(response, stored["parameters"][name])
    return ActionResult({"CacheParameterGroup": stored["parameters"][name]})


def describe_cache_parameter_groups(response):
    return ActionResult({"CacheParameterGroups": [parameter_group(response)]})


def describe_cache_parameters(response):
    values = parameter_group(response)["values"]
    parameters = [{"ParameterName": name, "ParameterValue": value, "Source": "user"} for name, value in values.items()]
    return ActionResult({"Parameters": parameters})


def modify_cache_parameter_group(response):
    found = parameter_group(response)
    for pair in response._get_params()["ParameterNameValues"]:
        found["values"][pair["ParameterName"]] = pair["ParameterValue"]
    return ActionResult({"CacheParameterGroupName": found["CacheParameterGroupName"]})


def reset_cache_parameter_group(response):
    found = parameter_group(response)
    for pair in response._get_params().get("ParameterNameValues", []):
        found["values"].pop(pair["ParameterName"], None)
    return ActionResult({"CacheParameterGroupName": found["CacheParameterGroupName"]})


def delete_cache_parameter_group(response):
    del stored["parameters"][parameter_group(response)["CacheParameterGroupName"]]
    return EmptyResult()


def delete_cache_subnet_group(response):
    response.elasticache_backend.cache_subnet_groups.pop(response._get_param("CacheSubnetGroupName"), None)
    return EmptyResult()


def create_user_group(response):
    params = response._get_params()
    name = params["UserGroupId"]
    stored["users"][name] = {
        "UserGroupId": name,
        "Engine": params["Engine"].lower(),
        "UserIds": params.get("UserIds", []),
        "Status": "active",
        "ReplicationGroups": [],
        "ARN": arn(response, "usergroup", name),
    }
    tag(response, stored["users"][name])
    return ActionResult(stored["users"][name])


def describe_user_groups(response):
    return ActionResult({"UserGroups": [user_group(response)]})


def modify_user_group(response):
    found, params = user_group(response), response._get_params()
    left = [user for user in found["UserIds"] if user not in params.get("UserIdsToRemove", [])]
    found["UserIds"] = left + params.get("UserIdsToAdd", [])
    return ActionResult(found)


def delete_user_group(response):
    found = user_group(response)
    del stored["users"][found["UserGroupId"]]
    return ActionResult(found | {"Status": "deleting"})


def tag(response, made):
    response.elasticache_backend.tagging_service.tag_resource(made["ARN"], response._get_params().get("Tags", []))


def with_members(create):
    """More than one shard, or a parameter group that says so, is cluster mode; and the nodes can be described one by one."""

    def create_replication_group(backend, **params):
        parameters = stored["parameters"].get(params["cache_parameter_group_name"], {"values": {}})
        if parameters["values"].get("cluster-enabled") == "yes" or (params["num_node_groups"] or 1) > 1:
            params["cluster_mode"] = "enabled"
        made = create(backend, **params)
        known = inspect.signature(CacheCluster.__init__).parameters
        for node in made.member_clusters:
            given = {name: params.get(name) for name in known if name != "self"}
            given |= {"account_id": backend.account_id, "region_name": backend.region_name, "cache_cluster_id": node}
            backend.cache_clusters[node] = made_node = CacheCluster(**given)
            made_node.at_rest_encryption_enabled = made.at_rest_encryption_enabled
            made_node.transit_encryption_mode = made.transit_encryption_mode
            made_node.security_groups = [
                {"SecurityGroupId": group, "Status": "active"} for group in params["security_group_ids"] or []
            ]
            made_node.cache_parameter_group = {
                "CacheParameterGroupName": params["cache_parameter_group_name"],
                "ParameterApplyStatus": "in-sync",
            }
        return made

    return create_replication_group


def delete_replication_group(backend, replication_group_id, **_):
    found = backend.describe_replication_groups(replication_group_id)[0]
    del backend.replication_groups[replication_group_id]
    for node in found.member_clusters:
        backend.cache_clusters.pop(node, None)
    found.status = "deleting"
    return found
