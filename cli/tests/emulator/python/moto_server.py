"""moto as a server that can go back to an earlier state.

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


def serve(listener, application, retire):
    """Serves until something is written to `retire`; then finishes what has started and returns."""
    server = make_server(
        *listener.getsockname(), application, threaded=True, request_handler=MotoRequestHandler, fd=listener.fileno()
    )
    threading.Thread(target=lambda: (os.read(retire, 1), server.shutdown()), daemon=True).start()
    server.serve_forever(poll_interval=0.01)
    while threading.active_count() > 1:
        time.sleep(0.001)


def one_at_a_time(application):
    """moto is not made for threads: what one request iterates over, another one changes."""
    lock = threading.Lock()

    def answer(environ, start_response):
        with lock:
            return list(application(environ, start_response))

    return answer


def state(listener, application):
    """A state to come back to: this process. It never serves; its forks do."""
    while True:
        reader, retire = os.pipe()
        serving = os.fork()
        if serving == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(retire)
            serve(listener, application, reader)
            os.close(reader)
            gc.freeze()
            state(listener, application)
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
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto_patches.apply()
    moto_patches.warm()


def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    os.environ["MOTO_PORT"] = str(listener.getsockname()[1])
    application = one_at_a_time(Cbor(DomainDispatcherApplication(create_backend_app)))
    say({"port": listener.getsockname()[1]})
    state(listener, application)

