"""Small helps for tests: wait until something is true; look at how a call is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], limit: float = 20, pause: float = 0.05) -> T:
    """The first true value that `look` returns; AssertionError with `what` and the last value after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit:g} s for {what}; last seen: {value!r}")
        time.sleep(pause)


def refusal(call: Callable, **arguments: object) -> str:
    """The error code that a boto3 call ends with; AssertionError when it succeeds."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    raise AssertionError(f"{call} was not refused: {answer}")
