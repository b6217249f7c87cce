"""Gives the services' user of the cache a new password. Secrets Manager calls it, one step after the other.

The user has two passwords at a time, the new one and the one before, so that tasks which were started with the old one
go on until they are replaced. Every step may be called again: it then finds its work done.
"""

import json
import os
import socket
import ssl
import time

import boto3

secrets = boto3.client("secretsmanager")
cache = boto3.client("elasticache")


def handler(event, _context):
    secret, token = event["SecretId"], event["ClientRequestToken"]
    stages = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"].get(token, [])
    if "AWSCURRENT" in stages:
        return
    if "AWSPENDING" not in stages:
        raise ValueError(f"version {token} of {secret} is not to be rotated")
    STEPS[event["Step"]](secret, token)


def create(secret, token):
    if value(secret, VersionId=token, VersionStage="AWSPENDING"):
        return
    password = secrets.get_random_password(PasswordLength=64, ExcludePunctuation=True)["RandomPassword"]
    text = json.dumps({"username": os.environ["USER_NAME"], "password": password})
    secrets.put_secret_value(SecretId=secret, ClientRequestToken=token, SecretString=text, VersionStages=["AWSPENDING"])


def set_password(secret, token):
    passwords = [value(secret, VersionId=token, VersionStage="AWSPENDING")["password"]]
    if current := value(secret, VersionStage="AWSCURRENT"):
        passwords.append(current["password"])
    wait_until_active()
    cache.modify_user(
        UserId=os.environ["USER_ID"],
        AccessString=os.environ["RIGHTS"],
        AuthenticationMode={"Type": "password", "Passwords": passwords},
    )
    wait_until_active()


def test(secret, token):
    """Nodes learn of a new password a little after the user is active."""
    pending = value(secret, VersionId=token, VersionStage="AWSPENDING")
    deadline = time.monotonic() + 120
    while not log_in(pending["username"], pending["password"]):
        if time.monotonic() > deadline:
            raise TimeoutError("the cache does not take the new password")
        time.sleep(2)


def finish(secret, token):
    versions = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    old = [version for version, stages in versions.items() if "AWSCURRENT" in stages]
    removed = {"RemoveFromVersionId": old[0]} if old else {}
    secrets.update_secret_version_stage(SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=token, **removed)


STEPS = {"createSecret": create, "setSecret": set_password, "testSecret": test, "finishSecret": finish}


def value(secret, **version):
    """What a version holds, or nothing: the first rotation finds no current one."""
    try:
        return json.loads(secrets.get_secret_value(SecretId=secret, **version)["SecretString"])
    except secrets.exceptions.ResourceNotFoundException:
        return None


def wait_until_active():
    deadline = time.monotonic() + 120
    while cache.describe_users(UserId=os.environ["USER_ID"])["Users"][0]["Status"] != "active":
        if time.monotonic() > deadline:
            raise TimeoutError("the user is still being modified")
        time.sleep(2)


def log_in(user, password):
    address = (os.environ["HOST"], int(os.environ["PORT"]))
    with socket.create_connection(address, timeout=10) as plain:
        with ssl.create_default_context().wrap_socket(plain, server_hostname=address[0]) as connection:
            connection.sendall(f"AUTH {user} {password}\r\n".encode())
            return connection.recv(64).startswith(b"+OK")
