"""rclone copy: every file an object, no compression, no archive. More transfers at once than its default of four."""

from __future__ import annotations

from pathlib import Path

from ..measure import Command
from .system import System, first_line, in_cache

PROGRAM = in_cache("rclone")
AT_ONCE = ["--transfers", "16", "--checkers", "16"]


class Rclone(System):
    name, title = "rclone", "rclone copy"

    @classmethod
    def programs(cls) -> list[Path]:
        return [PROGRAM]

    @classmethod
    def version(cls) -> str:
        return first_line(PROGRAM, "version")

    def base(self) -> Command:
        return self._rclone("copy", self.place.tree, self._remote)

    def increment(self) -> Command:
        return self.base()

    def restore(self, into: Path) -> Command:
        return self._rclone("copy", self._remote, into)

    def delta_restore(self, onto: Path) -> Command:
        return self._rclone("sync", self._remote, onto)

    @property
    def _remote(self) -> str:
        return f"bench:{self.place.bucket}/rclone"

    def _rclone(self, *words: str | Path) -> Command:
        return self.command(
            PROGRAM,
            *words,
            *AT_ONCE,
            "--s3-no-check-bucket",
            RCLONE_CONFIG=str(self.place.state / "rclone.conf"),
            RCLONE_CONFIG_BENCH_TYPE="s3",
            RCLONE_CONFIG_BENCH_PROVIDER="Other",
            RCLONE_CONFIG_BENCH_ENV_AUTH="true",
            RCLONE_CONFIG_BENCH_ENDPOINT=self.place.endpoint,
            RCLONE_CONFIG_BENCH_REGION="us-east-1",
        )
