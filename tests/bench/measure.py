"""Commands, and what running one cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METER = Path(__file__).with_name("meter.py")
LAST_WORDS = 3000  # characters of a failed command's output


@dataclass(frozen=True)
class Command:
    words: list[str]
    environment: Mapping[str, str]
    folder: Path | None = None  # where it runs


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    others_cpu_seconds: float  # what the machine worked meanwhile for neither the command nor the server
    server_cpu_seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    request_seconds: float = 0.0  # as the server measured them, added up
    uploaded_bytes: int = 0
    stored_bytes: int = 0


class CommandFailed(Exception):
    """A system did not do what it was told; the message has its last words."""


def run(command: Command) -> Cost:
    """Costs of the server are not in it: server.py adds them."""
    with tempfile.TemporaryDirectory(prefix="bench-meter-") as folder:
        report, log = Path(folder, "report.json"), Path(folder, "output")
        subprocess.run(
            [sys.executable, "-S", "-E", str(METER), str(report), str(log), *command.words],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **command.environment},
            cwd=command.folder,
            check=True,
        )
        figures = json.loads(report.read_text())
        if figures["code"]:
            said = log.read_text(errors="replace")[-LAST_WORDS:]
            raise CommandFailed(f"`{' '.join(command.words)}` ended with code {figures['code']}:\n{said}")
    return Cost(
        seconds=figures["seconds"],
        cpu_seconds=figures["cpu_seconds"],
        peak_bytes=figures["peak_bytes"],
        others_cpu_seconds=max(0.0, figures["machine_cpu_seconds"] - figures["cpu_seconds"]),
    )
