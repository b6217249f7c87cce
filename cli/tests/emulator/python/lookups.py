"""What ECS asks of other services, which are moto's here: secrets and parameters of containers, states of alarms."""

import http.client
import json
import re
import urllib.parse

moto = None


def secret(service, name):
    """The text behind a name or ARN; None if there is none, as ministack wants it."""
    if service == "secretsmanager":
        return _ask(service, "secretsmanager.GetSecretValue", {"SecretId": name}, lambda a: a.get("SecretString"))
    name = name.split(":parameter", 1)[-1] if name.startswith("arn:") else name
    question = {"Name": name, "WithDecryption": True}
    return _ask(service, "AmazonSSM.GetParameter", question, lambda a: a["Parameter"]["Value"])


def alarms(names):
    """Those of these alarms that are in ALARM."""
    form = {"Action": "DescribeAlarms", "Version": "2010-08-01", "StateValue": "ALARM"}
    status, body = _post("monitoring", urllib.parse.urlencode(form), {"Content-Type": "application/x-www-form-urlencoded"})
    return set(names).intersection(re.findall(r"<AlarmName>([^<]*)</AlarmName>", body.decode())) if status == 200 else set()


def _ask(service, target, question, pick):
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
    status, body = _post(service, json.dumps(question), headers)
    return pick(json.loads(body)) if status == 200 else None


def _post(service, body, headers):
    scope = f"AWS4-HMAC-SHA256 Credential=ecs/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    connection = http.client.HTTPConnection(moto, timeout=10)
    connection.request("POST", "/", body, {**headers, "Authorization": scope})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer
