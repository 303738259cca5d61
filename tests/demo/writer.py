"""A client that never stops writing: one new row after the other, each tried with the same id until it is acknowledged.

So what it counts as acknowledged is what the database said it has; a connection that is refused or cut counts as
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from .weaviate_client import Refused, Row, Weaviate

PAUSE, RETRY = 0.02, 0.05  # seconds between rows, and between tries


class Writer:
    def __init__(self, client: Weaviate, rows: Iterator[Row], clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._rows, self._clock = client, rows, clock
        self.acknowledged: dict[str, Row] = {}
        self.refused = 0  # tries
        self.longest_refusal = 0.0  # seconds
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        for row in self._rows:
            if not self._until_acknowledged(row):
                return
            self.acknowledged[row.id] = row
            if self._enough.wait(PAUSE):
                return

    def _until_acknowledged(self, row: Row) -> bool:
        """False when it was told to stop before."""
        since = None
        while True:
            try:
                self._client.write([row])
            except Refused:
                since = since or self._clock()
                self.refused += 1
                if self._enough.wait(RETRY):
                    return False
                continue
            if since is not None:
                self.longest_refusal = max(self.longest_refusal, self._clock() - since)
            return True
