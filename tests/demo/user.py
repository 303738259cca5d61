"""The database's user: what it was told is written, what it asks, and whether it finds all that again.

Reaches the database only through its address, as any client does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clients import Answer, Client, Refused, Row

from .console import Console
from .questions import Question

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
    def __init__(self, connect: Callable[[], Client], questions: Sequence[Question], console: Console) -> None:
        self._connect, self.questions, self._console = connect, questions, console
        self.acknowledged: dict[str, Row] = {}
        self._answers: list[list[Answer]] = []
        self.connect()

    def connect(self) -> Client:
        """A new client, without the connections of the one before."""
        self.client = self._connect()
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
        self.tell(f"asks: {self.questions[0].text}")
        width = max((len(answer.name) for answer in answers), default=0)
        self._console.rows([f"{distance(a)}{a.name:<{width}}  {a.text.splitlines()[0]}" for a in answers])

    def _ask_all(self) -> list[list[Answer]]:
        return [self._ask(number) for number in range(len(self.questions))]

    def _ask(self, number: int) -> list[Answer]:
        return self.client.ask(self.questions[number].asked, ANSWERS)

    # ---- looking again -----------------------------------------------------------------------------------------------

    def look(self, expected: dict[str, Row]) -> Findings:
        """Every row by its id, name, text and vector; every question by its answers, their order and their distances."""
        rows = {row.id: row for row in self.client.rows()}
        missing = expected.keys() - rows.keys()
        changed = {i for i in expected.keys() & rows.keys() if expected[i] != rows[i]}
        self.tell(
            f"read {len(rows)} rows back: of {len(expected)} expected {len(missing)} missing, {len(changed)} changed"
        )
        same = sum(before == after for before, after in zip(self._answers, self._ask_all(), strict=True))
        self.show()
        how = "at the same distances" if self.client.searches else "in the same order"
        self.tell(f"{same} of {len(self.questions)} questions have the same answers {how} as before")
        return Findings(rows, missing, changed, same)


def distance(answer: Answer) -> str:
    return "" if answer.distance is None else f"{answer.distance:.3f}  "
