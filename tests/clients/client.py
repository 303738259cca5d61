"""What is asked of every engine.

What did not certainly succeed is `Refused`: no connection, a connection that was cut, an error, or an answer of success
with an error inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONNECT = 2  # seconds
PAGE = 500


class Refused(Exception):
    """Not acknowledged: it may or may not have been done."""


@dataclass(frozen=True)
class Row:
    id: str  # a UUID
    name: str
    text: str
    vector: array  # of 32-bit floats, as the engine keeps them; empty where it has no vectors


@dataclass(frozen=True)
class Answer:
    id: str
    name: str
    text: str
    distance: float | None = None  # of vectors


class Client(ABC):
    """One client of one collection; not to be shared between threads."""

    searches = True  # by vectors; else a question is how names begin
    bookkeeping = 0  # what the engine counts besides the rows

    @abstractmethod
    def __init__(self, url: str, api_key: str, collection: str, timeout: float) -> None: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the engine says so itself."""

    @abstractmethod
    def create_collection(self, dimensions: int) -> None: ...

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """Returns when all are acknowledged. A row that exists is replaced, so it may be repeated."""

    @abstractmethod
    def count(self) -> int: ...

    @abstractmethod
    def ask(self, question: array | str, limit: int) -> list[Answer]:
        """The rows nearest to a vector, or those whose names begin so."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """All of them."""
