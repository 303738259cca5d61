"""Small files that are either old or new, never half, and the folders around them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    write(path, json.dumps(value, indent=indent, separators=None if indent else (",", ":")).encode())


def write(path: Path, data: bytes) -> None:
    """Replaces the file in one step."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    os.replace(beside, path)


def read_json(path: Path, default: Any = None) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default


def temporary(root: Path, prefix: str, suffix: str = "") -> Path:
    """A name in the folder that nobody has; the name is taken by a folder, which is removed again."""
    path = Path(tempfile.mkdtemp(prefix=prefix + "-", suffix=suffix, dir=root))
    path.rmdir()
    return path
