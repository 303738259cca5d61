#!/usr/bin/env python3
"""A Lambda function for the tests of the local cloud: does what the event's "do" says, and answers with what it got."""

import json
import os
import sys
import time
import urllib.request

BASE = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/"


def post(request_id: str, kind: str, body: object) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{BASE}{request_id}/{kind}", data=json.dumps(body).encode())).read()


def handle(event: object) -> object:
    wish = event.get("do") if isinstance(event, dict) else None
    if wish == "fail":
        raise ValueError("as asked")
    if wish == "die":
        sys.exit(3)
    if wish == "sleep":
        time.sleep(event["seconds"])
    if wish == "measure":
        print(
            json.dumps(
                {
                    "_aws": {
                        "Timestamp": 0,
                        "CloudWatchMetrics": [
                            {
                                "Namespace": "Test",
                                "Dimensions": [["Target"], []],
                                "Metrics": [{"Name": "Age", "Unit": "Seconds"}],
                            }
                        ],
                    },
                    "Target": "docs",
                    "Age": event["value"],
                }
            ),
            flush=True,
        )
    records = event.get("Records", []) if isinstance(event, dict) else []
    bad = [{"itemIdentifier": r["messageId"]} for r in records if json.loads(r["body"]).get("do") == "fail"]
    return (
        {"batchItemFailures": bad}
        if records
        else {"echo": event, "name": os.environ["AWS_LAMBDA_FUNCTION_NAME"], "variable": os.environ.get("VARIABLE")}
    )


while True:
    with urllib.request.urlopen(BASE + "next") as reply:
        request, body = reply.headers["Lambda-Runtime-Aws-Request-Id"], json.load(reply)
    try:
        post(request, "response", handle(body))
    except ValueError as error:
        post(request, "error", {"errorType": "ValueError", "errorMessage": str(error)})
