"""One event to one target, as EventBridge, the Scheduler and Lambda destinations do it: permission, retries with
backoff, dead letters.
"""

from __future__ import annotations

import json
import time
import uuid

from moto.awslambda.models import lambda_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from .account import ACCOUNT, REGION
from .policies import service_allowed

DAY = 86400


class Undeliverable(Exception):
    def __init__(self, code: str, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.code, self.final = code, final


class Delivery:
    def __init__(self, cloud) -> None:
        """`done` lists what arrived, `lost` what did not arrive anywhere, not even in a dead-letter queue."""
        self.cloud, self.done, self.lost = cloud, [], []

    def send(
        self,
        target: str,
        payload: object,
        *,
        service: str | None,
        source_arn: str,
        retry: dict | None = None,
        dead_letters: str | None = None,
        fifo_group: str | None = None,
    ) -> None:
        """At once and then again until it arrives or the retry policy ends. service None: a role of its own was given,
        nothing to check.
        """
        policy = {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": DAY, **(retry or {})}
        job = {
            "target": target,
            "payload": payload,
            "service": service,
            "source": source_arn,
            "policy": policy,
            "dead_letters": dead_letters,
            "group": fifo_group,
            "attempts": 0,
            "began": time.monotonic(),
        }
        self.cloud.clock.after(0, self._attempt, job)

    def _attempt(self, job: dict) -> None:
        job["attempts"] += 1
        try:
            self.put(job["target"], job["payload"], job["service"], job["source"], job["group"])
        except Undeliverable as error:
            retries, age = job["attempts"] - 1, (time.monotonic() - job["began"]) * self.cloud.timing.clock_speed
            if (
                error.final
                or retries >= job["policy"]["MaximumRetryAttempts"]
                or age >= job["policy"]["MaximumEventAgeInSeconds"]
            ):
                self._give_up(job, error)
            else:
                self.cloud.clock.after(self.cloud.timing.scaled(min(2**retries, 600)), self._attempt, job)
            return
        self.done.append(
            {"target": job["target"], "source": job["source"], "payload": job["payload"], "attempts": job["attempts"]}
        )

    def _give_up(self, job: dict, error: Undeliverable) -> None:
        try:
            if not job["dead_letters"]:
                raise error
            attributes = {
                "RULE_ARN": job["source"],
                "TARGET_ARN": job["target"],
                "ERROR_CODE": error.code,
                "ERROR_MESSAGE": str(error),
                "RETRY_ATTEMPTS": str(job["attempts"] - 1),
            }
            self.put(job["dead_letters"], job["payload"], job["service"], job["source"], None, attributes)
        except Undeliverable as last:
            self.lost.append(
                {
                    "target": job["target"],
                    "source": job["source"],
                    "payload": job["payload"],
                    "error": f"{last.code}: {last}",
                }
            )

    def put(
        self,
        target: str,
        payload: object,
        service: str | None,
        source: str,
        group: str | None = None,
        attributes: dict[str, str] | None = None,
    ) -> None:
        """One try; raises Undeliverable."""
        kind = target.split(":")[2]
        try:
            put = {"lambda": self._to_lambda, "sns": self._to_sns, "sqs": self._to_sqs}[kind]
        except KeyError:
            raise Undeliverable("UNSUPPORTED", f"the local cloud delivers nothing to {target}", final=True) from None
        call = {"lambda": "lambda:Invoke", "sns": "sns:Publish", "sqs": "sqs:SendMessage"}[kind]
        fault = self.cloud.api_faults.take(call, service or "")
        if fault and fault.code:
            raise Undeliverable(fault.code, fault.message)
        put(target, payload, service, source, group, attributes or {})

    def _to_lambda(self, target, payload, service, source, *_) -> None:
        name = target.split(":")[6]
        function = next((f for f in lambda_backends[ACCOUNT][REGION].list_functions() if f.function_name == name), None)
        if function is None:
            raise Undeliverable("RESOURCE_NOT_FOUND", f"there is no function {name}", final=True)
        check(
            function.policy.get_policy()["Policy"] if function.policy.statements else None,
            service,
            "lambda:InvokeFunction",
            source,
            target,
        )
        self.cloud.functions.invoke_later(function, payload)

    def _to_sns(self, target, payload, service, source, *_) -> None:
        topic = sns_backends[ACCOUNT][REGION].topics.get(target)
        if topic is None:
            raise Undeliverable("RESOURCE_NOT_FOUND", f"there is no topic {target}", final=True)
        check(json.loads(topic.policy), service, "sns:Publish", source, target)
        topic.publish(as_text(payload))

    def _to_sqs(self, target, payload, service, source, group, attributes) -> None:
        queue = next((q for q in sqs_backends[ACCOUNT][REGION].queues.values() if q.queue_arn == target), None)
        if queue is None:
            raise Undeliverable("RESOURCE_NOT_FOUND", f"there is no queue {target}", final=True)
        check(json.loads(queue.policy) if queue.policy else None, service, "sqs:SendMessage", source, target)
        marks = {
            name: {"data_type": "String", "string_value": value, "DataType": "String", "StringValue": value}
            for name, value in attributes.items()
        }
        sqs_backends[ACCOUNT][REGION].send_message(
            queue.name,
            as_text(payload),
            message_attributes=marks,
            group_id=group,
            deduplication_id=str(uuid.uuid4()) if group else None,
        )


def check(policy: dict | None, service: str | None, action: str, source: str, target: str) -> None:
    if service and not service_allowed(policy, service, action, source, ACCOUNT):
        raise Undeliverable(
            "NO_PERMISSIONS", f"the policy of {target} does not let {service} do {action} for {source}", final=True
        )


def as_text(payload: object) -> str:
    return payload if isinstance(payload, str) else json.dumps(payload)
