"""The database's user: what it was told is written, what it asks, and whether it finds all that again.

Reaches the database only through its address, as any client does.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from .console import Console
from .embed import Embedder
from .weaviate_client import Answer, Refused, Row, Weaviate

COLLECTION = "Docstring"
QUESTIONS = [
    "Which function parses an ISO date string?",
    "How do I find the median of a list of numbers?",
    "How do I compress a file with gzip?",
    "How do I send an e-mail over SMTP?",
    "How do I sort a graph of dependencies topologically?",
    "How do I decode base64 data?",
    "How do I read the rows of a CSV file?",
    "How do I walk through all files below a folder?",
]
ANSWERS, SHOWN = 10, 3
BATCH = 250


@dataclass(frozen=True)
class Findings:
    """What is there now, against what should be."""

    rows: dict[str, Row]
    missing: set[str]
    changed: set[str]
    same_answers: int


class User:
    def __init__(self, url: str, api_key: str, embedder: Embedder, console: Console) -> None:
        self.url, self._api_key, self._console = url, api_key, console
        self.acknowledged: dict[str, Row] = {}
        self._vectors = [array("f", vector) for vector in embedder(QUESTIONS)]
        self._answers: list[list[Answer]] = []
        self.connect()

    def connect(self) -> Weaviate:
        """A new client, without the connections of the one before."""
        self.client = Weaviate(self.url, self._api_key, COLLECTION)
        return self.client

    def tell(self, what: str) -> None:
        self._console.line("client", what)

    def write(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            self.client.write(batch)
            self.acknowledged.update((row.id, row) for row in batch)

    # ---- asking ------------------------------------------------------------------------------------------------------

    def is_answered(self) -> bool:
        try:
            return bool(self._ask(0))
        except Refused:
            return False

    def ask(self) -> None:
        """All questions; their answers are what `look` compares with."""
        self._answers = self._ask_all()

    def show(self) -> None:
        """One question, and the answers of now."""
        answers = self._ask(0)[:SHOWN]
        self.tell(f"asks: {QUESTIONS[0]}")
        width = max(len(answer.name) for answer in answers)
        self._console.rows([f"{a.distance:.3f}  {a.name:<{width}}  {a.text.splitlines()[0]}" for a in answers])

    def _ask_all(self) -> list[list[Answer]]:
        return [self._ask(number) for number in range(len(QUESTIONS))]

    def _ask(self, number: int) -> list[Answer]:
        return self.client.nearest(self._vectors[number], ANSWERS)

    # ---- looking again -----------------------------------------------------------------------------------------------

    def look(self, expected: dict[str, Row]) -> Findings:
        """Every row by its id, name, text and vector; every question by its answers and their distances."""
        rows = {row.id: row for row in self.client.rows()}
        missing = expected.keys() - rows.keys()
        changed = {i for i in expected.keys() & rows.keys() if expected[i] != rows[i]}
        self.tell(
            f"read {len(rows)} rows back: of {len(expected)} expected {len(missing)} missing, {len(changed)} changed"
        )
        same = sum(before == after for before, after in zip(self._answers, self._ask_all(), strict=True))
        self.show()
        self.tell(
            f"{same} of {len(QUESTIONS)} questions have the same {ANSWERS} answers at the same distances as before"
        )
        return Findings(rows, missing, changed, same)
