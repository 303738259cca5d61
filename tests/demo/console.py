"""What the demo prints: chapters, and lines of the shape `time  who  what`. Colours on a terminal only."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time

WIDTH, INDENT = 120, 27
BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


class Console:
    def __init__(self, out=sys.stdout) -> None:
        self._out, self._lock = out, threading.Lock()
        self._coloured = out.isatty() and "NO_COLOR" not in os.environ
        self._since = time.monotonic()
        self._number = 0

    def chapter(self, title: str) -> None:
        """From here on times count from now."""
        self._number += 1
        self._since = time.monotonic()
        self._print("", self._painted(BOLD, f"{self._number}. {title}"))

    def line(self, who: str, what: str) -> None:
        """Something happened just now."""
        at = f"{time.monotonic() - self._since:8.1f} s"
        first, *more = wrapped(what) or [""]
        self._print(f"{self._painted(DIM, at)}  {who:<13}  {first}", *(" " * INDENT + line for line in more))

    def list(self, points: list[str]) -> None:
        """Details of the line before."""
        for point in points:
            first, *more = wrapped(f"- {point}")
            self._print(" " * INDENT + first, *(" " * INDENT + "  " + line for line in more))

    def rows(self, rows: list[str]) -> None:
        """The same for the rows of a table, which are cut to the width."""
        for row in rows:
            self._print(" " * INDENT + (row if len(row) <= WIDTH - INDENT else row[: WIDTH - INDENT - 3] + "..."))

    def block(self, text: str) -> None:
        """A text as it is, set off by a bar."""
        bar = self._painted(DIM, "|")
        self._print("", *(f"    {bar} {line}".rstrip() for line in text.rstrip().splitlines()))

    def plain(self, *lines: str) -> None:
        self._print(*lines)

    def good(self, text: str) -> None:
        self._print("", self._painted(GREEN, text))

    def bad(self, text: str) -> None:
        self._print("", self._painted(RED, text))

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def _print(self, *lines: str) -> None:
        with self._lock:
            print(*lines, sep="\n", file=self._out, flush=True)


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - INDENT - 2, break_long_words=False, break_on_hyphens=False)
