"""Perennial itself. All that the benchmark knows of its command line and settings is in this file."""

from __future__ import annotations

from pathlib import Path

import yaml

from local_cloud.cloud import built

from ..measure import Command, run
from .system import Place, System, first_line

PROGRAM = built("perennial", "release")


class Perennial(System):
    name, title = "perennial", "Perennial"

    def __init__(self, place: Place, chunk_size: str | None = None) -> None:
        super().__init__(place)
        self._chunk_size = chunk_size

    @classmethod
    def programs(cls) -> list[Path]:
        return [PROGRAM]

    @classmethod
    def version(cls) -> str:
        return first_line(PROGRAM, "--version")

    def prepare(self) -> None:
        self._settings_for(self.place.tree)

    def base(self) -> Command:
        return self._perennial(self.place.tree, "backup", "create", "--type", "base")

    def increment(self) -> Command:
        return self._perennial(self.place.tree, "backup", "create", "--type", "incremental")

    def restore(self, into: Path) -> Command:
        return self._perennial(into, "backup", "restore")

    def delta_restore(self, onto: Path) -> Command:
        return self._perennial(onto, "backup", "restore", "--replace", "--yes")

    def verify(self) -> Command:
        return self._perennial(self.place.tree, "backup", "verify", "--again")

    @classmethod
    def archive(cls, tree: Path, into: Path, environment: dict[str, str]) -> Path:
        """The archive of a base of the tree, as a file."""
        into.mkdir()
        target = {"name": "bench", "engine": "files", "data_dir": str(tree), "repository": f"file://{into}"}
        (into / "bench.yaml").write_text(yaml.safe_dump(target, sort_keys=False))
        words = [str(PROGRAM), "--target", str(into / "bench.yaml"), "--quiet", "backup", "create"]
        run(Command(words, {**environment, "PERENNIAL_STATE_DIR": str(into / "state")}))
        (made,) = into.glob("backups/*/data-*.tar.zst")
        return made

    def _perennial(self, data: Path, *words: str) -> Command:
        return self.command(
            PROGRAM,
            "--target",
            self._settings_for(data),
            "--json",
            "--quiet",
            *words,
            AWS_ENDPOINT_URL=self.place.endpoint,
            PERENNIAL_STATE_DIR=str(self.place.state / "state"),
        )

    def _settings_for(self, data: Path) -> Path:
        """One target; only the folder of the data differs."""
        settings = {
            "name": "bench",
            "engine": "files",
            "data_dir": str(data),
            "repository": f"s3://{self.place.bucket}/perennial",
        }
        if self._chunk_size:
            settings["archive"] = {"chunk_size": self._chunk_size}
        path = self.place.state / f"{data.name}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return path
