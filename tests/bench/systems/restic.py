"""restic, with its defaults."""

from __future__ import annotations

from pathlib import Path

from ..measure import Command
from .system import System, first_line, in_cache

PROGRAM = in_cache("restic")


class Restic(System):
    name, title = "restic", "restic"

    @classmethod
    def programs(cls) -> list[Path]:
        return [PROGRAM]

    @classmethod
    def version(cls) -> str:
        return " ".join(first_line(PROGRAM, "version").split()[:2])

    def prepare(self) -> Command:
        return self._restic("init")

    def base(self) -> Command:
        return self._restic("backup", ".", folder=self.place.tree)

    def increment(self) -> Command:
        return self.base()

    def restore(self, into: Path) -> Command:
        return self._restic("restore", "latest", "--target", into)

    def delta_restore(self, onto: Path) -> Command:
        """It overwrites what differs and fetches only that."""
        return self._restic("restore", "latest", "--target", onto, "--delete")

    def verify(self) -> Command:
        return self._restic("check", "--read-data")

    def _restic(self, *words: str | Path, folder: Path | None = None) -> Command:
        return self.command(
            PROGRAM,
            "--quiet",
            *words,
            folder=folder,
            RESTIC_REPOSITORY=f"s3:{self.place.endpoint}/{self.place.bucket}/restic",
            RESTIC_PASSWORD="bench",
            RESTIC_CACHE_DIR=str(self.place.state / "cache"),
        )
