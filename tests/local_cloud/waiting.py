"""Waiting for something to become true, with a message when it does not."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], limit: float = 20, pause: float = 0.05) -> T:
    """The first true value that `look` returns; AssertionError naming `what` and the last value after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit:g} s for {what}; last seen: {value!r}")
        time.sleep(pause)
