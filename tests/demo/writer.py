"""Clients that never stop: one writes new rows, one after the other, each tried with the same id until it is acknowledged;
another goes on asking.

So what the writer counts as acknowledged is what the database said it has; a connection that is refused or cut counts as
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

from clients import Client, Refused, Row

from .corpus import NAMESPACE
from .questions import Question

PAUSE, RETRY = 0.02, 0.05  # seconds between calls, and between tries


class NeverStops:
    """Does one thing after the other on a thread of its own, and knows how long it was refused."""

    def __init__(self) -> None:
        self.longest_refusal = 0.0  # seconds
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__.lower(), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        raise NotImplementedError

    def _told(self, refused_for: float | None) -> None:
        """Refused for the first time (None), or done after so many seconds of refusals."""

    def _until_done(self, call: Callable[[], object]) -> bool:
        """False when told to stop before it was done."""
        since = None
        while not done(call):
            if since is None:
                since = time.monotonic()
                self._told(None)
            if self._enough.wait(RETRY):
                return False
        if since is not None:
            refusal = time.monotonic() - since
            self.longest_refusal = max(self.longest_refusal, refusal)
            self._told(refusal)
        return not self._enough.wait(PAUSE)


class Writer(NeverStops):
    def __init__(self, client: Client, dimensions: int, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._client, self._tell, self._notes = client, tell, notes(dimensions)
        self.acknowledged: dict[str, Row] = {}
        self._row = next(self._notes)

    def _run(self) -> None:
        while self._until_done(self._write):
            self._row = next(self._notes)

    def _write(self) -> None:
        self._client.write([self._row])
        self.acknowledged[self._row.id] = self._row

    def _told(self, refused_for: float | None) -> None:
        if refused_for is None:
            self._tell(f"{self._row.name}: refused; {len(self.acknowledged)} notes acknowledged so far")
        else:
            self._tell(f"{self._row.name}: acknowledged after {refused_for:.1f} s of refusals")


class Reader(NeverStops):
    def __init__(self, client: Client, question: Question) -> None:
        super().__init__()
        self._client, self._question = client, question

    def _run(self) -> None:
        while self._until_done(lambda: self._client.ask(self._question.asked, 1)):
            pass


def done(call: Callable[[], object]) -> bool:
    try:
        call()
    except Refused:
        return False
    return True


def notes(dimensions: int) -> Iterator[Row]:
    """Their vectors have random directions, which in so many dimensions are nearly at right angles to every question: what
    is written meanwhile changes no answer.
    """
    random = np.random.default_rng(seed=1)
    for number in itertools.count(1):
        name, vector = f"note {number}", random.normal(size=dimensions)
        if dimensions:
            vector /= np.linalg.norm(vector)
        text = f"{name} of a client that never stops writing"
        yield Row(str(uuid.uuid5(NAMESPACE, name)), name, text, array("f", vector))
