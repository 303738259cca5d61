"""Writes the archives of a shard in the forms of the real server.

| form | segments | log |
|---|---|---|
| collection snapshot | `<shard>/segments/<uuid>.tar`, inside it `snapshot/files/…` | the files of `wal/` |
| shard snapshot | `segments/<uuid>.tar` | an empty `wal/closed-<n>`, so that numbering goes on |
| streamed shard snapshot | `segments/<uuid>/files/…` | the same |
| partial snapshot | as streamed, only changed files, and `files/segment_manifest.json` | the same |

The engine changes its files in place, so they are copied while the shard's lock is held: writers wait for that time,
readers do not. A real server lets writers go on, and its archives without a log can lack deletes that its optimizer
still holds in memory. There is no optimizer here, so these archives are never wrong in that way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import tar, wal
from .shard import Shard

Json = dict[str, Any]

LAST_FILES = ("segment.json", "version.info")
DESCRIPTIONS = ("replica_state.json", "shard_config.json")  # the latter last, so that a cut archive is refused


def manifest_of(shard: Shard) -> Json:
    """{segment: {segment_id, segment_version, file_versions}}, from the engine."""
    with shard.lock:
        shard.flush()
        return shard.read(lambda engine: engine.snapshot_manifest())


def stage_with_log(shard: Shard, folder: Path) -> None:
    """A shard's part of a collection snapshot, as files: segments packed, the log copied."""
    (folder / "wal").mkdir(parents=True)
    with shard.lock:
        shard.running()
        shard.flush()
        pack_segments(shard, folder / "segments")
        for name in ("first-index", *log_files(shard)):
            if (shard.folder / "wal" / name).exists():
                tar.copy_sparse(shard.folder / "wal" / name, folder / "wal" / name)


def log_files(shard: Shard) -> list[str]:
    return sorted(path.name for path in (shard.folder / "wal").iterdir() if path.name.startswith(("open-", "closed-")))


def pack_segments(shard: Shard, folder: Path) -> None:
    folder.mkdir(parents=True)
    for segment in segments_of(shard):
        with (folder / f"{segment.name}.tar").open("wb") as file:
            archive = tar.Writer(file)
            archive.add_tree("snapshot/files/", segment, LAST_FILES)
            archive.finish()


def segments_of(shard: Shard) -> list[Path]:
    return sorted(path for path in (shard.folder / "segments").iterdir() if path.is_dir())


def write_staged(archive: tar.Writer, prefix: str, staged: Path, shard: Shard) -> None:
    """What `stage_with_log` staged, into the collection's archive."""
    archive.add_tree(f"{prefix}segments/", staged / "segments")
    archive.add_tree(f"{prefix}wal/", staged / "wal", ("first-index",))
    for name in DESCRIPTIONS:
        archive.add_bytes(prefix + name, (shard.folder / name).read_bytes())


def write_shard(archive: tar.Writer, shard: Shard, work: Path) -> None:
    """A shard snapshot; `work` is a folder for the packed segments."""
    with shard.lock:
        shard.running()
        shard.flush()
        pack_segments(shard, work / "segments")
        number = shard.next_number
    archive.add_tree("segments/", work / "segments")
    write_end(archive, shard, number, work)


def write_streamed(archive: tar.Writer, shard: Shard, work: Path, known: Json | None = None) -> None:
    """A streamed shard snapshot; with the manifests that a client knows already, a partial one."""
    with shard.lock:
        manifest = manifest_of(shard)
        for segment in segments_of(shard):
            prefix = f"segments/{segment.name}/files/"
            if known is None:
                archive.add_tree(prefix, segment, LAST_FILES)
            else:
                write_changed(archive, prefix, segment, manifest[segment.name], known.get(segment.name))
        number = shard.next_number
    write_end(archive, shard, number, work)


def write_changed(archive: tar.Writer, prefix: str, segment: Path, manifest: Json, known: Json | None) -> None:
    archive.add_bytes(f"{prefix}segment_manifest.json", json.dumps(manifest, separators=(",", ":")).encode())
    for path in sorted(path for path in segment.rglob("*") if path.is_file()):
        name = str(path.relative_to(segment))
        if name not in manifest["file_versions"] or file_changed(name, manifest, known):
            archive.add_file(prefix + name, path)


def file_changed(name: str, manifest: Json, known: Json | None) -> bool:
    """A file without a version of its own has its segment's. Version 0 on both sides says nothing."""
    if known is None or name not in known["file_versions"]:
        return True
    current, before = (
        one["segment_version"] if one["file_versions"][name] is None else one["file_versions"][name]
        for one in (manifest, known)
    )
    return current > before or current == before == 0


def nothing_changed(manifest: Json, known: Json) -> bool:
    return all(
        segment in known
        and current["segment_version"] <= known[segment]["segment_version"]
        and current["file_versions"].keys() <= known[segment]["file_versions"].keys()
        for segment, current in manifest.items()
    )


def write_end(archive: tar.Writer, shard: Shard, number: int, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    log = work / f"closed-{number}"
    wal.write_empty(log)
    archive.add_folder("wal")
    archive.add_file(f"wal/{log.name}", log)
    for name in DESCRIPTIONS:
        archive.add_bytes(name, (shard.folder / name).read_bytes())
    archive.finish()
