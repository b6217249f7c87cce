"""FilterLogEvents as CloudWatch has it: by the prefix of streams, and in pages."""

import json

from ministack.core.responses import json_response
from ministack.services import cloudwatch_logs

PAGE = 1000

stock = cloudwatch_logs._filter_log_events


def filter_log_events(data):
    offset = int(data.pop("nextToken", None) or 0)
    page = min(data.pop("limit", PAGE), PAGE)
    prefix = data.get("logStreamNamePrefix", "")
    response = stock(data)
    if response[0] != 200:
        return response
    events = [event for event in json.loads(response[2])["events"] if event["logStreamName"].startswith(prefix)]
    answer = {"events": events[offset:offset + page], "searchedLogStreams": []}
    if offset + page < len(events):
        answer["nextToken"] = str(offset + page)
    return json_response(answer)


def apply():
    cloudwatch_logs._filter_log_events = filter_log_events
