"""CloudWatch in CBOR, which the Rust SDK speaks: moto is asked in JSON instead."""

import io
import json
from datetime import datetime, timezone

import cbor2

TARGET = "GraniteServiceVersion20100801"


class Cbor:
    """Around the application of moto."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        if environ.get("HTTP_SMITHY_PROTOCOL") != "rpc-v2-cbor":
            return self.application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        question = json.dumps(cbor2.loads(body) if body else {}, default=str).encode()
        operation = environ["PATH_INFO"].rsplit("/", 1)[-1]
        environ |= {
            "PATH_INFO": "/",
            "RAW_URI": "/",
            "REQUEST_URI": "/",
            "CONTENT_TYPE": "application/x-amz-json-1.0",
            "CONTENT_LENGTH": str(len(question)),
            "HTTP_X_AMZ_TARGET": f"{TARGET}.{operation}",
            "wsgi.input": io.BytesIO(question),
        }
        answered = {}

        def answer(status, headers, _exception=None):
            answered["status"], answered["headers"] = status, headers

        text = b"".join(self.application(environ, answer))
        value = json.loads(text) if text else {}
        encoded = cbor2.dumps(typed(value), datetime_as_timestamp=True)
        own = {"content-type", "content-length", "smithy-protocol"}
        headers = [(name, value) for name, value in answered["headers"] if name.lower() not in own]
        headers += [
            ("Content-Type", "application/cbor"),
            ("Content-Length", str(len(encoded))),
            ("smithy-protocol", "rpc-v2-cbor"),
        ]
        start_response(answered["status"], headers)
        return [encoded]


def typed(value, name=""):
    """JSON has one kind of number; CBOR distinguishes times, fractions and whole ones."""
    if isinstance(value, dict):
        return {key: typed(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner, name) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("Timestamp"):
            return datetime.fromtimestamp(value, timezone.utc)
        if name == "Threshold":
            return float(value)
    return value
