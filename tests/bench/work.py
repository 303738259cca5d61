"""The folder that a benchmark works in, with its S3 server; gone afterwards, however the benchmark ends.

In memory (tmpfs) when there is room, so that no disk is measured; else in the cache folder, on disk. The report says
which. The trees that are backed up lie there too, so they are always in memory, or warm in the page cache.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cloud.cloud import CACHE
from local_cloud.processes import Reaper

from .server import Server
from .systems import Place, System
from .tree import emptied, real_copy, remove

MARKER = "PERENNIAL_BENCH"
TMPFS = Path("/dev/shm")
SPARE = 3 << 30  # bytes of memory left to programs
SERVER = CACHE / "bin" / "versitygw"


class NoRoom(Exception):
    """Neither memory nor disk can hold this."""


class Work:
    def __init__(self, need: int) -> None:
        """`need`: bytes, at the fullest moment."""
        self._id = uuid.uuid4().hex
        parent, self.where = roomy(need)
        self.folder = parent / f"perennial-bench-{self._id[:8]}"
        self.tree, self.archive = self.folder / "tree", self.folder / "archive" / "data.tar.zst"

    def __enter__(self) -> Work:
        self.folder.mkdir(parents=True)
        self._reaper = Reaper(MARKER, self._id, self.folder)
        self.server = Server(SERVER, self.folder / "server", {MARKER: self._id})
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._reaper.stop()

    @property
    def environment(self) -> dict[str, str]:
        """Of every command: the server's keys, and the marker by which what is left is found and killed at the end."""
        return {**self.server.credentials, MARKER: self._id}

    def place(self, name: str) -> Place:
        """Fresh, for one system."""
        bucket = f"bench-{name}"
        self.server.new_bucket(bucket)
        return Place(
            tree=self.tree,
            bucket=bucket,
            endpoint=self.server.endpoint,
            environment=self.environment,
            state=emptied(self.folder / "state" / name),
            archive=self.archive,
        )

    def clear(self, system: System) -> None:
        self.server.drop_bucket(system.place.bucket)
        remove(system.place.state)

    # ---- what is in the bucket, and what the system remembers of it ---------------------------------------------------

    def keep(self, system: System) -> None:
        self.server.keep(system.place.bucket, "base")
        real_copy(system.place.state, self._kept_state(system))

    def set_back(self, system: System) -> None:
        self.server.set_back(system.place.bucket, "base")
        real_copy(self._kept_state(system), system.place.state)

    def forget(self, system: System) -> None:
        self.server.forget(system.place.bucket, "base")
        remove(self._kept_state(system))

    def _kept_state(self, system: System) -> Path:
        return self.folder / "kept-state" / system.place.state.name

    # ---- trees --------------------------------------------------------------------------------------------------------

    def variant(self, kind: str) -> Path:
        return self.folder / "variants" / kind

    @contextmanager
    def standing_in(self, kind: str) -> Iterator[None]:
        """The variant is at the place of the base tree meanwhile."""
        base = self.folder / "variants" / "base"
        self.tree.rename(base)
        self.variant(kind).rename(self.tree)
        try:
            yield
        finally:
            self.tree.rename(self.variant(kind))
            base.rename(self.tree)

    def empty(self) -> Path:
        return emptied(self.folder / "restored")

    def copy_of(self, tree: Path) -> Path:
        """Changing it changes nothing else; times are kept."""
        real_copy(tree, self.folder / "restored")
        return self.folder / "restored"

    def settle(self) -> None:
        """What others have written is not to be paid by the next."""
        if self.where != "memory":
            os.sync()


def roomy(need: int) -> tuple[Path, str]:
    if TMPFS.is_dir() and shutil.disk_usage(TMPFS).free >= need and available_memory() >= need + SPARE:
        return TMPFS, "memory"
    folder = CACHE / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free >= need + SPARE:
        return folder, "disk"
    raise NoRoom(f"{need / (1 << 30):.1f} GiB are free neither in {TMPFS} nor in {folder}")


def available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
