"""s5cmd moving the finished archive: what the bytes alone cost, as if reading, hashing and compressing were free. It does not
unpack either.
"""

from __future__ import annotations

from pathlib import Path

from ..measure import Command
from ..tree import Fingerprint
from .system import System, in_cache, must_equal_file, on_path, stamped

PROGRAM = in_cache("s5cmd")
PARTS = ["--concurrency", "8", "--part-size", "16"]


class S5cmd(System):
    name, title = "s5cmd", "s5cmd of the ready archive"

    @classmethod
    def programs(cls) -> list[Path]:
        return [PROGRAM, *on_path("bash", "tar", "zstd")]  # these make the archive

    @classmethod
    def version(cls) -> str:
        return stamped("s5cmd")

    def base(self) -> Command:
        return self._copy(self.place.archive, self._object)

    def restore(self, into: Path) -> Command:
        return self._copy(self._object, into / self.place.archive.name)

    def check(self, restored: Path, expected: Fingerprint, what: str) -> None:
        must_equal_file(restored / self.place.archive.name, self.place.archive, f"{self.title}: {what}")

    @property
    def _object(self) -> str:
        return f"s3://{self.place.bucket}/s5cmd/{self.place.archive.name}"

    def _copy(self, source: str | Path, target: str | Path) -> Command:
        return self.command(PROGRAM, "--endpoint-url", self.place.endpoint, "cp", *PARTS, source, target)
