"""What the benchmark prints while it runs: to standard error, with the time since it began."""

from __future__ import annotations

import sys
import time

BEGAN = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - BEGAN:7.0f} s  {what}", file=sys.stderr, flush=True)
