"""Images: what is in the tests' registry is pulled and unpacked, everything else is a name with a behaviour."""

import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import stat
import tarfile
import threading
import time

import zstandard

settings = {"registry": None, "store": None, "time_scale": 20, "registries": []}
_behaviours = {}
_named = {}
_pulled = {}
_lock = threading.Lock()
_here = threading.local()  # what this thread has pulled

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


def behave(image, behaviour):
    """From now on containers of images whose name begins with `image` do this; of a list, one after the other."""
    with _lock:
        _behaviours[image] = list(behaviour) if isinstance(behaviour, list) else [behaviour]


def forget_behaviours():
    with _lock:
        _behaviours.clear()


def behaviour(image, labels, peek=False):
    """What a container of this image does; None if the image is a real one. What is pulled is what then runs."""
    image = _named.get(image, image)
    pulled = None if peek else _here.__dict__.pop("pulled", None)
    step = pulled[1] if pulled and pulled[0] == image else _step(image, peek)
    if step and "one_off" in step and not labels.get("emulator.service"):
        return step["one_off"]
    return step


def _step(image, peek):
    with _lock:
        known = max((name for name in _behaviours if image.startswith(name)), key=len, default=None)
        if known is not None:
            steps = _behaviours[known]
            return steps[0] if peek or len(steps) == 1 else steps.pop(0)
    return None if _is_real(image) else {}


def _is_real(image):
    host = image.split("/", 1)[0]
    return host in settings["registries"] or ".dkr.ecr." in host


def pretend_to_pull(image):
    name = _named.get(image, image)
    step = _step(name, peek=False) or {}
    _here.pulled = (name, step)
    pull = step.get("one_off", step)
    time.sleep(pull.get("pull_ms", 0) / 1000)
    if "pull_error" in pull:
        raise CannotPull(name, pull["pull_error"])


def digest(image):
    """The digest behind a name; made up for one that is only a name."""
    if behaviour(image, {}, peek=True) is None:
        return _manifest(image)[0]
    made_up = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    repository = image.rsplit(":", 1)[0] if ":" in image.rsplit("/", 1)[-1] else image
    _named[f"{repository}@{made_up}"] = image
    return made_up


class CannotPull(Exception):
    def __init__(self, image, why):
        super().__init__(f"pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {why}")


class Pulled:
    def __init__(self, root, config):
        self.root = root
        config = config.get("config", {})
        self.entrypoint = config.get("Entrypoint") or []
        self.command = config.get("Cmd") or []
        self.environment = dict(entry.split("=", 1) for entry in config.get("Env") or [])

    def is_static(self, program):
        """Whether the program needs no interpreter from outside: without one it can run in a root of its own."""
        try:
            head = pathlib.Path(f"{self.root}{program}").open("rb").read(4096)
        except OSError:
            return False
        return head.startswith(b"\x7fELF") and b"/lib64/ld-linux" not in head and b"/lib/ld-" not in head


def pull(image):
    found, manifest = _manifest(image)
    with _lock:
        if found in _pulled:
            return _pulled[found]
    name = _repository(image)
    root = f"{settings['store']}/{found.replace(':', '-')}"
    partial = f"{root}.{threading.get_ident()}"
    os.makedirs(partial)
    for layer in manifest["layers"]:
        _unpack(_blob(image, name, layer["digest"]), partial)
    config = json.loads(_blob(image, name, manifest["config"]["digest"]))
    etc = pathlib.Path(partial, "etc")
    etc.mkdir(exist_ok=True)
    for file in ("hosts", "resolv.conf"):
        if not (etc / file).exists():
            shutil.copy(f"/etc/{file}", etc / file)
    _devices(pathlib.Path(partial, "dev"))
    with _lock:
        if found not in _pulled:
            os.rename(partial, root)
            _pulled[found] = Pulled(root, config)
    return _pulled[found]


def _devices(folder):
    """What every container has, whatever its image: programs ask them for random numbers."""
    if os.geteuid() != 0:
        return
    folder.mkdir(exist_ok=True)
    for name in ("null", "zero", "random", "urandom"):
        if not (folder / name).exists():
            os.mknod(folder / name, stat.S_IFCHR | 0o666, os.stat(f"/dev/{name}").st_rdev)
            os.chmod(folder / name, 0o666)


def _repository(image):
    path = image.split("/", 1)[1].split("@", 1)[0]
    return path.rsplit(":", 1)[0] if ":" in path else path


def _reference(image):
    path = image.split("/", 1)[1]
    if "@" in path:
        return path.split("@", 1)[1]
    return path.rsplit(":", 1)[1] if ":" in path else "latest"


def _manifest(image):
    body = _get(image, f"/v2/{_repository(image)}/manifests/{_reference(image)}")
    manifest = json.loads(body)
    if "manifests" in manifest:
        fitting = [m for m in manifest["manifests"] if m.get("platform", {}).get("architecture") in ("amd64", None)]
        if not fitting:
            raise CannotPull(image, "no match for platform in manifest: not found")
        return _manifest(f"{image.split('/', 1)[0]}/{_repository(image)}@{fitting[0]['digest']}")
    return f"sha256:{hashlib.sha256(body).hexdigest()}", manifest


def _blob(image, name, wanted):
    blob = _get(image, f"/v2/{name}/blobs/{wanted}")
    if f"sha256:{hashlib.sha256(blob).hexdigest()}" != wanted:
        raise CannotPull(image, f"failed to verify {wanted}")
    return blob


def _get(image, path):
    connection = http.client.HTTPConnection(settings["registry"], timeout=20)
    connection.request("GET", path, headers={"Accept": MANIFESTS})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status == 404:
        raise CannotPull(image, "not found")
    if response.status != 200:
        raise CannotPull(image, f"unexpected status from GET request to {path}: {response.status} {response.reason}")
    return body


def _unpack(blob, root):
    if blob.startswith(b"\x1f\x8b"):
        blob = gzip.decompress(blob)
    elif blob.startswith(b"\x28\xb5\x2f\xfd"):
        blob = zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        archive.extractall(root, filter="fully_trusted" if os.geteuid() == 0 else "tar")
