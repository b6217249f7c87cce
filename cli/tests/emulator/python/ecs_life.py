"""What ECS does and ministack 1.5.33 does not: patches of its module `ecs`, by way of life of tasks and deployments.

Without them a first deployment is complete before it has started, a failure is counted but not explained, a deployment
has no ARN that could be followed, a stopped task is gone at once, and the health of a container is not checked.
"""

import itertools
import json
import time
import uuid

import ecs_api
import images
import lookups
from ministack.core.concurrency import resource_lock, spawn_background
from ministack.core.responses import AccountRegionScopedDict, get_account_id, get_region, new_uuid, request_scope
from ministack.services import ecs, secretsmanager, ssm

addresses = itertools.count(1)
stock = {}
by_service = {}  # (cluster's ARN, group) -> its tasks
STARTING = ("PROVISIONING", "PENDING", "ACTIVATING")


def apply():
    ecs._ECS_DEPLOYMENT_STEADY_DELAY = 0.05
    ecs._iso = time.time
    ecs.new_uuid = lambda: uuid.uuid4().hex
    ecs._start_restored_service_reconciler = lambda: None
    ecs._ensure_ecs_reaper_thread = lambda: None
    secretsmanager.resolve_secret_string = lambda name: lookups.secret("secretsmanager", name)
    ssm.resolve_parameter_value = lambda name: lookups.secret("ssm", name)
    ecs._tasks.__class__, ecs._services.__class__, ecs._task_defs.__class__ = Tasks, Here, Here
    for patch in (
        _make_deployment, _build_run_kwargs, _register_metadata, _run_task, _stop_task, _mark_task_stopped,
        _watch_task_lifecycle, _schedule_service_deployment_completion, _record_service_task_failure,
        _complete_service_deployment, _refresh_service_state, _task_is_active, _run_docker_container,
        _recount_cluster,
    ):
        stock[patch.__name__] = getattr(ecs, patch.__name__)
        setattr(ecs, patch.__name__, patch)
    ecs_api.apply(fail, watch_alarms, tasks_of, stock["_recount_cluster"])


class Here(AccountRegionScopedDict):
    """One account and one region: nothing has to be sorted out when everything is looked at."""

    __slots__ = ()

    def keys(self):
        return [key[2] for key in list(self._data)]

    def values(self):
        return list(self._data.values())

    def items(self):
        return [(key[2], value) for key, value in list(self._data.items())]


class Tasks(Here):
    __slots__ = ()

    def __setitem__(self, arn, task):
        super().__setitem__(arn, task)
        by_service.setdefault((task["clusterArn"], task["group"]), []).append(task)


# Tasks


def _recount_cluster(_):
    """When it is asked for, and not at every step of every task."""


def _build_run_kwargs(cdef, td, env, *rest):
    """A task has an address of its own, and the container knows its definition."""
    kwargs = stock["_build_run_kwargs"](cdef, td, env, *rest)
    kwargs.pop("platform", None)
    kwargs.pop("extra_hosts", None)
    task = ecs._tasks.get(rest[4]) or {}
    number = next(addresses) % 60000 + 256
    address = f"127.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
    kwargs["environment"] = {
        **env, "HEALTH_ADDR": f"{address}:8080", "HTTP_ADDR": f"{address}:8000", "AWS_ENDPOINT_URL": images.settings["endpoint"]
    }
    kwargs.update(definition=cdef, address=address)
    if task.get("group", "").startswith("service:"):
        kwargs["labels"]["emulator.service"] = task["group"].split(":", 1)[1]
    return kwargs


def _run_docker_container(client, definition, kwargs, **options):
    """A task of no service pulls its image too."""
    return stock["_run_docker_container"](client, definition, kwargs, **{**options, "refresh_image": True})


def _register_metadata(*arguments):
    token = stock["_register_metadata"](*arguments)
    environment = arguments[5]
    for name, value in environment.items():
        if isinstance(value, str):
            environment[name] = value.replace("host.docker.internal", "127.0.0.1")
    return token


def _run_task(data):
    """Tags as the request and the service want them, and a sentence about it in the service's events."""
    group = data.get("group", "")
    service = ecs._services.get(f"{ecs._resolve_cluster_name(data.get('cluster'))}/{group.removeprefix('service:')}")
    tags = list(data.get("tags") or [])
    if service and group.startswith("service:"):
        if service.get("propagateTags") == "SERVICE":
            tags += ecs._tags.get(service["serviceArn"], [])
        if service.get("enableECSManagedTags"):
            tags += [
                {"key": "aws:ecs:clusterName", "value": service["clusterArn"].rsplit("/", 1)[-1]},
                {"key": "aws:ecs:serviceName", "value": service["serviceName"]},
            ]
    definition = ecs._task_defs.get(ecs._resolve_td_key(data.get("taskDefinition", ""))) or {}
    if (service or data).get("propagateTags") == "TASK_DEFINITION":
        tags += ecs._tags.get(definition.get("taskDefinitionArn"), [])
    if service and (deployment := data.get("_deploymentId")):
        data = {**data, "startedBy": deployment}
    response = stock["_run_task"]({**data, "tags": tags})
    if service and response[0] == 200:
        started = [t["taskArn"].rsplit("/", 1)[-1] for t in json.loads(response[2])["tasks"]]
        tell(service, f"has started {len(started)} tasks: {' '.join(f'(task {task})' for task in started)}.")
    return response


def _task_is_active(arn, task):
    return ecs._tasks.get(arn) is task and not task.get("_ecs_resetting") and not task.get("_stopping") \
        and task.get("lastStatus") != "STOPPED"


def _stop_task(data):
    """By the API or by the scheduler: SIGTERM, the stop timeout, SIGKILL, and only then STOPPED."""
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    task = ecs._resolve_task(data.get("task", ""), cluster)
    if not task:
        return ecs.error_response_json("InvalidParameterException", "The referenced task was not found.", 400)
    if "reason" in data and data["reason"] in SCHEDULER:
        deployment = task.get("_deployment_id", "")
        reason, code = f"Scaling activity initiated by (deployment {deployment})", "ServiceSchedulerInitiated"
        if service := service_of(task):
            tell(service, f"has stopped 1 running tasks: (task {task['taskArn'].rsplit('/', 1)[-1]}).")
    else:
        reason, code = data.get("reason", "Task stopped by user"), "UserInitiated"
    stop(task, reason, code)
    if code == "UserInitiated" and service_of(task):
        ecs._reconcile_service_tasks(cluster, key_of(task))
    return ecs.json_response({"task": ecs._sanitize(task)})


SCHEDULER = (
    "Deployment completed", "Service scaling down", "Task definition updated", "Deployment capacity limit", "Service deleted"
)


def stop(task, reason, code):
    arn = task["taskArn"]
    with resource_lock("ecs-task", arn):
        if not _task_is_active(arn, task):
            return
        task["_stopping"] = True
        task.update(desiredStatus="STOPPED", stoppingAt=ecs._iso(), stoppedReason=reason, stopCode=code)
        if task["lastStatus"] == "RUNNING":
            task["lastStatus"] = "DEACTIVATING"
        ecs._bump_task_version(task)
        containers = containers_of(task)
    cluster = ecs._cluster_name_from_arn(task["clusterArn"])
    ecs._refresh_service_state(cluster, task.get("group", ""))
    if all(container.stops_at_once() for container in containers):
        finish(task, containers)
    else:
        account, region = get_account_id(), get_region()

        def wait():
            with request_scope(account, region):
                finish(task, containers)

        spawn_background(wait, thread_name="ecs-stop")


def finish(task, containers):
    for container in containers:
        container.stop(timeout=container.definition.get("stopTimeout", 30))
    stopped(task, [container.wait()["StatusCode"] for container in containers])


def stopped(task, codes):
    now = ecs._iso()
    with resource_lock("ecs-task", task["taskArn"]):
        task.update(lastStatus="STOPPED", desiredStatus="STOPPED", stoppedAt=now, executionStoppedAt=now)
        for container, code in itertools.zip_longest(task.get("containers", []), codes):
            container["lastStatus"] = "STOPPED"
            if code is not None:
                container["exitCode"] = code
        ecs._bump_task_version(task)
    ecs._cleanup_task_resources(task, ecs._get_docker())
    cluster = ecs._cluster_name_from_arn(task["clusterArn"])
    ecs._recount_cluster(cluster)
    ecs._refresh_service_state(cluster, task.get("group", ""))


def _mark_task_stopped(arn, task, reason, code, exit_code=None):
    """A task that ended by itself."""
    if code == "UserInitiated":
        return stop(task, reason, code)
    with resource_lock("ecs-task", arn):
        if not _task_is_active(arn, task):
            return False
        task["_stopping"] = True
        task.update(desiredStatus="STOPPED", stoppingAt=ecs._iso(), stopCode=code)
        task["stoppedReason"] = "Essential container in task exited" if code == "EssentialContainerExited" else reason
        containers = containers_of(task)
        if code == "TaskFailedToStart" and task.get("containers"):
            task["containers"][0]["reason"] = reason
    for container in containers:
        container.stop(timeout=container.definition.get("stopTimeout", 30))
    stopped(task, [container.wait()["StatusCode"] for container in containers])
    ecs._record_service_task_failure(task)
    return True


def containers_of(task):
    found = []
    for identity in task.get("_docker_ids") or []:
        try:
            found.append(ecs._get_docker().containers.get(identity))
        except Exception:
            continue
    return found


def _watch_task_lifecycle(task, client, account, region):
    """Waits for what happens to the containers, instead of looking ten times per second."""
    for index, container in enumerate(containers_of(task)):
        spawn_background(lambda i=index, c=container: watch(task, i, c, account, region), thread_name="ecs-watch")
    group, cluster = task.get("group", ""), ecs._cluster_name_from_arn(task.get("clusterArn", ""))
    if cluster and group.startswith("service:"):
        key = f"{cluster}/{group.removeprefix('service:')}"
        ecs._schedule_service_deployment_completion(cluster, key, account, region, healthy_task=task)


def watch(task, index, container, account, region):
    with request_scope(account, region):
        health = container.wait_for_health()
        if container.definition.get("healthCheck") and health:
            task["containers"][index]["healthStatus"] = health
            task["healthStatus"] = health
        container.wait_for_trouble()
        if container.status == "exited":
            ecs._maybe_mark_stopped(task, ecs._get_docker())
        elif _task_is_active(task["taskArn"], task):
            task["containers"][index]["healthStatus"] = task["healthStatus"] = "UNHEALTHY"
            service = task.get("group", "").startswith("service:")
            if service:
                stop(task, "Task failed container health checks", "ServiceSchedulerInitiated")
                ecs._record_service_task_failure(task)


# Deployments


def _make_deployment(definition, desired, status="PRIMARY"):
    deployment = stock["_make_deployment"](definition, desired, status)
    deployment["rolloutState"] = "IN_PROGRESS"
    deployment["rolloutStateReason"] = f"ECS deployment {deployment['id']} in progress."
    return deployment


def _schedule_service_deployment_completion(cluster, key, account, region, healthy_task=None):
    """A task counts when its container is healthy and has survived its first moments."""
    service = ecs._services.get(key)
    deployment = service and (ecs._deployment_for_task(service, healthy_task) if healthy_task else ecs._primary_deployment(service))
    if not deployment:
        return

    def check():
        with request_scope(account, region):
            for container in containers_of(healthy_task) if healthy_task else []:
                if container.wait_for_health() != "HEALTHY":
                    return
            time.sleep(ecs._ECS_DEPLOYMENT_STEADY_DELAY)
            if ecs._services.get(key) is not service or service["status"] != "ACTIVE":
                return
            if healthy_task and healthy_task["lastStatus"] == "RUNNING":
                ecs._record_service_task_healthy(key, healthy_task)
            ecs._refresh_service_state(cluster, f"service:{service['serviceName']}")
            if sum(t["lastStatus"] in ecs._PRE_STOP_STATUSES for t in tasks_of(service)) != service["desiredCount"]:
                ecs._reconcile_service_tasks(cluster, key)
            ecs._complete_service_deployment(cluster, key, expected_deployment_id=deployment["id"])

    spawn_background(check, thread_name="ecs-deployment")


def _complete_service_deployment(cluster, key, expected_deployment_id=None):
    service = ecs._services.get(key)
    primary = service and ecs._primary_deployment(service)
    before = primary and primary["rolloutState"]
    stock["_complete_service_deployment"](cluster, key, expected_deployment_id)
    if primary and before == "IN_PROGRESS" and primary["rolloutState"] == "COMPLETED":
        primary["rolloutStateReason"] = f"ECS deployment {primary['id']} completed."
        tell(service, f"(deployment {primary['id']}) deployment completed.")
        tell(service, "has reached a steady state.")
        service["_failures"] = 0
        ecs_api.settle(key)
        ecs._refresh_service_state(cluster, f"service:{service['serviceName']}")


def _refresh_service_state(cluster, group):
    """A deployment that failed is shown until the one before has taken over again, as long as it has tasks."""
    key = f"{cluster}/{(group or '').removeprefix('service:')}"
    service = ecs._services.get(key)
    if not service:
        return
    running, pending = {}, {}
    for task in tasks_of(service):
        counts = running if task["lastStatus"] == "RUNNING" else pending
        if counts is running or task["lastStatus"] in STARTING and not task.get("_stopping"):
            identity = task.get("_deployment_id")
            counts[identity] = counts.get(identity, 0) + 1
    service["runningCount"], service["pendingCount"] = sum(running.values()), sum(pending.values())
    for deployment in service["deployments"]:
        deployment["runningCount"] = running.get(deployment["id"], 0)
        deployment["pendingCount"] = pending.get(deployment["id"], 0)
    primary = ecs._primary_deployment(service)
    if primary and primary["rolloutState"] == "COMPLETED":
        ecs_api.settle(key)
        service["deployments"] = [
            d for d in service["deployments"] if d is primary or d["runningCount"] + d["pendingCount"] > 0
        ]


def _record_service_task_failure(task, digest_resolution_failed=False):
    """The circuit breaker: half of the desired count, at least three, failures in a row."""
    service, key = service_of(task), key_of(task)
    if digest_resolution_failed or not service or service["status"] != "ACTIVE":
        return
    cluster = key.split("/", 1)[0]
    failed = False
    with resource_lock("ecs-service", key):
        deployment, primary = ecs._deployment_for_task(service, task), ecs._primary_deployment(service)
        breaker = (service.get("deploymentConfiguration") or {}).get("deploymentCircuitBreaker") or {}
        if deployment and deployment is primary and deployment["rolloutState"] == "IN_PROGRESS":
            deployment["failedTasks"] += 1
            deployment["updatedAt"] = ecs._iso()
            failed = breaker.get("enable") and deployment["failedTasks"] >= ecs._circuit_breaker_threshold(service)
    if failed:
        fail(key, deployment, "ECS deployment circuit breaker: tasks failed to start.", breaker.get("rollback", False))
    elif deployment is primary:
        service["_failures"] = service.get("_failures", 0) + 1
        time.sleep(min(1, 0.01 * 2 ** service["_failures"]))  # this is a thread of the task's own
        ecs._reconcile_service_tasks(cluster, key)


def fail(key, deployment, reason, rollback):
    """Ends a deployment, and goes back to the last one that was complete, if that is wanted and there is one."""
    service = ecs._services[key]
    cluster = key.split("/", 1)[0]
    with resource_lock("ecs-service", key):
        if deployment["rolloutState"] == "FAILED":
            return
        deployment.update(rolloutState="FAILED", rolloutStateReason=reason, desiredCount=0, updatedAt=ecs._iso())
        target = next((d for d in service["deployments"] if d is not deployment and d["rolloutState"] == "COMPLETED"), None)
        tell(service, f"(deployment {deployment['id']}) deployment failed: {reason.split(': ', 1)[-1]}")
        if target and rollback:
            deployment["status"] = "ACTIVE"
            why = f"ECS deployment circuit breaker: rolling back to deploymentId {target['id']}."
            target.update(
                status="PRIMARY", rolloutState="IN_PROGRESS", rolloutStateReason=why,
                desiredCount=service["desiredCount"], updatedAt=ecs._iso(),
            )
            service["taskDefinition"] = target["taskDefinition"]
            service["deployments"].sort(key=lambda d: d is not target)
            tell(service, f"rolling back to deployment {target['id']}.")
        ecs_api.failed(key, deployment, target if rollback else None, rollback, reason)
        leftovers = [t for t in tasks_of(service) if t.get("_deployment_id") == deployment["id"]]
    for task in leftovers if target and rollback else []:
        stop(task, f"Scaling activity initiated by (deployment {deployment['id']})", "ServiceSchedulerInitiated")
    ecs._reconcile_service_tasks(cluster, key)
    if target and rollback:
        ecs._schedule_service_deployment_completion(cluster, key, get_account_id(), get_region())


def watch_alarms(key, deployment, wanted):
    """Fails a deployment when an alarm goes off while it goes on; those that were on before do not count."""
    service, account, region = ecs._services[key], get_account_id(), get_region()
    before = lookups.alarms(wanted["alarmNames"])

    def watch():
        while deployment["rolloutState"] == "IN_PROGRESS" and ecs._services.get(key) is service:
            time.sleep(0.2)
            if lookups.alarms(wanted["alarmNames"]) - before:
                with request_scope(account, region):
                    fail(key, deployment, "ECS deployment failed: alarm detected.", wanted.get("rollback", False))
                return

    spawn_background(watch, thread_name="ecs-alarms")


def key_of(task):
    return f"{ecs._cluster_name_from_arn(task.get('clusterArn', ''))}/{task.get('group', '').removeprefix('service:')}"


def tasks_of(service):
    return by_service.get((service["clusterArn"], f"service:{service['serviceName']}"), [])


def service_of(task):
    return ecs._services.get(key_of(task)) if task.get("group", "").startswith("service:") else None


def tell(service, message):
    service["events"].insert(0, {
        "id": new_uuid(), "createdAt": time.time(), "message": f"(service {service['serviceName']}) {message}"
    })
    del service["events"][100:]
