"""The comparison: every system does every job, round by round, so that noise falls on all alike.

In each round the order is another. Increments are taken each from the same base: bucket and local state are set back to
what they were after it. In the first round every increment is restored and compared too; what is restored in the timed
jobs is compared in every round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from .console import say
from .data import MIB, VARIANTS, Data, variant
from .measure import Command, CommandFailed, Cost, run
from .systems import Perennial, S5cmd, System
from .tree import Fingerprint, fingerprint, name_of, remove, total_bytes
from .work import Work

CHANGED = 0.01  # of all bytes
JOBS = ("base", "restore", "delta restore", "verify", *VARIANTS)
ROOM = 7  # times the size of the data: tree, variants, a restored tree, buckets, archives

Costs = dict[str, dict[str, list[Cost]]]  # system -> job -> a cost each round


class Comparison:
    def __init__(self, data: Data, size: int, rounds: int, kinds: Sequence[type[System]]) -> None:
        self.size, self.rounds, self.kinds = size, rounds, kinds
        self.costs: Costs = defaultdict(lambda: defaultdict(list))
        self.failed: dict[str, str] = {}  # system -> what it said
        self.where = ""
        self.facts: dict[str, object] = {}
        self._data = data

    def run(self) -> None:
        with Work(ROOM * self.size) as work:
            self.where = work.where
            expected = self._make(work)
            for number in range(self.rounds):
                for kind in turned(self.kinds, number):
                    if kind.name not in self.failed and not (kind.once and number):
                        self._let(kind, Turn(work, expected, thorough=number == 0), number)

    def _let(self, kind: type[System], turn: Turn, number: int) -> None:
        say(f"round {number + 1} of {1 if kind.once else self.rounds}: {kind.title}")
        try:
            for job, cost in turn.take(kind):
                self.costs[kind.name][job].append(cost)
                say(f"    {job}: {cost.seconds:.2f} s")
        except CommandFailed as problem:  # the others go on; a wrong result is another thing and ends it all
            self.failed[kind.name] = str(problem)
            say(f"{kind.title} failed and is left out from here: {problem}")

    def _make(self, work: Work) -> dict[str, Fingerprint]:
        say(f"making {self.size // MIB} MiB of data, in {work.where}")
        self._data.make(work.tree, self.size)
        changed = int(self.size * CHANGED) // 512 * 512
        expected = {"nothing": fingerprint(work.tree)}
        for kind in VARIANTS:
            if kind != "nothing":
                variant(work.tree, work.variant(kind), kind, changed)
                expected[kind] = fingerprint(work.variant(kind))
        self.facts = {
            "bytes": total_bytes(work.tree),
            "files": len(expected["nothing"]),
            "changed_bytes": changed,
            "sha256_of_names_and_contents": name_of(expected["nothing"]),
        }
        if S5cmd in self.kinds:
            make_archive(work, own=Perennial in self.kinds)
            self.facts["archive_bytes"] = work.archive.stat().st_size
        return expected


class Turn:
    """One system's jobs in one round."""

    def __init__(self, work: Work, expected: dict[str, Fingerprint], thorough: bool) -> None:
        self._work, self._expected, self._thorough = work, expected, thorough

    def take(self, kind: type[System]) -> Iterator[tuple[str, Cost]]:
        """Each job with its cost as soon as it is done, so that a job that fails loses only itself and the later ones."""
        system = kind(self._work.place(kind.name))
        try:
            yield from self._jobs(system)
        except CommandFailed:
            self._leave(system)
            raise
        self._leave(system)

    def _leave(self, system: System) -> None:
        """Not when the benchmark is interrupted: then the system may still be at work, and all is removed at the end."""
        self._work.forget(system)
        self._work.clear(system)

    def _jobs(self, system: System) -> Iterator[tuple[str, Cost]]:
        if first := system.prepare():
            run(first)
        yield "base", self._measured(system, system.base())
        if system.increment():
            self._work.keep(system)
        into = self._work.empty()
        yield "restore", self._measured(system, system.restore(into))
        system.check(into, self._expected["nothing"], "the restored base")
        if system.delta_restore(into):
            onto = self._work.copy_of(self._work.variant("random"))
            yield "delta restore", self._measured(system, system.delta_restore(onto))
            system.check(onto, self._expected["nothing"], "the base restored over a changed tree")
        if verify := system.verify():
            yield "verify", self._measured(system, verify)
        if system.increment():
            for kind in VARIANTS:
                yield kind, self._increment(system, kind)

    def _increment(self, system: System, kind: str) -> Cost:
        self._work.set_back(system)
        if kind == "nothing":
            return self._measured(system, system.increment())
        with self._work.standing_in(kind):
            cost = self._measured(system, system.increment())
            if self._thorough:
                into = self._work.empty()
                run(system.restore(into))
                system.check(into, self._expected[kind], f"restored after the increment `{kind}`")
            return cost

    def _measured(self, system: System, command: Command) -> Cost:
        self._work.settle()
        return self._work.server.measured(system.place.bucket, command)


def make_archive(work: Work, own: bool) -> None:
    """What s5cmd moves: the same bytes as Perennial, where that takes part."""
    work.archive.parent.mkdir()
    if own:
        made = Perennial.archive(work.tree, work.archive.parent / "repository", work.environment)
        made.rename(work.archive)
        remove(work.archive.parent / "repository")
        return
    script = 'tar -C "$TREE" -cf - . | zstd -q -3 -c > "$ARCHIVE"'
    paths = {"TREE": str(work.tree), "ARCHIVE": str(work.archive)}
    run(Command(["bash", "-c", f"set -euo pipefail; {script}"], {**work.environment, **paths}))


def turned(kinds: Sequence[type[System]], number: int) -> list[type[System]]:
    at = number % len(kinds) if kinds else 0
    return [*kinds[at:], *kinds[:at]]
