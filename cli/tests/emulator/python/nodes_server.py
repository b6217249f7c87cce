"""Machines for NATS, and the part of Systems Manager that runs scripts on them.

Each node is a real systemd as the first process of its own namespaces (processes, mounts, network, host name), with an overlay of this
machine as its root. A bridge in a namespace of its own, the hub, connects them; the hub relays to the emulators of AWS, to a server of
files, and, as a load balancer does, to the nodes.

Commands come as lines of JSON on standard input: `boot` starts nodes, `agent` says how the agent of a node behaves. Ends when standard
input does, and everything that it started with it. Needs root.
"""

import concurrent.futures
import ctypes
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
LONGEST_PARAMETERS = 64 << 10
LONGEST_OUTPUT, LONGEST_ERRORS = 24_000, 8_000
HUB = "10.0.0.2"
PATIENCE = 30
libc = ctypes.CDLL(None, use_errno=True)
here = pathlib.Path(__file__).parent
folder = pathlib.Path(sys.argv[1], "nodes")
nodes, commands, lock = {}, {}, threading.Lock()


def say(answer):
    os.write(1, (json.dumps(answer) + "\n").encode())


def run(*arguments):
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {ended.returncode}: {ended.stdout}{ended.stderr}")


def with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def started(*arguments, log):
    """A process that ends with this one, by its id and that of its only child."""
    with open(log, "w") as output:
        parent = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=with_parent
        )
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and parent.poll() is None:
        children = pathlib.Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.005)
    raise RuntimeError(f"{arguments[0]} did not start: {pathlib.Path(log).read_text()}")


def cgroups():
    """Folders of this process's own control group, in the hierarchies that systemd uses."""
    of_process = [line.split(":", 2) for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()]
    top = pathlib.Path("/sys/fs/cgroup")
    unified = top / "unified" if (top / "unified").is_dir() else top
    places = {"name=systemd": top / "systemd", "": unified}
    found = [places[names] / path.lstrip("/") for _, names, path in of_process if names in places]
    return [folder for folder in found if (folder / "cgroup.procs").exists()]


def in_own_cgroup(name, *arguments):
    """A systemd takes the group that it is started in for the root of all groups, so each needs its own."""
    own = [folder / f"natsctl-test-{os.getpid()}-{name}" for folder in cgroups()]
    for group in own:
        group.mkdir(exist_ok=True)
    enter = "".join(f"echo $$ >{group}/cgroup.procs && " for group in own)
    return ["sh", "-c", f'{enter}exec "$0" "$@"', *map(str, arguments)]


def remove_cgroups():
    """Those of this process, and those of processes that were killed before they could."""
    for folder in cgroups():
        for group in folder.glob("natsctl-test-*"):
            owner = int(group.name.split("-")[2])
            if owner != os.getpid() and pathlib.Path(f"/proc/{owner}").exists():
                continue
            for inner in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)) + [group]:
                try:
                    inner.rmdir()
                except OSError:
                    pass  # a file, or a process that has not ended yet: the next run removes it


def within(pid, *arguments):
    return ["nsenter", "--target", str(pid), "--all", "--", *arguments]


def in_network(pid, *arguments):
    return ["nsenter", "--target", str(pid), "--net", "--", *arguments]


# --- Nodes.


class Node:
    def __init__(self, name, settings):
        self.name, self.instance, self.address = name, settings["instance"], settings["address"]
        self.agent = "online"
        self.folder = folder / name
        self.folder.mkdir(parents=True)

    def start(self, hub, number):
        self.pid = started(*in_own_cgroup(
            self.name, "unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--kill-child",
            here / "node_boot.sh", self.name, self.folder, here,
        ), log=self.folder / "boot.log")
        port = f"node{number}"
        run(*in_network(hub, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)))
        run(*in_network(hub, "ip", "link", "set", port, "master", "hub", "up"))
        run(*in_network(self.pid, "ip", "address", "add", f"{self.address}/16", "dev", "eth0"))
        run(*in_network(self.pid, "ip", "link", "set", "eth0", "up"))
        run(*in_network(self.pid, "ip", "link", "set", "lo", "up"))
        self.environment = {
            "PATH": "/opt/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "AWS_ENDPOINT_URL": f"http://{HUB}:80", "AWS_ACCESS_KEY_ID": f"node-{self.name}",
        }

    def finish_boot(self, user_data):
        until = time.monotonic() + PATIENCE
        while True:
            asked = subprocess.run(within(self.pid, "systemctl", "is-system-running"), capture_output=True, text=True)
            if asked.stdout.strip() in ("running", "degraded"):
                break
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name} does not boot: {asked.stdout}{asked.stderr}{(self.folder / 'boot.log').read_text()}")
            time.sleep(0.05)
        with open(self.folder / "user-data.log", "w") as log:
            ended = subprocess.run(
                within(self.pid, "bash"), input=user_data, text=True, env=self.environment, stdout=log, stderr=log
            )
        if ended.returncode:
            raise RuntimeError(f"the user data of {self.name}: {(self.folder / 'user-data.log').read_text()}")

    def execute(self, timeout):
        """As the agent does: in a file, which the shell starts; its process group is killed when the time is over."""
        write = "mkdir -p /run/agent && f=$(mktemp /run/agent/XXXXXX) && cat >$f && chmod 700 $f && exec sh -c $f"
        process = subprocess.Popen(
            within(self.pid, "sh", "-c", write), env=self.environment, start_new_session=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=with_parent,
        )
        killed = threading.Timer(timeout, lambda: os.killpg(process.pid, signal.SIGKILL))
        return process, killed


def hub():
    """The process that holds the hub's namespaces."""
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{HUB} nats.gaming-system.internal\n")
    ready = folder / "hub.ready"
    pid = started(
        "unshare", "--fork", "--net", "--mount", "--kill-child", "sh", "-ec",
        f"""mount --bind {hosts} /etc/hosts
        ip link set lo up
        ip link add hub type bridge
        ip address add {HUB}/16 dev hub
        ip link set hub up
        : >{ready}
        exec sleep infinity""",
        log=folder / "hub.log",
    )
    until = time.monotonic() + PATIENCE
    while not ready.exists():
        if time.monotonic() > until:
            raise RuntimeError(f"the hub does not start: {(folder / 'hub.log').read_text()}")
        time.sleep(0.01)
    return pid


def relay(hub_pid, port, target, inside):
    """Connections to a port of the hub, to an address that `target` gives: inside the hub, or on this machine's loopback."""
    host, other = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{hub_pid}/ns/net", os.O_RDONLY)
    ready = threading.Event()

    def enter(namespace):
        if libc.setns(namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()

    def connect(client):
        if inside:
            enter(other)
        try:
            server = socket.create_connection(target(), timeout=10)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        threading.Thread(target=copy, args=(server, client), daemon=True).start()
        copy(client, server)

    def serve():
        enter(other)
        listener = socket.create_server((HUB, port))
        enter(host)
        ready.set()
        while True:
            client, _ = listener.accept()
            threading.Thread(target=connect, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    ready.wait(PATIENCE)


def boot(command):
    folder.mkdir()
    remove_cgroups()
    hub_pid = hub()
    turn = iter(range(1 << 60))
    endpoint = ("127.0.0.1", command["endpoint"])
    relay(hub_pid, 80, lambda: endpoint, inside=False)
    relay(hub_pid, 81, lambda: ("127.0.0.1", server.server_port), inside=False)
    made = {name: Node(name, settings) for name, settings in command["nodes"].items()}
    addresses = [node.address for node in made.values()]
    relay(hub_pid, 4222, lambda: (addresses[next(turn) % len(addresses)], 4222), inside=True)
    # One after the other, by this thread, with which they end; then all of them boot at the same time.
    for number, node in enumerate(made.values()):
        node.start(hub_pid, number)
    with concurrent.futures.ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda node: node.finish_boot(command["nodes"][node.name]["user_data"]), made.values()))
    nodes.update({node.instance: node for node in made.values()})
    server.files = command.get("files", {})
    return {"hub": hub_pid, "nodes": {node.name: node.pid for node in made.values()}}


# --- Systems Manager.


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Invocation:
    def __init__(self, instance):
        self.instance, self.status, self.details = instance, "Pending", "Pending"
        self.output, self.errors, self.code, self.process = "", "", -1, None

    def end(self, status, details=None):
        with lock:
            if self.status in ("Pending", "InProgress", "Cancelling"):
                self.status, self.details = status, details or status

    def run(self, script, timeout):
        node = nodes[self.instance]
        while node.agent == "waiting" and self.status == "Pending":
            time.sleep(0.02)
        if node.agent in ("offline", "silent"):
            time.sleep(0.3)
            return self.end("TimedOut", "DeliveryTimedOut")
        with lock:
            if self.status != "Pending":
                return
            self.status = self.details = "InProgress"
        # On a machine that is slow, the time is over before the script begins.
        is_slow = node.agent == "slow"
        self.process, timer = node.execute(0.3 if is_slow else timeout)
        timer.start()
        self.output, self.errors = self.process.communicate("#!/bin/sh\nsleep 60\n" if is_slow else script)
        was_killed = not timer.is_alive() and self.process.returncode < 0
        timer.cancel()
        self.code = self.process.returncode
        if was_killed:
            return self.end("TimedOut", "ExecutionTimedOut")
        if self.status == "Cancelling":
            return self.end("Cancelled")
        self.end("Success" if self.code == 0 else "Failed")

    def cancel(self):
        with lock:
            if self.status == "Pending":
                self.status = self.details = "Cancelled"
            elif self.status == "InProgress":
                self.status = self.details = "Cancelling"
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


def send_command(body):
    if body.get("DocumentName") != "AWS-RunShellScript":
        raise Refused("InvalidDocument", f"Document {body.get('DocumentName')} does not exist or your account has no access to it.")
    if len(body.get("Comment", "")) > 100:
        raise Refused("ValidationException", "Value at 'comment' failed to satisfy constraint: Member must have length less than or equal to 100")
    if not 30 <= body.get("TimeoutSeconds", 3600) <= 2_592_000:
        raise Refused("ValidationException", "Value at 'timeoutSeconds' failed to satisfy constraint")
    parameters = body.get("Parameters", {})
    if len(json.dumps(parameters)) > LONGEST_PARAMETERS or set(parameters) - {"commands", "executionTimeout", "workingDirectory"}:
        raise Refused("InvalidParameters", "the parameters are unknown or too long")
    script = "\n".join(parameters["commands"]) + "\n"
    if "{{" in script:
        raise Refused("InvalidParameters", "a parameter of the document is not defined")
    instances = list(body.get("InstanceIds", []))
    for target in body.get("Targets", []):
        of_tag = target["Key"] == "tag:node"
        instances += [one.instance for one in nodes.values() if (one.name if of_tag else one.instance) in target["Values"]]
    if unknown := [instance for instance in instances if instance not in nodes]:
        raise Refused("InvalidInstanceId", f"Instances {unknown} not in a valid state for account")
    timeout = int(parameters.get("executionTimeout", ["3600"])[0])
    name = str(uuid.uuid4())
    invocations = {instance: Invocation(instance) for instance in instances}
    commands[name] = (invocations, body.get("Comment", ""))
    for invocation in invocations.values():
        threading.Thread(target=invocation.run, args=(script, timeout), daemon=True).start()
    return {"Command": {"CommandId": name, "Status": "Pending", "Comment": body.get("Comment", ""), "InstanceIds": instances}}


def found(name):
    if name not in commands:
        raise Refused("InvalidCommandId", f"no command {name}")
    return commands[name][0]


def shown(name, invocation):
    return {
        "CommandId": name, "InstanceId": invocation.instance, "Status": invocation.status, "StatusDetails": invocation.details,
        "Comment": commands[name][1],
    }


def get_command_invocation(body):
    invocation = found(body["CommandId"]).get(body["InstanceId"])
    if invocation is None:
        raise Refused("InvocationDoesNotExist", "")
    output = invocation.output
    if len(output) > LONGEST_OUTPUT:
        output = output[:LONGEST_OUTPUT - 24] + "\n---Output truncated---\n"
    return shown(body["CommandId"], invocation) | {
        "ResponseCode": invocation.code, "StandardOutputContent": output, "StandardErrorContent": invocation.errors[:LONGEST_ERRORS],
    }


def list_command_invocations(body):
    invocations = found(body["CommandId"]).values() if "CommandId" in body else []
    return {"CommandInvocations": [shown(body["CommandId"], one) for one in invocations]}


def list_commands(_):
    return {"Commands": [{"CommandId": name, "Comment": comment} for name, (_, comment) in reversed(commands.items())]}


def cancel_command(body):
    for instance, invocation in found(body["CommandId"]).items():
        if instance in body.get("InstanceIds", [instance]):
            invocation.cancel()
    return {}


def describe_instance_information(body):
    wanted = [value for one in body.get("Filters", []) if one["Key"] == "InstanceIds" for value in one["Values"]]
    known = [node for node in nodes.values() if (not wanted or node.instance in wanted) and node.agent != "unknown"]
    information = lambda node: {
        "InstanceId": node.instance, "PingStatus": "ConnectionLost" if node.agent == "offline" else "Online",
        "AgentVersion": "3.3.0.0", "PlatformType": "Linux", "ResourceType": "EC2Instance", "IPAddress": node.address,
    }
    return {"InstanceInformationList": [information(node) for node in known]}


ACTIONS = {
    "SendCommand": send_command, "GetCommandInvocation": get_command_invocation, "ListCommands": list_commands,
    "ListCommandInvocations": list_command_invocations, "CancelCommand": cancel_command,
    "DescribeInstanceInformation": describe_instance_information,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or "{}")
        try:
            status, answer = 200, ACTIONS[self.headers["x-amz-target"].rsplit(".", 1)[1]](body)
        except Refused as refused:
            status, answer = 400, {"__type": refused.code, "message": str(refused)}
        self.answer(status, "application/x-amz-json-1.1", json.dumps(answer).encode())

    def do_GET(self):
        file = self.server.files.get(self.path)
        self.answer(200 if file else 404, "application/octet-stream", pathlib.Path(file).read_bytes() if file else b"")

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    files = {}


server = Server(("127.0.0.1", 0), Handler)


def obey(command):
    if command["command"] == "boot":
        return boot(command)
    if command["command"] == "agent":
        next(node for node in nodes.values() if node.name == command["node"]).agent = command["mode"]
        return {}
    if command["command"] == "files":
        server.files = command["files"]
        return {}
    return {"failed": f"no command {command['command']}"}


def main():
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say({"port": server.server_port})
    for line in sys.stdin:
        try:
            say({"done": obey(json.loads(line))})
        except Exception as error:
            say({"failed": str(error)})
    for node in nodes.values():
        os.kill(node.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    # Its parent has ended when the node has, and both have left their group.
    while nodes and time.monotonic() < until:
        remove_cgroups()
        if not any(group for folder in cgroups() for group in folder.glob(f"natsctl-test-{os.getpid()}-*")):
            break
        time.sleep(0.01)


main()
