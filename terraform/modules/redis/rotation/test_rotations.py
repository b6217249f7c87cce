"""`python3 -m unittest discover --start-directory terraform/modules/redis/rotation`: needs nothing but Python."""

import json
import os
import socket
import sys
import threading
import unittest
from types import SimpleNamespace
from unittest import mock

sys.modules["boto3"] = mock.MagicMock()
os.environ |= {"USER_ID": "test-services", "USER_NAME": "services", "RIGHTS": "on ~* +@all", "HOST": "cache", "PORT": "6379"}

import rotations  # noqa: E402

LOG_IN = rotations.log_in


class NotFound(Exception):
    pass


class Secrets:
    """As much of Secrets Manager as a rotation needs: versions with stages and texts."""

    exceptions = SimpleNamespace(ResourceNotFoundException=NotFound)

    def __init__(self):
        self.stages, self.texts, self.made = {}, {}, 0

    def describe_secret(self, SecretId):
        return {"VersionIdsToStages": {version: list(stages) for version, stages in self.stages.items()}}

    def get_secret_value(self, SecretId, VersionStage, VersionId=None):
        for version, stages in self.stages.items():
            if VersionStage in stages and VersionId in (None, version) and version in self.texts:
                return {"SecretString": self.texts[version]}
        raise NotFound

    def get_random_password(self, **_):
        self.made += 1
        return {"RandomPassword": f"password-{self.made}"}

    def put_secret_value(self, SecretId, ClientRequestToken, SecretString, VersionStages):
        self.texts[ClientRequestToken] = SecretString

    def update_secret_version_stage(self, SecretId, VersionStage, MoveToVersionId, RemoveFromVersionId=None):
        if RemoveFromVersionId:
            self.stages[RemoveFromVersionId].remove(VersionStage)
        self.stages[MoveToVersionId].append(VersionStage)


class Cache:
    def __init__(self):
        self.passwords, self.rights = [], "off ~* -@all"

    def describe_users(self, UserId):
        return {"Users": [{"Status": "active"}]}

    def modify_user(self, UserId, AccessString, AuthenticationMode):
        self.passwords, self.rights = AuthenticationMode["Passwords"], AccessString


class Rotations(unittest.TestCase):
    def setUp(self):
        self.secrets, self.cache = Secrets(), Cache()
        logged_in = mock.Mock(side_effect=lambda user, password: password in self.cache.passwords)
        patches = {"secrets": self.secrets, "cache": self.cache, "log_in": logged_in}
        self.enterContext(mock.patch.multiple(rotations, **patches))

    def rotate(self, token, steps=("createSecret", "setSecret", "testSecret", "finishSecret")):
        self.secrets.stages.setdefault(token, ["AWSPENDING"])
        for step in steps:
            rotations.handler({"SecretId": "auth", "ClientRequestToken": token, "Step": step}, None)

    def current(self):
        return json.loads(self.secrets.get_secret_value("auth", "AWSCURRENT")["SecretString"])

    def test_the_first_rotation_gives_rights_and_a_password(self):
        self.rotate("one")
        self.assertEqual(self.current(), {"username": "services", "password": "password-1"})
        self.assertEqual((self.cache.passwords, self.cache.rights), (["password-1"], "on ~* +@all"))

    def test_the_previous_password_stays_valid_until_the_next_rotation(self):
        self.rotate("one")
        self.rotate("two")
        self.assertEqual(self.cache.passwords, ["password-2", "password-1"])
        self.rotate("three")
        self.assertEqual(self.cache.passwords, ["password-3", "password-2"])

    def test_a_step_that_is_repeated_changes_nothing(self):
        steps = ("createSecret", "createSecret", "setSecret", "setSecret", "testSecret", "finishSecret", "finishSecret")
        self.rotate("one", steps)
        self.assertEqual((self.cache.passwords, self.secrets.made), (["password-1"], 1))

    def test_a_password_that_the_cache_does_not_take_never_becomes_current(self):
        self.rotate("one")
        with mock.patch.object(rotations.time, "monotonic", side_effect=[0, 0, 999, 999, 999, 999]), mock.patch.object(rotations.time, "sleep"):
            with mock.patch.object(rotations, "log_in", return_value=False), self.assertRaises(TimeoutError):
                self.rotate("two", ("createSecret", "testSecret", "finishSecret"))
        self.assertEqual(self.current()["password"], "password-1")

    def test_a_version_that_is_not_pending_is_refused(self):
        self.secrets.stages["odd"] = []
        with self.assertRaises(ValueError):
            self.rotate("odd", ("createSecret",))

    def test_a_login_sends_name_and_password_by_tls(self):
        for answer, expected in ((b"+OK\r\n", True), (b"-WRONGPASS invalid\r\n", False)):
            with self.subTest(answer), socket.create_server(("127.0.0.1", 0)) as server:
                said = []
                thread = threading.Thread(target=answer_once, args=(server, said, answer))
                thread.start()
                address = {"HOST": "127.0.0.1", "PORT": str(server.getsockname()[1])}
                with mock.patch.dict(os.environ, address), mock.patch.object(rotations.ssl, "create_default_context") as tls:
                    tls.return_value.wrap_socket.side_effect = lambda plain, server_hostname: plain
                    self.assertEqual(LOG_IN("services", "secret"), expected)
                    tls.return_value.wrap_socket.assert_called_once_with(mock.ANY, server_hostname="127.0.0.1")
                thread.join()
                self.assertEqual(said, [b"AUTH services secret\r\n"])


def answer_once(server, said, answer):
    connection, _ = server.accept()
    with connection:
        said.append(connection.recv(100))
        connection.sendall(answer)


if __name__ == "__main__":
    unittest.main()
