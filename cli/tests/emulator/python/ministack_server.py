"""ministack as a server for ECS, ECR and Logs that can go back to an earlier state.

Commands come as lines of JSON on standard input, each is answered by one line. Ends when standard input does, and all
containers with it.
"""

import asyncio
import copy
import json
import logging
import os
import socket
import sys
import threading

os.environ.update(
    DOCKER_HOST="tcp://pretended", IOT_MTLS_ENABLED="0", SFTP_ENABLED="0", LOG_LEVEL="ERROR", BIND_HOST="127.0.0.1",
    MINISTACK_ACCOUNT_ID="123456789012", HOSTNAME="emulator",
)
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
port = listener.getsockname()[1]
os.environ["GATEWAY_PORT"] = str(port)

import docker  # noqa: E402
import ecs_api  # noqa: E402
import ecs_life  # noqa: E402
import images  # noqa: E402
import logs_api  # noqa: E402
import lookups  # noqa: E402
from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from ministack import app as ministack  # noqa: E402
from ministack.core.responses import AccountRegionScopedDict, AccountScopedDict, request_scope  # noqa: E402
from ministack.services import cloudwatch_logs, ecr, ecs  # noqa: E402

MODULES = (ecs, ecr, cloudwatch_logs)
ACCOUNT, REGION = "123456789012", "us-east-1"
saved = []


def say(answer):
    os.write(1, (json.dumps(answer) + "\n").encode())


def stores():
    return (
        value for module in MODULES for value in vars(module).values()
        if isinstance(value, (AccountScopedDict, AccountRegionScopedDict))
    )


def save(_):
    """For a state without tasks: what runs cannot be copied."""
    saved[:] = [copy.deepcopy(store._data) for store in stores()]


def restore(_):
    for task in list(ecs._tasks._data.values()):
        task["_ecs_resetting"] = True
    docker.clear()
    images.forget_behaviours()
    ecs_api.history.clear()
    ecs_life.by_service.clear()
    for store in stores():
        store._data.clear()
    for store, data in zip(stores(), saved):
        store._data.update(copy.deepcopy(data))


def configure(command):
    images.settings.update(command["settings"])
    lookups.moto = command["moto"]


def behave(command):
    images.behave(command["image"], command["behaviour"])


def change(command):
    """Sets fields of a cluster, a service or a task, as something else in the account could have."""
    with request_scope(ACCOUNT, REGION):
        record = {"cluster": ecs._clusters, "service": ecs._services, "task": ecs._tasks}[command["kind"]][command["key"]]
        record.update(command["set"])


COMMANDS = {"save": save, "restore": restore, "configure": configure, "behave": behave, "change": change}


def obey():
    for line in sys.stdin:
        command = json.loads(line)
        try:
            COMMANDS[command["command"]](command)
            say({"done": command["command"]})
        except Exception as error:  # the test sees it
            say({"failed": f"{type(error).__name__}: {error}"})
    docker.clear()
    os._exit(0)


async def main():
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    logging.disable(logging.WARNING)
    ecs_life.apply()
    logs_api.apply()
    say({"port": port})
    threading.Thread(target=obey, daemon=True).start()
    await serve(ministack.app, config)


asyncio.run(main())
