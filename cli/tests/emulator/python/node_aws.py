#!/usr/bin/python3
"""As much of the AWS CLI as a node uses: `aws secretsmanager get-secret-value … --query SecretString --output text`."""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("service", choices=["secretsmanager"])
parser.add_argument("operation", choices=["get-secret-value"])
parser.add_argument("--region", required=True)
parser.add_argument("--secret-id", required=True)
parser.add_argument("--query", choices=["SecretString"], required=True)
parser.add_argument("--output", choices=["text"], required=True)
typed = parser.parse_args()

scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/20260101/{typed.region}/secretsmanager/aws4_request"
request = urllib.request.Request(
    os.environ["AWS_ENDPOINT_URL"],
    data=json.dumps({"SecretId": typed.secret_id}).encode(),
    headers={
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "secretsmanager.GetSecretValue",
    },
)
try:
    print(json.load(urllib.request.urlopen(request, timeout=30))["SecretString"])
except urllib.error.HTTPError as error:
    sys.exit(f"\nAn error occurred when calling the GetSecretValue operation: {error.read().decode()}")
