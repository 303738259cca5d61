"""Where the figures come from: the machine, and the version of every program."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from .systems import System
from .systems.system import first_line, on_path, stamped


def machine() -> dict[str, object]:
    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": int(field("/proc/meminfo", "MemTotal").split()[0]) * 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "load_at_start": os.getloadavg()[0],
    }


def programs(kinds: Sequence[type[System]]) -> dict[str, str]:
    found = {kind.title: kind.version() for kind in kinds if not kind.missing()}
    found["S3 server"] = stamped("versitygw")
    found["Python"] = platform.python_version()
    for tool in on_path("tar", "zstd"):
        found[tool.name] = first_line(tool, "--version").strip("* ")
    return found


def field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
