"""Stands in for the Docker client that ministack runs its ECS tasks with; there is no engine behind it.

An image in the tests' registry is pulled, unpacked, and its program runs as a process, in its own root directory when
that is possible. Any other image is only a name: its container does as `behaviours` says, by default it runs for ever.
"""

import threading
import uuid

import images
from docker import errors
from docker.containers import Container, Pretence, Process

_containers = {}
_lock = threading.Lock()


def from_env(timeout=None):
    return Client()


class Client:
    def __init__(self):
        self.containers = Containers()
        self.images = Images()

    def ping(self):
        return True


class Containers:
    def run(self, image, *, definition=None, name=None, labels=None, environment=None, command=None, address=None, **_):
        behaviour = images.behaviour(image, labels or {})
        common = (uuid.uuid4().hex * 2, name, labels or {}, definition or {}, address)
        if behaviour is not None:
            container = Pretence(*common, behaviour, environment or {})
        else:
            container = Process(*common, images.pull(image), environment or {}, command)
        with _lock:
            _containers[container.id] = container
        container.start()
        return container

    def get(self, identity):
        try:
            return _containers[identity]
        except KeyError:
            raise errors.NotFound(f"No such container: {identity}") from None

    def list(self, **_):
        with _lock:
            return list(_containers.values())


class Images:
    def get_registry_data(self, image, **_):
        return Image(images.digest(image))

    def pull(self, image, **_):
        if images.behaviour(image, {}, peek=True) is not None:
            images.pretend_to_pull(image)
            return Image(image)
        images.pull(image)
        return Image(image)

    def get(self, image):
        raise errors.ImageNotFound(f"No such image: {image}")


class Image:
    def __init__(self, identity):
        self.id = identity

    def tag(self, *_, **__):
        return True


def forget(container):
    with _lock:
        _containers.pop(container.id, None)


def clear():
    """Kills everything at once."""
    with _lock:
        everything = list(_containers.values())
        _containers.clear()
    for container in everything:
        container.kill()
