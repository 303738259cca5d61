"""Lambda: the real binaries behind the runtime API, up to two environments a function; asynchronous invocations with
their retries.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from moto.awslambda.models import LambdaBackend, LambdaFunction, lambda_backends

from .account import ACCOUNT, REGION
from .delivery import Undeliverable
from .sandbox import Invocation, Sandbox

ENVIRONMENTS = 2  # at most; further invocations wait (AWS would make more environments, or throttle)
RETRY_AFTER = (60, 120)  # seconds: Lambda's waits before the second and third try of an asynchronous invocation


class Functions:
    def __init__(self, cloud) -> None:
        self.cloud, self.invocations = cloud, []
        self.programs: dict[str, Path] = {}
        self._idle: dict[str, list[Sandbox]] = {}
        self._made: dict[str, list[Sandbox]] = {}
        self._changed = threading.Condition()

    # ---- invocations -------------------------------------------------------------------------------------------------

    def invoke(self, function: LambdaFunction, event: object) -> Invocation:
        """Run it to its end."""
        invocation = Invocation(function.function_name, event)
        sandbox = self._take(function)
        try:
            sandbox.invoke(invocation, function.function_arn, float(function.timeout))
        finally:
            self._give_back(function.function_name, sandbox)
        self._note(function, invocation)
        return invocation

    def invoke_later(self, function: LambdaFunction, event: object) -> None:
        """An asynchronous invocation: accepted; errors are retried twice, then go to the on-failure destination or
        dead-letter queue.
        """
        self.cloud.clock.after(0, self._try, function, event, 1, time.monotonic())

    def _try(self, function: LambdaFunction, event: object, attempt: int, accepted: float) -> None:
        invocation, config = self.invoke(function, event), invoke_config(function)
        if not invocation.failed:
            return
        age = (time.monotonic() - accepted) * self.cloud.timing.clock_speed
        if attempt > config.get("MaximumRetryAttempts", len(RETRY_AFTER)):
            self._on_failure(function, invocation, attempt, "RetriesExhausted")
        elif age + RETRY_AFTER[attempt - 1] > config.get("MaximumEventAgeInSeconds", 21600):
            self._on_failure(function, invocation, attempt, "EventAgeExceeded")
        else:
            self.cloud.clock.after(
                self.cloud.timing.scaled(RETRY_AFTER[attempt - 1]), self._try, function, event, attempt + 1, accepted
            )

    def _on_failure(self, function: LambdaFunction, invocation: Invocation, attempts: int, condition: str) -> None:
        destination = invoke_config(function).get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        queue = (function.dead_letter_config or {}).get("TargetArn")
        payload: object = invocation.event
        if destination:
            payload = {
                "version": "1.0",
                "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "requestContext": {
                    "requestId": invocation.request_id,
                    "functionArn": f"{function.function_arn}:$LATEST",
                    "condition": condition,
                    "approximateInvokeCount": attempts,
                },
                "requestPayload": invocation.event,
                "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                "responsePayload": invocation.result,
            }
        for target in (destination, queue):
            if target:
                try:  # with the function's own role, which is not checked here
                    self.cloud.delivery.put(target, payload, None, function.function_arn)
                except Undeliverable as error:
                    self.cloud.delivery.lost.append(
                        {"target": target, "source": function.function_arn, "payload": payload, "error": str(error)}
                    )
        if not destination and not queue:
            self.cloud.delivery.lost.append(
                {"target": None, "source": function.function_arn, "payload": payload, "error": "retries exhausted"}
            )

    def _note(self, function: LambdaFunction, invocation: Invocation) -> None:
        self.invocations.append(invocation)
        self.cloud.metrics.take_from(invocation.function, invocation.logs)
        function.logs_backend.ensure_log_group(function.logs_group_name)
        function.save_logs(invocation.logs)

    # ---- environments ------------------------------------------------------------------------------------------------

    def _take(self, function: LambdaFunction) -> Sandbox:
        name = function.function_name
        limit = min(ENVIRONMENTS, int(function.reserved_concurrency or ENVIRONMENTS))
        with self._changed:
            idle, made = self._idle.setdefault(name, []), self._made.setdefault(name, [])
            while not idle and len(made) >= limit:
                self._changed.wait()
            if idle:
                return idle.pop()
            program = self.programs.get(name)
            if program is None:
                raise RuntimeError(f"no program was given for the function {name}; see LocalCloud.deploy")
            log = self.cloud.logs / f"{name}-{len(made) + 1}.log"
            log.touch()
            made.append(Sandbox(program, self._environment(function), log))
            return made[-1]

    def _give_back(self, name: str, sandbox: Sandbox) -> None:
        with self._changed:
            self._idle[name].append(sandbox)
            self._changed.notify()

    def _environment(self, function: LambdaFunction) -> dict[str, str]:
        name = function.function_name
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            self.cloud.MARKER: self.cloud.id,
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name,
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "_HANDLER": function.handler or "bootstrap",
            **self.cloud.client_environment(caller=name),
            **{k: str(v) for k, v in (function.environment_vars or {}).items()},
        }

    def restart(self, name: str | None = None) -> None:
        """Kill the processes of one function or of all; the next invocation starts cold."""
        for function, sandboxes in self._made.items():
            for sandbox in sandboxes if name in (None, function) else ():
                sandbox.kill()

    def stop(self) -> None:
        for sandboxes in self._made.values():
            for sandbox in sandboxes:
                sandbox.stop()


def invoke_config(function: LambdaFunction) -> dict:
    return function.event_invoke_config[-1].config if function.event_invoke_config else {}


def install(cloud) -> None:
    @cloud.patches.extend(LambdaFunction)
    def invoke(_, function, body, request_headers, response_headers):
        event = json.loads(body) if body else {}
        if request_headers.get("x-amz-invocation-type") == "Event":
            cloud.functions.invoke_later(function, event)
            return ""
        invocation = cloud.functions.invoke(function, event)
        if invocation.failed:
            response_headers["x-amz-function-error"] = "Unhandled"
        response_headers["x-amz-log-result"] = base64.b64encode(invocation.logs.encode()[-4096:]).decode()
        return invocation.response.encode()

    cloud.patches.set(LambdaFunction, "dead_letter_config", None)

    @cloud.patches.extend(LambdaBackend)
    def create_function(base, backend, spec):
        function = base(spec)
        function.dead_letter_config = spec.get("DeadLetterConfig")
        return function

    @cloud.patches.extend(LambdaBackend)
    def create_event_source_mapping(base, backend, spec):
        """moto would invoke inside SendMessage; queues.py polls instead."""
        mapping = base(spec)
        for queue in cloud.queue_backend().queues.values():
            queue.lambda_event_source_mappings.pop(mapping.function_arn, None)
        return mapping


def find(name: str) -> LambdaFunction:
    return lambda_backends[ACCOUNT][REGION].get_function(name)
