"""Things to do later. Each runs on a thread of its own, so that one which waits delays no other."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("local_cloud")


class Clock:
    """`after(delay, fn, *args)`: fn runs once. Nothing begins any more after `stop`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable, tuple]] = []
        self._order, self._changed, self._stopped = itertools.count(), threading.Condition(), False
        threading.Thread(target=self._run, name="local-cloud-clock", daemon=True).start()

    def after(self, delay: float, fn: Callable, *args: object) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + delay, next(self._order), fn, args))
            self._changed.notify()

    def every(self, period: float, fn: Callable[[], None]) -> None:
        """Call fn again and again, `period` seconds after it returned."""

        def once() -> None:
            try:
                fn()
            finally:
                if not self._stopped:
                    self.after(period, once)

        self.after(period, once)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._heap or self._heap[0][0] > time.monotonic()):
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._stopped:
                    return
                _, _, fn, args = heapq.heappop(self._heap)
            threading.Thread(target=self._guarded, args=(fn, args), daemon=True).start()

    def _guarded(self, fn: Callable, args: tuple) -> None:
        try:
            fn(*args)
        except Exception:
            if not self._stopped:
                log.exception("%s failed", getattr(fn, "__qualname__", fn))
