"""Snapshots on disk: making, listing, finding and deleting them.

    <snapshots>/<collection>/<collection>-<peer>-<time>.snapshot              and .checksum beside each
    <snapshots>/<collection>/shards/<shard>/<collection>-shard-<shard>-<time>.snapshot
    <snapshots>/full-snapshot-<time>.snapshot

An archive appears under its name when it is complete, its checksum a moment before. Names have seconds: the second
snapshot within one replaces the first, and both were answered with success; so it is on the real server. A crash
leaves files in tmp/, which the next start wipes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import archives, tar
from .collection import Collection
from .errors import not_found
from .files import read_json, temporary, write, write_json
from .node import Node
from .shard import Shard

Json = dict[str, Any]


# ---- making ---------------------------------------------------------------------------------------------------------


def create_collection_snapshot(node: Node, name: str) -> Json:
    collection = node.collection(name)
    final = collection_folder(node, name) / f"{collection.name}-{node.peer}-{now()}.snapshot"
    with counted(node, "creation", collection.name), work_folder(node, f"{collection.name}-snapshot") as work:
        for number, shard in collection.shards.items():
            archives.stage_with_log(shard, work / str(number))
        with (work / "archive").open("wb") as file:
            write_collection(tar.Writer(file), collection, work)
        publish(work / "archive", final)
    node.created[collection.name] += 1
    return describe(final)


def write_collection(archive: tar.Writer, collection: Collection, work: Path) -> None:
    for number, shard in collection.shards.items():
        archives.write_staged(archive, f"{number}/", work / str(number), shard)
    for name in ("version.info", "config.json", "shard_key_mapping.json", "payload_index.json"):
        archive.add_bytes(name, (collection.folder / name).read_bytes())
    archive.finish()


def create_shard_snapshot(node: Node, name: str, number: int) -> Json:
    collection = node.collection(name)
    shard = collection.shard(number)
    final = shard_folder(node, name, number) / f"{collection.name}-shard-{number}-{now()}.snapshot"
    with counted(node, "creation", collection.name), work_folder(node, f"{collection.name}-shard") as work:
        with (work / "archive").open("wb") as file:
            archives.write_shard(tar.Writer(file), shard, work)
        publish(work / "archive", final)
    node.created[collection.name] += 1
    return describe(final)


def create_full_snapshot(node: Node) -> Json:
    """All collections, one after the other, and the aliases. The snapshots of the collections go into it, what stays of
    each is its checksum file; so it is on the real server."""
    with node.lock:
        names, aliases = sorted(node.collections), dict(node.aliases)
    parts = {name: create_collection_snapshot(node, name)["name"] for name in names}
    final = node.snapshots / f"full-snapshot-{now()}.snapshot"
    with work_folder(node, "full-snapshot") as work:
        write_json(work / "config.json", {"collections_mapping": parts, "collections_aliases": aliases}, indent=2)
        with (work / "archive").open("wb") as file:
            archive = tar.Writer(file)
            for name, part in parts.items():
                archive.add_file(part, node.snapshots / name / part)
            archive.add_file("config.json", work / "config.json")
            archive.finish()
        publish(work / "archive", final)
    for name, part in parts.items():
        (node.snapshots / name / part).unlink(missing_ok=True)
    return describe(final)


def stream_shard(node: Node, collection: Collection, shard: Shard, known: Json | None = None) -> tuple[Path, str]:
    """The archive as a file in tmp/, which the caller sends and removes, and its name for the client."""
    path = temporary(node.tmp, f"{collection.name}-shard-stream")
    with counted(node, "creation", collection.name), work_folder(node, f"{collection.name}-shard") as work:
        try:
            with path.open("wb") as file:
                archives.write_streamed(tar.Writer(file), shard, work, known)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path, f"{collection.name}-shard-{shard.number}-{now()}.snapshot"


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d-%H-%M-%S")


@contextlib.contextmanager
def counted(node: Node, what: str, name: str) -> Iterator[None]:
    """Shown by /metrics: with wait=false nothing else tells that it ended."""
    with node.lock:
        node.running[what][name] += 1
    try:
        yield
    finally:
        with node.lock:
            node.running[what][name] -= 1


@contextlib.contextmanager
def work_folder(node: Node, prefix: str) -> Iterator[Path]:
    folder = temporary(node.tmp, prefix)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(archive: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    write(checksum_file(final), sha256(archive).encode())
    try:
        os.replace(archive, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = final.with_name(f".{final.name}.{os.getpid()}")  # snapshots are on another file system
        shutil.copyfile(archive, beside)
        os.replace(beside, final)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# ---- finding --------------------------------------------------------------------------------------------------------


def collection_folder(node: Node, name: str) -> Path:
    return node.snapshots / node.collection(name).name


def shard_folder(node: Node, name: str, number: int) -> Path:
    node.collection(name).shard(number)
    return collection_folder(node, name) / "shards" / str(number)


def listing(folder: Path) -> list[Json]:
    return [describe(path) for path in sorted(folder.glob("*.snapshot")) if path.is_file()]


def describe(path: Path) -> Json:
    status = path.stat()
    created = datetime.fromtimestamp(int(status.st_mtime), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    out: Json = {"name": path.name, "creation_time": created, "size": status.st_size}
    if checksum_file(path).exists():
        out["checksum"] = checksum_file(path).read_text()
    return out


def checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".checksum")


def find(folder: Path, name: str, plain: bool = False) -> Path:
    path = folder / name
    if path.name != name or not path.is_file():
        raise not_found(f"Snapshot {name} not found", plain)
    return path


def delete(folder: Path, name: str) -> bool:
    path = find(folder, name)
    path.unlink()
    checksum_file(path).unlink(missing_ok=True)
    return True


def read_config(folder: Path) -> Json | None:
    return read_json(folder / "config.json")
