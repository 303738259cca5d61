"""Beside the comparison: what Perennial's chunk size does, how cost grows with size and with the number of files, and what a week
of increments stores. Each once or a few times, and with restic beside Perennial where it has the notion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .console import say
from .data import MIB, Data, day, variant
from .measure import CommandFailed, Cost, run
from .rounds import CHANGED
from .systems import Perennial, Place, Restic, System
from .tree import fingerprint, remove, total_bytes
from .work import NoRoom, Work

CHUNK_SIZES = ("2KiB", "4KiB", "16KiB", "64KiB", "256KiB", "1MiB")
SIZES = (64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB)
TIMES = {64 * MIB: 3, 256 * MIB: 3}  # the others once
COUNTS = (10, 1_000, 10_000, 100_000)
SMALL_FILE = 8 * 1024  # bytes on average, generously, for the room it takes
DAYS, DAILY = 7, 0.05
COMPARED = (Perennial, Restic)

Row = dict[str, object]


def extras(data: Data, size: int) -> Iterator[tuple[str, list[Row]]]:
    present = [kind for kind in COMPARED if not kind.missing()]
    if Perennial in present:
        yield "chunk sizes", tried(lambda: chunk_sizes(data, size))
    yield "sizes", [row for each in SIZES for row in tried(lambda each=each: by_size(data, each, present))]
    yield "files", [row for each in COUNTS for row in tried(lambda each=each: by_count(data, each, present))]
    yield "days", tried(lambda: days(data, size, present, scattered=False))
    small = [SmallChunks] if Perennial in present else []
    yield "days, scattered", tried(lambda: days(data, size, [*present, *small], scattered=True))


def tried(do: Callable[[], list[Row]]) -> list[Row]:
    """What cannot be done here is a row that says so; a wrong result is not caught."""
    try:
        return do()
    except (NoRoom, CommandFailed) as problem:
        say(f"not measured: {problem}")
        return [{"not_measured": str(problem)}]


# ---- chunk sizes -----------------------------------------------------------------------------------------------------


def chunk_sizes(data: Data, size: int) -> list[Row]:
    changed, rows = int(size * CHANGED) // 512 * 512, []
    with Work(5 * size) as work:
        data.make(work.tree, size)
        variant(work.tree, work.variant("random"), "random", changed)
        for chunk_size in CHUNK_SIZES:
            say(f"chunks of {chunk_size}")
            system = Perennial(work.place("perennial"), chunk_size)
            base = measured(work, system, system.base)
            with work.standing_in("random"):
                increment = measured(work, system, system.increment)
                restore = restored(work, system, f"with chunks of {chunk_size}")
            rows.append(
                {
                    "chunk_size": chunk_size,
                    "base_seconds": base.seconds,
                    "base_stored_bytes": base.stored_bytes,
                    "increment_seconds": increment.seconds,
                    "increment_uploaded_bytes": increment.uploaded_bytes,
                    "amplification": increment.uploaded_bytes / changed,
                    "restore_seconds": restore.seconds,
                }
            )
            work.clear(system)
    return rows


# ---- size, and number of files ---------------------------------------------------------------------------------------


def by_size(data: Data, size: int, kinds: Sequence[type[System]]) -> list[Row]:
    with Work(int(3.5 * size)) as work:
        say(f"{size // MIB} MiB")
        data.make(work.tree, size)
        return [{"bytes": size, **row} for row in costs(work, kinds, TIMES.get(size, 1))]


def by_count(data: Data, number: int, kinds: Sequence[type[System]]) -> list[Row]:
    with Work(4 * number * SMALL_FILE + 64 * MIB) as work:
        say(f"{number} files")
        data.make_small(work.tree, number)
        return [{"files": number, "bytes": total_bytes(work.tree), **row} for row in costs(work, kinds, 1)]


def costs(work: Work, kinds: Sequence[type[System]], times: int) -> Iterator[Row]:
    """Backup, another of nothing new, and a restore."""
    taken: dict[str, list[dict[str, Cost]]] = {kind.title: [] for kind in kinds}
    for _ in range(times):
        for kind in kinds:
            system = kind(work.place(kind.name))
            prepared(system)
            jobs = {"base": measured(work, system, system.base)}
            jobs["nothing"] = measured(work, system, system.increment)
            jobs["restore"] = restored(work, system, "the whole")
            taken[kind.title].append(jobs)
            work.clear(system)
    for title, turns in taken.items():
        row: Row = {"system": title, "times": times}
        for job in ("base", "nothing", "restore"):
            row[f"{job}_seconds"] = statistics.median(turn[job].seconds for turn in turns)
            row[f"{job}_peak_bytes"] = max(turn[job].peak_bytes for turn in turns)
        yield row


# ---- a week ----------------------------------------------------------------------------------------------------------


class SmallChunks(Perennial):
    """As somebody sets it up whose small vectors are overwritten all over the files."""

    title = "Perennial, chunk_size: 2KiB"

    def __init__(self, place: Place) -> None:
        super().__init__(place, "2KiB")


def days(data: Data, size: int, kinds: Sequence[type[System]], *, scattered: bool) -> list[Row]:
    rows = []
    for kind in kinds:
        say(f"seven days of {kind.title}, {'scattered' if scattered else 'appended and in blocks'}")
        with Work(int((4 + DAYS) * size)) as work:
            data.make(work.tree, size)
            rows.append(week(work, kind, int(size * DAILY) // 512 * 512, scattered))
    return rows


def week(work: Work, kind: type[System], daily: int, scattered: bool) -> Row:
    """Increments into one bucket, and each day a full one into a bucket that is dropped again."""
    system, full, increments, seconds = kind(work.place(kind.name)), 0, 0, []
    prepared(system)
    base = measured(work, system, system.base)
    for number in range(1, DAYS + 1):
        day(work.tree, number, daily, scattered)
        cost = measured(work, system, system.increment)
        increments += cost.uploaded_bytes
        seconds.append(cost.seconds)
        other = kind(work.place(f"{kind.name}-full"))
        prepared(other)
        full += measured(work, other, other.base).stored_bytes
        work.clear(other)
    restored(work, system, f"after {DAYS} days")
    return {
        "system": kind.title,
        "base_stored_bytes": base.stored_bytes,
        "increments_bytes": increments,
        "full_bytes": full,
        "share": increments / full,
        "median_increment_seconds": statistics.median(seconds),
    }


# ---- helps -----------------------------------------------------------------------------------------------------------


def prepared(system: System) -> None:
    if first := system.prepare():
        run(first)


def measured(work: Work, system: System, job: Callable) -> Cost:
    work.settle()
    return work.server.measured(system.place.bucket, job())


def restored(work: Work, system: System, what: str) -> Cost:
    """The newest, compared with the tree that stands there."""
    into: Path = work.empty()
    cost = measured(work, system, lambda: system.restore(into))
    system.check(into, fingerprint(work.tree), what)
    remove(into)
    return cost
