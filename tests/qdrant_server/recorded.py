"""The recordings of a real Qdrant 1.18.3, and how an answer is compared with one.

Compared: the status, which headers there are, the content type, and the body by its shape: the same keys with the same
kinds of values; the words of errors with all names, numbers and paths taken out.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).with_name("recordings")
# Maps whose keys are data: segments, files, fields. One value of each is compared.
OPEN_MAPS = ("file_versions", "payload_schema")
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UNREADABLE = "(?s)reached unknown entry: .*"  # then the real server prints what it took for a header
VARIABLE = [UNREADABLE, UUID, "[0-9a-f]{64}", r"/[^\s`\":]*", r"\d{4,}[-\d]*"]


@dataclass
class Recording:
    number: int
    name: str
    request: dict[str, Any]
    response: dict[str, Any]


def recordings(first: int, last: int) -> list[Recording]:
    found = []
    for path in sorted((RECORDINGS / "http").glob("*.json")):
        number = int(path.name[:3])
        if first <= number <= last:
            one = json.loads(path.read_text())
            found.append(Recording(number, one["name"], one["request"], one["response"]))
    return found


def archive(name: str) -> bytes:
    return gzip.decompress((RECORDINGS / "archives" / f"{name}.tar.gz").read_bytes())


def differences(recorded: dict[str, Any], status: int, headers: dict[str, str], body: Any) -> list[str]:
    found = [] if status == recorded["status"] else [f"status {status} instead of {recorded['status']}"]
    headers = {name.lower(): value for name, value in headers.items() if name.lower() != "date"}
    for name in recorded["headers"]:
        if name not in headers:
            found.append(f"no header {name}")
    for name in ("content-type", "transfer-encoding", "content-encoding"):
        if headers.get(name) != recorded["headers"].get(name):
            found.append(f"{name}: {headers.get(name)} instead of {recorded['headers'].get(name)}")
    return found + shape_differences(recorded["body"], body, "body")


def shape_differences(expected: Any, actual: Any, where: str) -> list[str]:
    if isinstance(expected, str) and isinstance(actual, str):
        same = neutral(expected) == neutral(actual) or not where.endswith(("error", "body"))
        return [] if same else [f"{where}: {actual!r} instead of {expected!r}"]
    if isinstance(expected, dict) and isinstance(actual, dict):
        return map_differences(expected, actual, where)
    if isinstance(expected, list) and isinstance(actual, list):
        if bool(expected) != bool(actual):
            return [f"{where}: {len(actual)} entries instead of {len(expected)}"]
        return shape_differences(expected[0], actual[0], where + "[0]") if expected else []
    return [] if kind(expected) == kind(actual) else [f"{where}: {actual!r} instead of {expected!r}"]


def map_differences(expected: dict[str, Any], actual: dict[str, Any], where: str) -> list[str]:
    keyed_by_data = where.endswith(OPEN_MAPS) or any(re.fullmatch(UUID, key) for key in expected)
    if keyed_by_data and expected and actual:
        if where.endswith("file_versions"):
            return []  # a number or null, according to the file
        return shape_differences(next(iter(expected.values())), next(iter(actual.values())), where + ".*")
    found = [f"{where}: {key} is missing" for key in expected.keys() - actual.keys()]
    found += [f"{where}: {key} is too much" for key in actual.keys() - expected.keys()]
    for key in expected.keys() & actual.keys():
        found += shape_differences(expected[key], actual[key], f"{where}.{key}")
    return found


def kind(value: Any) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def neutral(text: str) -> str:
    if re.fullmatch(r"<\d+ bytes>", text):
        return "bytes"
    for pattern in VARIABLE:
        text = re.sub(pattern, "…", text)
    return text


# ---- damaged archives -----------------------------------------------------------------------------------------------

KEEP = object()
Change = Callable[[str, Callable[[], bytes]], Any]  # (name, read) -> the new content, None to leave it out, or KEEP


def damaged(good: bytes) -> dict[str, bytes]:
    """The archives of the recordings 093-124, made from one of this server's."""

    def replaced(part: str, content: bytes | None) -> Change:
        return lambda name, _: content if part in name else KEEP

    return {
        "empty": b"",
        "garbage": bytes(range(128, 256)) * 160,
        "half": good[: len(good) // 2],
        "no-trailer": good[:-1024],
        "same-repacked": repacked(good, lambda _, read: read()),  # without holes
        "no-config": repacked(good, lambda name, _: None if name == "config.json" else KEEP),
        "no-version": repacked(good, lambda name, _: None if name == "version.info" else KEEP),
        "no-shard": repacked(good, replaced("0/", None)),
        "no-shard-config": repacked(good, replaced("0/shard_config.json", None)),
        "no-wal": repacked(good, replaced("0/wal/", None)),
        "wal-garbage": repacked(good, replaced("0/wal/open", b"x" * 4096)),
        "wal-empty-first-index": good,  # the recorded archive was too young to have that file, so this one is whole
        "segment-tar-garbage": repacked(good, replaced("0/segments/", b"x" * 4096)),
        "segment-json-garbage": in_segments(good, replaced("segment.json", b"{")),
        "segment-vectors-missing": in_segments(good, replaced("vector_storage", None)),
        "applied-seq-ahead": good,  # nor did it have that one
    }


def in_segments(archive: bytes, change: Change) -> bytes:
    return repacked(archive, lambda name, read: repacked(read(), change) if name.startswith("0/segments/") else KEEP)


def repacked(archive: bytes, change: Change) -> bytes:
    """The archive with the files changed; what is kept is copied as it is, with its holes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        members = old.getmembers()
        ends = [member.offset for member in members[1:]] + [len(archive) - 1024]
        for member, end in zip(members, ends, strict=True):
            content = change(member.name, lambda member=member: old.extractfile(member).read())
            if content is KEEP:
                out.write(archive[member.offset : end])
                new.offset += end - member.offset
            elif content is not None:
                info = tarfile.TarInfo(member.name)
                info.size = len(content)
                new.addfile(info, io.BytesIO(content))
    return out.getvalue()
