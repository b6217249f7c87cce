"""Containers: real processes, and those that only pretend to run."""

import ctypes
import os
import queue
import signal
import subprocess
import threading
import time

import images

PR_SET_PDEATHSIG = 1
NOBODY = 65532
KILLED = 128 + signal.SIGKILL
libc = ctypes.CDLL(None)


class Container:
    def __init__(self, identity, name, labels, definition, address):
        self.id, self.name, self.labels, self.definition, self.address = identity, name, labels, definition, address
        self.status = "created"
        self.attrs = {"NetworkSettings": {"Networks": {"vpc": {"IPAddress": address}}}}
        self.code = None
        self.lines = []
        self.health = "UNKNOWN"
        self.changed = threading.Condition()

    def reload(self):
        pass

    def remove(self, **_):
        import docker

        self.kill()
        docker.forget(self)

    def wait(self, timeout=None):
        with self.changed:
            self.changed.wait_for(lambda: self.code is not None, timeout)
        return {"StatusCode": self.code}

    def logs(self, stream=False, follow=False, tail=None, **_):
        return self._follow() if stream else b"".join(self.lines[-tail:] if tail else self.lines)

    def _follow(self):
        seen = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda seen=seen: len(self.lines) > seen or self.status == "exited")
                new, over = self.lines[seen:], self.status == "exited"
            seen += len(new)
            yield from new
            if over and not new:
                return

    def wait_for_health(self):
        """The first health that is known; None when the container has gone. At once if there is no health check."""
        if not self.definition.get("healthCheck"):
            return "HEALTHY"
        with self.changed:
            self.changed.wait_for(lambda: self.health != "UNKNOWN" or self.status == "exited")
            return None if self.status == "exited" else self.health

    def wait_for_trouble(self):
        """Returns when the container has exited or is unhealthy."""
        with self.changed:
            self.changed.wait_for(lambda: self.status == "exited" or self.health == "UNHEALTHY")

    def _set(self, **changes):
        with self.changed:
            for name, value in changes.items():
                setattr(self, name, value)
            self.changed.notify_all()

    def _say(self, line):
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()


class Pretence(Container):
    """Behaviour: `log` lines, `exit` {`code`, `after_ms`}, `health` {`status`, `after_ms`}, `stop_ms`."""

    def __init__(self, *common):
        *common, self.behaviour, self.environment = common
        super().__init__(*common)
        self.timers = []

    def start(self):
        self._set(status="running")
        for line in self.behaviour.get("log", []):
            self._say(line.encode() + b"\n")
        if end := self.behaviour.get("exit"):
            self._later(end.get("after_ms", 0), lambda: self._end(end.get("code", 0)))
        health = self.behaviour.get("health", {})
        # One that crashes was never healthy, however late its timer is.
        if self.definition.get("healthCheck") and (health or not end):
            self._later(health.get("after_ms", 0), lambda: self._set(health=health.get("status", "HEALTHY")))

    def stop(self, timeout=30):
        takes = self.behaviour.get("stop_ms", 0) / 1000
        with self.changed:
            self.changed.wait_for(lambda: self.code is not None, min(takes, timeout))
        self._end(KILLED if takes > timeout else self.behaviour.get("stop_code", 0))

    def kill(self):
        self._end(KILLED)

    def stops_at_once(self):
        return not self.behaviour.get("stop_ms")

    def _end(self, code):
        for timer in self.timers:
            timer.cancel()
        if self.code is None:
            self._set(code=code, status="exited")

    def _later(self, milliseconds, action):
        if not milliseconds:
            return action()
        timer = threading.Timer(milliseconds / 1000, action)
        timer.daemon = True
        self.timers.append(timer)
        timer.start()


class Process(Container):
    def __init__(self, *common):
        *common, self.image, environment, self.command = common
        super().__init__(*common)
        self.environment = {**self.image.environment, **{k: str(v) for k, v in environment.items()}}
        self.process = None

    def start(self):
        command = [*(self.definition.get("entryPoint") or self.image.entrypoint), *(self.command or self.image.command)]
        self.process = spawn(self._popen, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._set(status="running")
        threading.Thread(target=self._read, daemon=True).start()
        if self.definition.get("healthCheck"):
            threading.Thread(target=self._watch_health, daemon=True).start()

    def stop(self, timeout=30):
        self._signal(signal.SIGTERM)
        if self.wait(timeout)["StatusCode"] is None:
            self.kill()
            self.wait()

    def kill(self):
        self._signal(signal.SIGKILL)

    def stops_at_once(self):
        return self.code is not None

    def _signal(self, number):
        if self.process and self.process.returncode is None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    def _read(self):
        for line in self.process.stdout:
            self._say(line)
        code = self.process.wait()
        self._set(code=code if code >= 0 else 128 - code, status="exited")

    def _watch_health(self):
        check = self.definition["healthCheck"]
        scale = images.settings["time_scale"]
        interval = check.get("interval", 30) / scale
        grace = time.monotonic() + check.get("startPeriod", 0) / scale
        failures = 0
        while self.code is None:
            if self._is_healthy(check):
                failures = 0
                self._set(health="HEALTHY")
            elif self.health == "HEALTHY" or time.monotonic() > grace:
                failures += 1
                if failures >= check.get("retries", 3):
                    self._set(health="UNHEALTHY")
            self.wait(interval if self.health == "HEALTHY" else min(interval, 0.1))

    def _is_healthy(self, check):
        kind, *arguments = check["command"]
        command = arguments if kind == "CMD" else ["/bin/sh", "-c", *arguments]
        try:
            process = spawn(self._popen, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return process.wait(check.get("timeout", 5)) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        except OSError:
            return False

    def _popen(self, command, **output):
        root, program = self.image.root, command[0]
        isolated = os.geteuid() == 0 and self.image.is_static(program)

        def enter():
            if isolated:
                os.chroot(root)
                os.chdir("/")
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        path = program if isolated else f"{root}{program}"
        return subprocess.Popen(
            [path, *command[1:]], env=self.environment, cwd=root, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=enter, **output,
        )


_orders = queue.Queue()


def _spawner():
    while True:
        answer, start, arguments, options = _orders.get()
        try:
            answer.put(start(*arguments, **options))
        except BaseException as error:
            answer.put(error)


def spawn(start, *arguments, **options):
    """Starts a process from the one thread that lives as long as this process: children die with the thread that made them."""
    answer = queue.Queue()
    _orders.put((answer, start, arguments, options))
    result = answer.get()
    if isinstance(result, BaseException):
        raise result
    return result


threading.Thread(target=_spawner, daemon=True).start()
