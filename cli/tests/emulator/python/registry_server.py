"""Debian's docker-registry on a port that the system picks, with a storage that can go back to an earlier state.

The same commands as of the other servers. Ends when standard input does, and the registry with it.
"""

import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
SMALL = 4096  # files that may change in place are small; the others are written once
libc = ctypes.CDLL(None)


def say(answer):
    os.write(1, (json.dumps(answer) + "\n").encode())


def copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target, copy_function=copy_or_link)


def copy_or_link(source, target):
    (shutil.copyfile if os.stat(source).st_size < SMALL else os.link)(source, target)


def main():
    storage = pathlib.Path(sys.argv[1], "storage")
    saved = pathlib.Path(sys.argv[1], "saved")
    environment = {
        "REGISTRY_HTTP_ADDR": "127.0.0.1:0",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(storage),
        "REGISTRY_STORAGE_DELETE_ENABLED": "true",
        "REGISTRY_VALIDATION_DISABLED": "true",
        "PATH": os.environ["PATH"],
    }
    configuration = pathlib.Path(sys.argv[1], "registry.yml")
    configuration.write_text("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {}}\nhttp: {addr: '127.0.0.1:0'}\n")
    registry = subprocess.Popen(
        ["docker-registry", "serve", configuration], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    for line in registry.stderr:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
            say({"port": int(found[1])})
            break
    threading.Thread(target=lambda: [None for _ in registry.stderr], daemon=True).start()
    for line in sys.stdin:
        if json.loads(line)["command"] == "save":
            copy(storage, saved)
        else:
            copy(saved, storage)
        say({"done": line.strip()})
    registry.kill()


main()
