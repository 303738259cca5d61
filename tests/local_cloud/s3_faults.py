"""What can go wrong with the next S3 requests: rules that a test adds and the proxy obeys."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

MESSAGES = {
    "AccessDenied": (403, "Access Denied"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "ConditionalRequestConflict": (
        409,
        "The conditional request cannot succeed due to a conflicting operation against this resource.",
    ),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "SlowDown": (503, "Please reduce your request rate."),
}


@dataclass
class S3Fault:
    """One rule; `S3Faults.add` says what the fields mean. `hits` are the requests it caught, as (operation, key)."""

    operation: str
    key: str
    bucket: str
    times: float
    skip: int
    error: str
    lose_reply: bool
    delay: float
    hold: bool
    truncate: bool
    corrupt: bool
    hits: list[tuple[str, str]] = field(default_factory=list)
    _reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def catches(self, operation: str, key: str, bucket: str) -> bool:
        asked = ((self.operation, operation), (self.key, key), (self.bucket, bucket))
        return all(re.fullmatch(pattern, text) for pattern, text in asked)

    def wait_reached(self, limit: float = 60) -> None:
        """Until a request waits at this rule."""
        if not self._reached.wait(limit):
            raise AssertionError(f"no {self.operation} of {self.key} within {limit} s")

    def release(self) -> None:
        """Let held requests, now and later ones, go on."""
        self._released.set()

    def pause(self) -> None:
        self._reached.set()
        if self.hold:
            self._released.wait(600)


class S3Faults:
    def __init__(self) -> None:
        self._faults: list[S3Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        operation: str = ".*",
        key: str = ".*",
        *,
        bucket: str = ".*",
        times: float = 1,
        skip: int = 0,
        error: str = "",
        lose_reply: bool = False,
        delay: float = 0,
        hold: bool = False,
        truncate: bool = False,
        corrupt: bool = False,
    ) -> S3Fault:
        """Catch the next `times` requests, after letting `skip` pass, whose operation, key and bucket match these
        regular expressions (whole).

        The operation is the API's name (PutObject, GetObject, HeadObject, ListObjectsV2, UploadPart,
        CompleteMultipartUpload ...); the key is empty for calls on a bucket. Without anything else the request is only
        noted in `hits`.

        error: a code of MESSAGES, answered without doing anything (a HEAD has only the status). lose_reply: do it, then
        cut the connection. delay: seconds before it is done. hold: not before `release()`. truncate, corrupt: a GET's
        body ends half way, or has one byte changed.
        """
        if error and error not in MESSAGES:
            raise ValueError(f"{error} is none of {sorted(MESSAGES)}")
        fault = S3Fault(operation, key, bucket, times, skip, error, lose_reply, delay, hold, truncate, corrupt)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            for fault in self._faults:
                fault.release()
            self._faults.clear()

    def take(self, operation: str, key: str, bucket: str) -> S3Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.catches(operation, key, bucket):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    fault.hits.append((operation, key))
                    return fault
        return None
