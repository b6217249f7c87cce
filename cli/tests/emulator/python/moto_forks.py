"""Servers of moto, each a fork of one process that has imported moto already: importing takes a second of processor time.

`moto_forks.py NAME OWNER` listens on the abstract Unix socket NAME and says so in one line; it ends at once if another process
does that already. A client that connects and sends one line, the folder for its files, has a server of its own: the connection
is its standard input and output. Ends with the process OWNER, however that ends, and all servers with it.
"""

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import tempfile

PR_SET_PDEATHSIG = 1


def main():
    name, owner = sys.argv[1:]
    ended = os.pidfd_open(int(owner))
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"\0{name}")
    except OSError:
        return
    listener.listen(1024)
    print("listening", flush=True)
    import moto_server

    moto_server.prepare()
    gc.freeze()
    while ended not in select.select([listener, ended], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            listener.close()
            os.close(ended)
            become(connection)
            moto_server.main()
            os._exit(0)
        connection.close()
        reap()


def become(connection):
    folder = tempfile.tempdir = os.environ["TMPDIR"] = connection.makefile(buffering=1).readline().rstrip("\n")
    log = os.open(f"{folder}/moto.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for source, target in ((connection.fileno(), 0), (connection.fileno(), 1), (log, 2)):
        os.dup2(source, target)
    connection.close()
    os.close(log)


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
