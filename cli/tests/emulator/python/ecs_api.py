"""The calls of ECS that ministack answers too kindly, or with nothing: checks, pages, service deployments, draining."""

import json
import secrets
import time

from ministack.core.concurrency import spawn_background
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response, request_scope
from ministack.services import ecs

# Memory (MiB) that Fargate offers for CPU units.
FARGATE = {
    256: [512, 1024, 2048],
    512: range(1024, 4097, 1024),
    1024: range(2048, 8193, 1024),
    2048: range(4096, 16385, 1024),
    4096: range(8192, 30721, 1024),
    8192: range(16384, 61441, 4096),
    16384: range(32768, 122881, 8192),
}
EXTRA = ("availabilityZoneRebalancing", "enableECSManagedTags", "platformVersion", "propagateTags", "serviceRegistries")
ROLLS = ("capacityProviderStrategy", "loadBalancers", "networkConfiguration", "platformVersion", "serviceRegistries")
OVER = ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")

history = {}  # cluster/service -> service deployments, oldest first
stock = {}
fail_deployment = watch_alarms = tasks_of = recount_cluster = None


def apply(fail, watch, tasks, recount):
    global fail_deployment, watch_alarms, tasks_of, recount_cluster
    fail_deployment, watch_alarms, tasks_of, recount_cluster = fail, watch, tasks, recount
    for name, handler in ecs._ACTION_MAP.items():
        stock[name] = handler
    ecs._ACTION_MAP.update(
        CreateService=create_service, UpdateService=update_service, DeleteService=delete_service,
        DescribeServices=describe_services, ListServices=list_services, ListTasks=list_tasks, DescribeTasks=describe_tasks,
        RegisterTaskDefinition=register_task_definition, DescribeTaskDefinition=describe_task_definition,
        ListTaskDefinitions=list_task_definitions, RunTask=run_task, StopTask=stop_task, ExecuteCommand=execute_command,
        DescribeClusters=describe_clusters, DeleteCluster=delete_cluster, ListServiceDeployments=list_service_deployments,
        DescribeServiceDeployments=describe_service_deployments, StopServiceDeployment=stop_service_deployment,
        DescribeServiceRevisions=describe_service_revisions,
    )


def refuse(code, message):
    return error_response_json(code, message, 400)


def body(response):
    return json.loads(response[2])


def cluster_problem(data):
    name = ecs._resolve_cluster_name(data.get("cluster", "default"))
    if name not in ecs._clusters or ecs._clusters[name]["status"] == "INACTIVE":
        return refuse("ClusterNotFoundException", "Cluster not found.")
    return None


def key_of(data):
    name = ecs._resolve_service_ref(data.get("service") or data.get("serviceName") or "")
    return f"{ecs._resolve_cluster_name(data.get('cluster', 'default'))}/{name[0] if name else ''}"


def definition_problem(reference):
    definition = ecs._task_defs.get(ecs._resolve_td_key(reference))
    if not definition:
        return refuse("ClientException", "TaskDefinition not found.")
    return None if definition["status"] == "ACTIVE" else refuse("ClientException", "TaskDefinition is inactive")


def page(items, data, limit, key):
    """One page, as AWS cuts it: `maxResults` at most, and a token when there is more."""
    start = int(data.get("nextToken") or 0)
    size = min(int(data.get("maxResults") or limit[0]), limit[1])
    answer = {key: items[start:start + size]}
    if start + size < len(items):
        answer["nextToken"] = str(start + size)
    return json_response(answer)


# Services


def create_service(data):
    key, name = key_of(data), data.get("serviceName")
    problem = cluster_problem(data) or definition_problem(data.get("taskDefinition", ""))
    if problem:
        return problem
    definition = ecs._task_defs[ecs._resolve_td_key(data["taskDefinition"])]
    if definition["networkMode"] == "awsvpc" and not data.get("networkConfiguration"):
        return refuse("InvalidParameterException", "Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    existing = ecs._services.get(key)
    if existing and existing["status"] == "ACTIVE":
        if data.get("clientToken") and existing.get("_token") == data["clientToken"]:
            return answer(existing)
        return refuse("InvalidParameterException", "Creation of service was not idempotent.")
    if existing and existing["status"] == "DRAINING":
        return refuse("InvalidParameterException", "Unable to Start a service that is still Draining.")
    history.pop(key, None)
    response = stock["CreateService"](data)
    if response[0] == 200:
        service = ecs._services[key]
        service["_token"] = data.get("clientToken")
        service["availabilityZoneRebalancing"] = data.get("availabilityZoneRebalancing", "ENABLED")
        if service["launchType"] == "FARGATE" or service["capacityProviderStrategy"]:
            service["platformVersion"] = service["platformVersion"] or "LATEST"
            service["platformFamily"] = "Linux"
        begin(key, service)
        return answer(service)
    return response


def update_service(data):
    key = key_of(data)
    problem = cluster_problem(data)
    if problem:
        return problem
    service = ecs._services.get(key)
    if not service or service["status"] == "INACTIVE":
        return refuse("ServiceNotFoundException", "Service not found.")
    if service["status"] != "ACTIVE":
        return refuse("ServiceNotActiveException", "Service was not ACTIVE.")
    if data.get("taskDefinition") and (problem := definition_problem(data["taskDefinition"])):
        return problem
    if any(field in data and data[field] != service.get(field) for field in ROLLS):
        data = {**data, "forceNewDeployment": True}
    settle(key)
    for field in EXTRA:
        if field in data:
            service[field] = data[field]
    if "desiredCount" in data:
        service["deployments"].sort(key=lambda d: d["status"] != "PRIMARY")
    events = list(service["events"])
    response = stock["UpdateService"](data)
    service["events"][:] = [e for e in service["events"] if e in events or "begun draining connections on 1" not in e["message"]]
    if response[0] != 200:
        return response
    begin(key, service)
    return answer(service)


def delete_service(data):
    key = key_of(data)
    problem = cluster_problem(data)
    if problem:
        return problem
    service = ecs._services.get(key)
    if not service or service["status"] == "INACTIVE":
        return refuse("ServiceNotFoundException", "Service not found.")
    response = stock["DeleteService"](data)
    if response[0] != 200:
        return response
    service["status"] = "DRAINING"
    account, region = get_account_id(), get_region()
    if not stopping(service):
        service["status"] = "INACTIVE"
    else:
        spawn_background(lambda: drained(service, account, region), thread_name="ecs-drain")
    response = body(response)
    response["service"]["status"] = "DRAINING"
    return json_response(response)


def stopping(service):
    return [task for task in tasks_of(service) if task["lastStatus"] != "STOPPED"]


def drained(service, account, region):
    with request_scope(account, region):
        while stopping(service):
            time.sleep(0.02)
        service["status"] = "INACTIVE"


def describe_services(data):
    problem = cluster_problem(data)
    if problem:
        return problem
    if len(data.get("services", [])) > 10:
        return refuse("InvalidParameterException", "Services cannot have more than 10 elements.")
    response = body(stock["DescribeServices"](data))
    for service in response["services"]:
        key = f"{service['clusterArn'].rsplit('/', 1)[-1]}/{service['serviceName']}"
        if "TAGS" not in data.get("include", []):
            service.pop("tags", None)
        dress(service, key)
    return json_response(response)


def answer(service):
    service = ecs._sanitize(service)
    return json_response({"service": dress(service, f"{service['clusterArn'].rsplit('/', 1)[-1]}/{service['serviceName']}")})


def dress(service, key):
    settle(key)
    records = history.get(key) or []
    if records:
        current = next((r for r in reversed(records) if r["status"] not in OVER), None)
        if current:
            service["currentServiceDeployment"] = current["arn"]
        service["currentServiceRevisions"] = [revision(r) for r in records[-2:] if r["deployment"]["status"] == "PRIMARY"]
    return service


def list_services(data):
    problem = cluster_problem(data)
    return problem or page(body(stock["ListServices"](data))["serviceArns"], data, (10, 100), "serviceArns")


# Tasks


def list_tasks(data):
    problem = cluster_problem(data)
    if problem:
        return problem
    if data.get("serviceName") and key_of(data) not in ecs._services:
        return refuse("ServiceNotFoundException", "Service not found.")
    return stock["ListTasks"](data)


def describe_tasks(data):
    problem = cluster_problem(data)
    if problem:
        return problem
    if len(data.get("tasks", [])) > 100:
        return refuse("InvalidParameterException", "Tasks cannot have more than 100 elements.")
    response = body(stock["DescribeTasks"](data))
    if "TAGS" not in data.get("include", []):
        for task in response["tasks"]:
            task.pop("tags", None)
    return json_response(response)


started_by_token = {}


def run_task(data):
    problem = cluster_problem(data) or definition_problem(data.get("taskDefinition", ""))
    if problem:
        return problem
    if int(data.get("count", 1)) > 10:
        return refuse("InvalidParameterException", "count cannot exceed 10.")
    definition = ecs._task_defs[ecs._resolve_td_key(data["taskDefinition"])]
    if definition["networkMode"] == "awsvpc" and not data.get("networkConfiguration"):
        return refuse("InvalidParameterException", "Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    data.setdefault("group", f"family:{definition['family']}")
    token = data.get("clientToken")
    if token not in started_by_token:
        response = ecs._run_task(data)
        if not token or response[0] != 200:
            return response
        started_by_token[token] = response
    return started_by_token[token]


def stop_task(data):
    return cluster_problem(data) or ecs._stop_task(data)


def execute_command(data):
    task = ecs._resolve_task(data.get("task", ""), ecs._resolve_cluster_name(data.get("cluster", "default")))
    if task and not task.get("enableExecuteCommand"):
        return refuse(
            "InvalidParameterException",
            "The execute command failed because execute command was not enabled when the task was run or the execute "
            "command agent isn't running. Wait and try again or run a new task with execute command enabled and try again.",
        )
    return stock["ExecuteCommand"](data)


# Task definitions


def register_task_definition(data):
    size = len(json.dumps({key: value for key, value in data.items() if key != "tags"}, separators=(",", ":")))
    if size > 65536:
        return refuse("ClientException", f"Actual length: '{size}'. Max allowed length is '65536' bytes.")
    if "FARGATE" in data.get("requiresCompatibilities", []):
        cpu, memory = data.get("cpu", ""), data.get("memory", "")
        if not cpu.isdigit() or not memory.isdigit() or int(memory) not in FARGATE.get(int(cpu), []):
            return refuse("ClientException", f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. "
                          "See the Amazon ECS documentation for the valid values.")
        if not data.get("executionRoleArn") and any(c.get("secrets") for c in data.get("containerDefinitions", [])):
            return refuse("ClientException", "When you are specifying container secrets, you must also specify a value for "
                          "'executionRoleArn'.")
    for container in data.get("containerDefinitions", []):
        fill_in(container)
    response = stock["RegisterTaskDefinition"](data)
    return json_response(ecs._sanitize(trim(body(response)))) if response[0] == 200 else response


def fill_in(container):
    """AWS answers with more than it was given."""
    for field in ("environment", "mountPoints", "portMappings", "systemControls", "volumesFrom"):
        container.setdefault(field, [])
    for mapping in container["portMappings"]:
        mapping.setdefault("hostPort", mapping["containerPort"])
        mapping.setdefault("protocol", "tcp")
    if check := container.get("healthCheck"):
        for field, value in (("interval", 30), ("timeout", 5), ("retries", 3)):
            check.setdefault(field, value)


def trim(response):
    definition = response["taskDefinition"]
    for role in ("executionRoleArn", "taskRoleArn", "pidMode", "ipcMode"):
        if not definition.get(role):
            definition.pop(role, None)
    return response


def describe_task_definition(data):
    response = stock["DescribeTaskDefinition"](data)
    if response[0] != 200:
        return response
    response = trim(body(response))
    if "TAGS" not in data.get("include", []):
        response.pop("tags", None)
    return json_response(ecs._sanitize(response))


def list_task_definitions(data):
    """By family and revision; `familyPrefix` is a whole name."""
    wanted, status = data.get("familyPrefix"), data.get("status", "ACTIVE")
    found = [d for d in ecs._task_defs.values() if d["status"] == status and wanted in (None, "", d["family"])]
    found.sort(key=lambda d: (d["family"], d["revision"]), reverse=data.get("sort") == "DESC")
    return page([d["taskDefinitionArn"] for d in found], data, (100, 100), "taskDefinitionArns")


def describe_clusters(data):
    for reference in data.get("clusters") or ["default"]:
        recount_cluster(ecs._resolve_cluster_name(reference))
    return stock["DescribeClusters"](data)


def delete_cluster(data):
    name = ecs._resolve_cluster_name(data.get("cluster", "default"))
    if any(k.startswith(f"{name}/") and s["status"] != "INACTIVE" for k, s in ecs._services.items()):
        return refuse("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active.")
    return stock["DeleteCluster"](data)


# Service deployments


def begin(key, service):
    """A record of the deployment that this call made, if it made one."""
    records = history.setdefault(key, [])
    known = {record["deployment"]["id"] for record in records}
    for deployment in service["deployments"]:
        if deployment["id"] not in known:
            suffix = secrets.token_urlsafe(15)
            records.append({
                "arn": arn("service-deployment", key, suffix),
                "revision": arn("service-revision", key, str(secrets.randbelow(10**19))),
                "deployment": deployment,
                "configuration": dict(service.get("deploymentConfiguration") or {}),
                "sources": [records[-1]["revision"]] if records else [],
                "status": "IN_PROGRESS",
                "created": time.time(),
                "definition": deployment["taskDefinition"],
            })
            alarms = records[-1]["configuration"].get("alarms") or {}
            if alarms.get("enable") and alarms.get("alarmNames") and deployment["rolloutState"] == "IN_PROGRESS":
                watch_alarms(key, deployment, alarms)
    settle(key)


def arn(kind, key, suffix):
    return f"arn:aws:ecs:{get_region()}:{get_account_id()}:{kind}/{key}/{suffix}"


def settle(key):
    """Notes what has come to an end since the last request."""
    records = history.get(key) or []
    for record in records:
        if record["status"] in OVER:
            continue
        deployment = record["deployment"]
        if record["status"] in ("ROLLBACK_IN_PROGRESS", "ROLLBACK_REQUESTED"):
            if record["target"]["rolloutState"] == "COMPLETED":
                end(record, "ROLLBACK_SUCCESSFUL")
        elif deployment["rolloutState"] == "COMPLETED":
            end(record, "SUCCESSFUL")
        elif deployment["status"] != "PRIMARY" and deployment["rolloutState"] == "IN_PROGRESS":
            end(record, "STOPPED", "A newer service deployment replaced this one.")


def end(record, status, reason=None):
    record.update(status=status, finished=time.time())
    if reason:
        record["reason"] = reason


def failed(key, deployment, target, rollback, reason):
    for record in history.get(key) or []:
        if record["deployment"] is deployment and record["status"] not in OVER:
            if target:
                record.update(status="ROLLBACK_IN_PROGRESS", target=target, reason=reason, rolled=time.time())
            elif rollback:
                end(record, "ROLLBACK_FAILED", "No rollback candidate was found to run the rollback.")
            else:
                end(record, "STOPPED", reason)


def revision(record):
    deployment = record["deployment"]
    return {
        "arn": record["revision"], "requestedTaskCount": deployment["desiredCount"],
        "runningTaskCount": deployment["runningCount"], "pendingTaskCount": deployment["pendingCount"],
    }


def show(key, record, full):
    service = ecs._services[key]
    shown = {
        "serviceDeploymentArn": record["arn"], "serviceArn": service["serviceArn"], "clusterArn": service["clusterArn"],
        "createdAt": record["created"], "startedAt": record["created"], "status": record["status"],
        "finishedAt": record.get("finished"), "statusReason": record.get("reason"),
    }
    if not full:
        return {**shown, "targetServiceRevisionArn": record["revision"]}
    breaker = record["configuration"].get("deploymentCircuitBreaker") or {}
    triggered = record["deployment"]["rolloutState"] == "FAILED"
    state = "TRIGGERED" if triggered else "MONITORING_COMPLETE" if record["status"] in OVER else "MONITORING"
    shown.update(
        updatedAt=record.get("finished", record["created"]),
        sourceServiceRevisions=[revision(r) for r in history[key] if r["revision"] in record["sources"]],
        targetServiceRevision=revision(record),
        deploymentConfiguration=record["configuration"],
        deploymentCircuitBreaker={
            "status": state if breaker.get("enable") else "DISABLED",
            "failureCount": record["deployment"]["failedTasks"], "threshold": ecs._circuit_breaker_threshold(service),
        },
    )
    if "target" in record:
        back = next((r["revision"] for r in history[key] if r["deployment"] is record["target"]), None)
        shown["rollback"] = {"reason": record["reason"], "startedAt": record["rolled"], "serviceRevisionArn": back}
    return shown


def list_service_deployments(data):
    problem, key = cluster_problem(data), key_of(data)
    if problem or key not in ecs._services:
        return problem or refuse("ServiceNotFoundException", "Service not found.")
    settle(key)
    wanted = data.get("status") or []
    records = [r for r in reversed(history.get(key) or []) if not wanted or r["status"] in wanted]
    return page([ecs._sanitize(show(key, r, full=False)) for r in records], data, (20, 100), "serviceDeployments")


def find(reference, field="arn"):
    for key, records in list(history.items()):
        for record in records:
            if record[field] == reference:
                settle(key)
                return key, record
    return None


def describe_service_deployments(data):
    shown, failures = [], []
    for reference in data.get("serviceDeploymentArns", []):
        if found := find(reference):
            shown.append(ecs._sanitize(show(*found, full=True)))
        else:
            failures.append({"arn": reference, "reason": "MISSING"})
    return json_response({"serviceDeployments": shown, "failures": failures})


def stop_service_deployment(data):
    found = find(data.get("serviceDeploymentArn", ""))
    if not found:
        return refuse("ServiceDeploymentNotFoundException", "Service deployment not found.")
    key, record = found
    if record["status"] in OVER:
        return refuse("ConflictException", f"The service deployment is already in a terminal state ({record['status']}).")
    rollback = data.get("stopType", "ROLLBACK") == "ROLLBACK"
    fail_deployment(key, record["deployment"], "Service deployment was stopped by the user.", rollback)
    return json_response({"serviceDeploymentArn": record["arn"]})


def describe_service_revisions(data):
    shown, failures = [], []
    for reference in data.get("serviceRevisionArns", []):
        found = find(reference, "revision")
        if not found:
            failures.append({"arn": reference, "reason": "MISSING"})
            continue
        key, record = found
        service = ecs._services[key]
        definition = ecs._task_defs.get(ecs._resolve_td_key(record["definition"])) or {}
        shown.append({
            "serviceRevisionArn": reference, "serviceArn": service["serviceArn"], "clusterArn": service["clusterArn"],
            "taskDefinition": record["definition"], "launchType": service.get("launchType"),
            "networkConfiguration": service.get("networkConfiguration"), "createdAt": record["created"],
            "containerImages": [
                {"containerName": c["name"], "image": c["image"]} for c in definition.get("containerDefinitions", [])
            ],
        })
    return json_response({"serviceRevisions": ecs._sanitize(shown), "failures": failures})
