"""moto as a server that can go back to an earlier state. `moto_forks.py` starts it.

Commands come as lines of JSON on standard input: `save` makes a state to come back to, `restore` goes back to it. Each state is
a process that waits, and what serves is a fork of it, so going back takes a few milliseconds, whatever the state is.
Ends when standard input does, with everything that it forked.
"""

import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time

import moto_patches
import werkzeug.test
from cbor import Cbor
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

PR_SET_PDEATHSIG = 1


def say(answer):
    os.write(1, (json.dumps(answer) + "\n").encode())


def read_command():
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    return json.loads(line)["command"]


def one_at_a_time(application):
    """moto is not made for threads: what one request iterates over, another one changes."""
    lock = threading.Lock()

    def answer(environ, start_response):
        with lock:
            return list(application(environ, start_response))

    return answer


application = one_at_a_time(Cbor(DomainDispatcherApplication(create_backend_app)))


def serve(listener, retire):
    """Serves until something is written to `retire`; then finishes what has begun and returns."""
    server = make_server(
        *listener.getsockname(), application, threaded=True, request_handler=MotoRequestHandler, fd=listener.fileno()
    )
    threading.Thread(target=lambda: (os.read(retire, 1), server.shutdown()), daemon=True).start()
    server.serve_forever(poll_interval=0.01)
    while threading.active_count() > 1:
        time.sleep(0.001)


def state(listener):
    """A state to come back to: this process. It never serves; its forks do."""
    while True:
        reader, retire = os.pipe()
        serving = os.fork()
        if serving == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(retire)
            serve(listener, reader)
            os.close(reader)
            gc.freeze()
            state(listener)
        os.close(reader)
        say({"done": "ready"})
        command = read_command()
        if command == "save":
            os.write(retire, b"x")
            os.waitpid(serving, 0)
            os._exit(0)
        os.kill(serving, signal.SIGKILL)
        os.waitpid(serving, 0)
        os.close(retire)
        if command is None:
            os._exit(0)


def prepare():
    """Before the first fork: what each of them would do again at its first request to a service takes longer than all that follows."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto_patches.apply()
    client = werkzeug.test.Client(application)
    for service, (action, body) in moto_patches.READS.items():
        scope = f"Credential=emulator/20260101/us-east-1/{service}/aws4_request"
        headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
        if "." in action:
            headers |= {"X-Amz-Target": action, "Content-Type": "application/x-amz-json-1.1"}
            client.post("http://127.0.0.1/", data=json.dumps(body), headers=headers)
        else:
            client.post("http://127.0.0.1/", data={"Action": action, **body}, headers=headers)


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    os.environ["MOTO_PORT"] = str(listener.getsockname()[1])
    say({"port": listener.getsockname()[1]})
    state(listener)
