"""How moto is extended: its classes are patched while a cloud runs, and put back afterwards.

Also here, because every call passes this way: the record of calls, the errors that tests inject, and the lock that moto
lacks.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse

# Their state is also changed by the clock: one request, or one tick, at a time.
SERIALISED = {"autoscaling", "ec2", "ssm"}


class Patches:
    def __init__(self) -> None:
        self._undo: list[tuple[type, str, object]] = []

    def extend(self, cls: type, name: str | None = None) -> Callable:
        """Decorator: replace or add cls.<name of the function>. Its first argument is the bound original, or None."""

        def install(fn: Callable) -> Callable:
            attribute = name or fn.__name__
            original = getattr(cls, attribute, None)

            def method(obj, *args, **kw):
                return fn(functools.partial(original, obj) if original else None, obj, *args, **kw)

            self.set(cls, attribute, method)
            return fn

        return install

    def set(self, cls: type, name: str, value: object) -> None:
        self._undo.append((cls, name, cls.__dict__.get(name)))
        setattr(cls, name, value)

    def undo(self) -> None:
        for cls, name, original in reversed(self._undo):
            if original is None:
                delattr(cls, name)
            else:
                setattr(cls, name, original)
        self._undo.clear()


@dataclass
class ApiFault:
    call: str
    code: str
    message: str
    status: int
    times: float
    lose_reply: bool
    delay: float
    caller: str


class ApiFaults:
    """Errors to answer with instead of doing what was asked. S3 has its own: `cloud.s3_faults`."""

    def __init__(self) -> None:
        self._faults: list[ApiFault] = []
        self._lock = threading.Lock()

    def add(
        self,
        call: str,
        code: str = "InternalFailure",
        message: str = "injected by the test",
        *,
        status: int = 400,
        times: float = 1,
        lose_reply: bool = False,
        delay: float = 0,
        caller: str = "*",
    ) -> ApiFault:
        """The next `times` calls of e.g. "ec2:AssociateAddress" or "ssm:*" (by `caller`, see LocalCloud.calls) fail
        with `code`.

        lose_reply: do it, then say that it failed. delay: wait first; with code "" the call then goes on as usual.
        Deliveries of the event bus ask as "lambda:Invoke", "sns:Publish" and "sqs:SendMessage".
        """
        fault = ApiFault(call, code, message, status, times, lose_reply, delay, caller)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, call: str, caller: str = "") -> ApiFault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fnmatchcase(call, fault.call) and fnmatchcase(caller, fault.caller):
                    fault.times -= 1
                    return fault
        return None


def caller_of(user_agent: str) -> str:
    """Functions and instances are told to name themselves in the user agent (AWS_SDK_UA_APP_ID); Weaviate's S3 client
    is `minio`.
    """
    found = re.search(r"\bapp/(\S+)", user_agent)
    return found[1] if found else "minio" * ("minio-go" in user_agent)


def install(cloud) -> None:
    @cloud.patches.extend(BaseResponse)
    def call_action(base, response):
        call = f"{response.service_name}:{response._get_action()}"
        caller = caller_of(str(response.headers.get("User-Agent", "")))
        cloud.calls.append(
            {"call": call, "caller": caller, "at": time.time(), "parameters": dict(response._get_params())}
        )
        cloud.permissions.check_api(response, caller)
        fault = cloud.api_faults.take(call, caller)
        if fault and fault.delay:
            time.sleep(fault.delay)
        if fault and fault.code and not fault.lose_reply:
            return refusal(response, fault)
        with cloud.lock if response.service_name in SERIALISED else nullcontext():
            result = base()
        return refusal(response, fault) if fault and fault.code else result


def refusal(response: BaseResponse, fault: ApiFault):
    # moto's serialiser takes the service from the module of the exception's class.
    error = type("Injected", (ServiceException,), {"__module__": f"moto.{response.service_name}.exceptions"})
    _, headers, body = response.serialized(ActionResult(error(fault.code, fault.message)))
    return fault.status, headers, body
