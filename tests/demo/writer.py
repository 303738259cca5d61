"""A client that never stops writing: one new row after the other, each tried with the same id until it is acknowledged.

So what it counts as acknowledged is what the database said it has; a connection that is refused or cut counts as
nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterator

import numpy as np

from .corpus import NAMESPACE
from .embed import DIMENSIONS
from .weaviate_client import Refused, Row, Weaviate

PAUSE, RETRY = 0.02, 0.05  # seconds between rows, and between tries


class Writer:
    def __init__(self, client: Weaviate, tell: Callable[[str], None]) -> None:
        self._client, self._tell = client, tell
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
        for row in notes():
            if not self._write(row):
                return
            self.acknowledged[row.id] = row
            if self._enough.wait(PAUSE):
                return

    def _write(self, row: Row) -> bool:
        """Until it is acknowledged; False when told to stop before."""
        refused_since = None
        while not self._acknowledged(row):
            self.refused += 1
            if refused_since is None:
                refused_since = time.monotonic()
                self._tell(f"{row.name}: refused; {len(self.acknowledged)} notes acknowledged so far")
            if self._enough.wait(RETRY):
                return False
        if refused_since is not None:
            refusal = time.monotonic() - refused_since
            self.longest_refusal = max(self.longest_refusal, refusal)
            self._tell(f"{row.name}: acknowledged after {refusal:.1f} s and {self.refused} tries")
        return True

    def _acknowledged(self, row: Row) -> bool:
        try:
            self._client.write([row])
        except Refused:
            return False
        return True


def notes() -> Iterator[Row]:
    """In random directions, which in so many dimensions are nearly at right angles to every question: what is written
    meanwhile changes no answer.
    """
    random = np.random.default_rng(seed=1)
    for number in itertools.count(1):
        name, vector = f"note {number}", array("f", random.normal(size=DIMENSIONS))
        yield Row(str(uuid.uuid5(NAMESPACE, name)), name, f"{name} of a client that never stops writing", vector)
