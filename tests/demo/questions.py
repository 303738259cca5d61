"""What the user asks: by meaning where the engine searches vectors, else which names begin in some way. Either way the answers
are rows of the database in a fixed order, so "answered the same" means the same.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from .embed import Embedder

BY_MEANING = [
    "Which function parses an ISO date string?",
    "How do I find the median of a list of numbers?",
    "How do I compress a file with gzip?",
    "How do I send an e-mail over SMTP?",
    "How do I sort a graph of dependencies topologically?",
    "How do I decode base64 data?",
    "How do I read the rows of a CSV file?",
    "How do I walk through all files below a folder?",
]
BY_NAME = ["datetime.date", "statistics.", "gzip.", "smtplib.", "graphlib.", "base64.", "csv.", "os."]


@dataclass(frozen=True)
class Question:
    text: str
    asked: array | str  # a vector, or how names begin


def by_meaning(embedder: Embedder) -> list[Question]:
    return [Question(text, array("f", vector)) for text, vector in zip(BY_MEANING, embedder(BY_MEANING), strict=True)]


def by_name() -> list[Question]:
    return [Question(f"Which names begin with {name!r}?", name) for name in BY_NAME]
