"""What every system is asked for."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cloud.cloud import CACHE

from ..measure import Command
from ..tree import Differs, Fingerprint, must_equal, sha256

STAMPS = CACHE / "stamps"


@dataclass(frozen=True)
class Place:
    """Where a system works. The bucket exists and is empty, so is the state folder, at first."""

    tree: Path  # what is backed up
    bucket: str
    endpoint: str
    environment: dict[str, str]  # of every command
    state: Path  # settings, caches and local copies of the system
    archive: Path  # data.tar.zst of the tree, made beforehand


class System:
    name: str
    title: str
    once = False  # so slow that it is measured once

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def programs(cls) -> list[Path]:
        """Every program that it needs; those that are on the PATH may be given by name."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str:
        """Why it cannot take part; empty when it can."""
        for program in cls.programs():
            if not shutil.which(program):
                stamp = STAMPS / f"{program.name}.missing"
                reason = stamp.read_text().strip() if stamp.is_file() else HOW_TO_INSTALL.get(program.name, "")
                return f"{program.name} is not installed. {reason or 'Run tests/setup --bench-tools'}"
        return ""

    def prepare(self) -> Command | None:
        """What comes before the first backup and is not measured. Settings are written here."""
        return None

    def base(self) -> Command:
        raise NotImplementedError

    def increment(self) -> Command | None:
        """None: it has no notion of it and does the whole again."""
        return None

    def restore(self, into: Path) -> Command:
        """The newest, into an empty folder."""
        raise NotImplementedError

    def delta_restore(self, onto: Path) -> Command | None:
        """The newest, over a tree that differs from it. None: it has no notion of it."""
        return None

    def verify(self) -> Command | None:
        """Read all that is stored and check it. None: it has no notion of it."""
        return None

    def check(self, restored: Path, expected: Fingerprint, what: str) -> None:
        """Is what was restored what it should be? `Differs` if not."""
        must_equal(restored, expected, f"{self.title}: {what}")

    # ---- helps --------------------------------------------------------------------------------------------------------

    def command(self, *words: str | Path, folder: Path | None = None, **environment: str) -> Command:
        everybody = {"HOME": str(self.place.state), **self.place.environment}
        return Command([str(word) for word in words], {**everybody, **environment}, folder)

    def shell(self, script: str, **environment: str) -> Command:
        return self.command("bash", "-c", f"set -euo pipefail; {script}", **environment)


HOW_TO_INSTALL = {
    "zstd": "On Debian and Ubuntu: sudo apt-get install zstd",
    "tar": "On Debian and Ubuntu: sudo apt-get install tar",
    "sha256sum": "On Debian and Ubuntu: sudo apt-get install coreutils",
    "bash": "On Debian and Ubuntu: sudo apt-get install bash",
    "perennial": "Build it: make build-release",
}


def first_line(*command: str | Path) -> str:
    """Of what a program says about its version."""
    said = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return next((line.strip() for line in (said.stdout + said.stderr).splitlines() if line.strip()), "unknown")


def stamped(tool: str) -> str:
    """The version that tests/setup installed, for programs that do not know their own."""
    stamp = STAMPS / tool
    return f"{tool} {stamp.read_text().strip() if stamp.is_file() else 'of unknown version'}"


def must_equal_file(found: Path, expected: Path, what: str) -> None:
    if sha256(found) != sha256(expected):
        raise Differs(f"{what}: {found.name} is another than was uploaded")


def on_path(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def in_cache(name: str, folder: str = "bin") -> Path:
    return CACHE / folder / name
