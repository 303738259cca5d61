"""SQS to Lambda: the poller of an event source mapping. A failed batch comes back after the queue's visibility
time-out.
"""

from __future__ import annotations

from moto.awslambda.models import lambda_backends

from .account import ACCOUNT, REGION
from .functions import find
from .sandbox import Invocation


def poll(cloud) -> None:
    for mapping in list(lambda_backends[ACCOUNT][REGION]._event_source_mappings.values()):
        if mapping.enabled and ":sqs:" in mapping.event_source_arn:
            poll_one(cloud, mapping)


def poll_one(cloud, mapping) -> None:
    backend, name = cloud.queue_backend(), mapping.event_source_arn.rsplit(":", 1)[1]
    messages = backend.receive_message(
        name, int(mapping.batch_size or 10), 0, int(backend.get_queue(name).visibility_timeout)
    )
    if messages:
        cloud.clock.after(0, handle, cloud, mapping, name, messages)


def handle(cloud, mapping, name: str, messages: list) -> None:
    invocation = cloud.functions.invoke(
        find(mapping.function_arn.split(":")[6]), {"Records": [record(mapping, message) for message in messages]}
    )
    backend, failed = cloud.queue_backend(), failures(mapping, messages, invocation)
    for message in messages:
        if message.id in failed:  # the queue's time-out, but on the fast clock
            wait = cloud.timing.scaled(int(backend.get_queue(name).visibility_timeout))
            backend.change_message_visibility(name, message.receipt_handle, int(wait))
        else:
            backend.delete_message(name, message.receipt_handle)


def failures(mapping, messages: list, invocation: Invocation) -> set[str]:
    if invocation.failed:
        return {message.id for message in messages}
    answer = invocation.result if isinstance(invocation.result, dict) else {}
    partial = "ReportBatchItemFailures" in (mapping.function_response_types or [])
    return {item["itemIdentifier"] for item in answer.get("batchItemFailures", [])} if partial else set()


def record(mapping, message) -> dict:
    attributes = {
        key: {
            "stringValue": value.get("StringValue") or value.get("string_value"),
            "dataType": "String",
            "stringListValues": [],
            "binaryListValues": [],
        }
        for key, value in message.message_attributes.items()
    }
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "md5OfBody": message.body_md5,
        "attributes": {
            "ApproximateReceiveCount": str(message.approximate_receive_count),
            "SentTimestamp": str(int(message.sent_timestamp)),
            "SenderId": message.sender_id,
            "ApproximateFirstReceiveTimestamp": str(int(message.approximate_first_receive_timestamp or 0)),
        },
        "messageAttributes": attributes,
        "eventSource": "aws:sqs",
        "eventSourceARN": mapping.event_source_arn,
        "awsRegion": REGION,
    }
