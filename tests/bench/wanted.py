"""What Perennial wants to reach beside the others, and whether it does. Its own bytes and memory fail the benchmark; timing, and what
depends on another system, never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .data import MIB, VARIANTS
from .extras import Row, SmallChunks
from .figures import Figures, figure
from .systems import Perennial

US, PEER, FLOOR = "perennial", "restic", "s5cmd"
MOST_MEMORY = 256 * MIB
LARGEST_SIZE = 4096 * MIB


@dataclass(frozen=True)
class Wish:
    what: str
    limit: float
    below: bool  # less than the limit, not equal to it
    found: float | None  # None: not measured
    unit: str = ""
    binding: bool = False  # the benchmark fails where it does not hold

    @property
    def holds(self) -> bool | None:
        if self.found is None:
            return None
        return self.found < self.limit if self.below else self.found <= self.limit


def wishes(found: Figures, changed: int, extras: dict[str, list[Row]]) -> list[Wish]:
    return [*of_time(found), *of_bytes(found, changed), *of_extras(found, extras)]


def of_time(found: Figures) -> Iterator[Wish]:
    def times(job: str, other: str) -> float | None:
        return ratio(figure(found, US, job, "seconds"), figure(found, other, job, "seconds"))

    yield Wish("base backup / s5cmd upload of the ready archive, seconds", 1.0, False, times("base", FLOOR))
    yield Wish("base backup / restic, seconds", 0.35, False, times("base", PEER))
    yield Wish("restore / s5cmd download of the ready archive, seconds", 1.5, False, times("restore", FLOOR))
    yield Wish("restore / restic, seconds", 0.5, True, times("restore", PEER))
    for kind in VARIANTS:
        yield Wish(f"increment ({kind}) / restic, seconds", 0.25, False, times(kind, PEER))
    idle = figure(found, US, "nothing", "over_requests_seconds")
    yield Wish("nothing changed, over its requests", 100, True, None if idle is None else idle * 1000, "ms")


def of_bytes(found: Figures, changed: int) -> Iterator[Wish]:
    for kind in ("block", "append"):
        sent = ratio(figure(found, US, kind, "uploaded_bytes"), changed)
        yield Wish(f"increment ({kind}), uploaded / changed bytes", 1.3, False, sent, binding=True)
    sent = ratio(figure(found, US, "random", "uploaded_bytes"), figure(found, PEER, "random", "uploaded_bytes"))
    yield Wish("increment (random), uploaded bytes / restic", 0.5, True, sent)


def of_extras(found: Figures, extras: dict[str, list[Row]]) -> Iterator[Wish]:
    for name, system, how, binding in (
        ("days", Perennial, "appended and in blocks", True),
        ("days, scattered", SmallChunks, "at random places, chunk_size: 2KiB", True),
        ("days, scattered", Perennial, "at random places, chunk_size by default", False),
    ):
        week = one(extras.get(name, []), lambda row, title=system.title: row.get("system") == title)
        what = f"seven daily increments of 5 % {how} / seven full ones, stored"
        yield Wish(what, 0.30, False, week and week["share"], binding=binding)
    peaks = [job["peak_bytes"] for job in found.get(US, {}).values()]
    yield Wish("peak memory of any job", MOST_MEMORY / MIB, False, max(peaks) / MIB if peaks else None, "MiB", True)
    large = one(extras.get("sizes", []), lambda row: row.get("system") == "Perennial" and row["bytes"] == LARGEST_SIZE)
    for job in ("base", "restore"):
        peak = large and large[f"{job}_peak_bytes"] / MIB
        yield Wish(f"peak memory of a {job} of 4 GiB", MOST_MEMORY / MIB, False, peak, "MiB", True)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def one(rows: list[Row], wanted: Callable[[Row], bool]) -> Row | None:
    return next((row for row in rows if wanted(row)), None)
