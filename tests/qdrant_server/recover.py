"""Recovery of collections and shards from snapshots, with the refusals of the real server.

    fetch and unpack into tmp/ -> checksum -> contents complete? -> compatible? -> collection made if absent -> each shard replaced

Up to the last step the live data is untouched. The last step deletes it and then loads the new data; if the engine
cannot load that, the shard is left without data (shard.py). Deliberately as lenient as the real server: what is not
checked here (vectors that are missing, a gap in the log) is not checked there either.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from . import tar
from .collection import Collection
from .errors import ApiError, bad_json, bad_request, forbidden, internal, wrong_input
from .files import read_json, temporary
from .node import Node
from .schema import check_compatible
from .shard import Shard
from .snapshots import counted, find, shard_folder, work_folder

Json = dict[str, Any]

IDLE_SECONDS = 60  # a server that sends nothing for this long has failed
PRIORITIES = (None, "no_sync", "snapshot", "replica")


# ---- what a client asks for -----------------------------------------------------------------------------------------


def check_request(priority: str | None, checksum: str | None, where: str) -> None:
    if priority not in PRIORITIES:
        raise bad_json(f"unknown variant `{priority}`, expected one of `no_sync`, `snapshot`, `replica`")
    if checksum is not None and not re.fullmatch("[0-9a-fA-F]{64}", checksum):
        details = f'"value": String("{checksum}"), "expected_length": Number(64), "length": Number({len(checksum)})'
        message = f"[checksum: Validation error: invalid_sha256_hash [{{{details}}}]]"
        raise ApiError(422, f"Validation error in {where}: {message}")


def recover_collection(node: Node, name: str, request: Json) -> bool:
    name = node.real_name(name)
    with counted(node, "recovery", name):
        location, checksum = request["location"], request.get("checksum")
        kind = urlsplit(location)
        if kind.scheme in ("http", "https"):
            base = Path(kind.path).name
            with unpacked_download(node, base, location, request.get("api_key"), checksum) as folder:
                restore_collection(node, name, folder)
        elif kind.scheme == "file":
            path = inside_snapshots(node, Path(unquote(kind.path)))
            recover_collection_file(node, name, path, checksum)
        else:
            raise bad_request(f"URL {location} with scheme {kind.scheme} is not supported")
    return True


def recover_collection_file(node: Node, name: str, path: Path, checksum: str | None, uploaded: bool = False) -> bool:
    """Also for an upload, which has been stored as a file before. In its message the real server mixes the two up."""
    with work_folder(node, path.name) as work, path.open("rb") as file:
        stream = Hashing(file.read)
        tar.unpack(stream, work / "archive")
        check_sum(stream, checksum, swapped=uploaded)
        restore_collection(node, node.real_name(name), work / "archive")
    return True


def recover_shard(node: Node, name: str, number: int, request: Json) -> bool:
    shard = node.collection(name).shard(number)
    location, checksum = request["location"], request.get("checksum")
    with counted(node, "recovery", node.real_name(name)):
        kind = urlsplit(location)
        if kind.scheme in ("http", "https"):
            with unpacked_download(node, Path(kind.path).name, location, request.get("api_key"), checksum) as folder:
                restore_shard(node, shard, folder)
        elif kind.scheme:
            raise bad_request(f"URL {location} with scheme {kind.scheme} is not supported")
        else:
            with find(shard_folder(node, name, number), location).open("rb") as file:
                recover_shard_stream(node, shard, file.read, checksum)
    return True


def recover_shard_stream(node: Node, shard: Shard, read: Callable[[int], bytes], checksum: str | None) -> None:
    with work_folder(node, f"shard-{shard.number}-recovery") as work:
        stream = Hashing(read)
        tar.unpack(stream, work / "archive")
        check_sum(stream, checksum)
        restore_shard(node, shard, work / "archive")


def inside_snapshots(node: Node, path: Path) -> Path:
    if not path.is_file():
        raise bad_request(f'Snapshot file "{path}" does not exist')
    if not path.resolve().is_relative_to(node.snapshots):
        raise forbidden(f'Snapshot file path must be inside the snapshots directory "{node.snapshots}"')
    return path


# ---- fetching -------------------------------------------------------------------------------------------------------


class Hashing:
    """A stream that hashes what is read from it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.source, self.digest = read, hashlib.sha256()

    def read(self, size: int) -> bytes:
        try:
            piece = self.source(size)
        except http.client.HTTPException as error:
            raise OSError(f"the body ended early: {error!r}") from error
        self.digest.update(piece)
        return piece

    def finish(self) -> str:
        """Also hashes what stands behind the end mark of an archive."""
        while self.read(1 << 20):
            pass
        return self.digest.hexdigest()


@contextlib.contextmanager
def unpacked_download(node: Node, base: str, url: str, api_key: str | None, checksum: str | None) -> Iterator[Path]:
    """The archive at the URL, unpacked while it arrives, never stored whole."""
    folder = temporary(node.tmp, base, ".download")
    try:
        with open_url(url, api_key) as response:
            stream = Hashing(lambda size: read_whole(response, size))
            tar.unpack(stream, folder)
            try:
                check_sum(stream, checksum)
            except OSError as error:
                raise internal(f"Http request error: error decoding response body: {error}") from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_url(url: str, api_key: str | None) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"api-key": api_key} if api_key else {})
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=IDLE_SECONDS)
    except urllib.error.HTTPError as error:
        phrase = HTTPStatus(error.code).phrase
        raise wrong_input(f"Failed to download tar from {url}: status - {error.code} {phrase}") from error
    except (OSError, http.client.HTTPException) as error:
        raise internal(f"Http request error: error sending request for url ({url})") from error


def read_whole(response: http.client.HTTPResponse, size: int) -> bytes:
    """http.client takes a connection that closes before Content-Length for the end of the body."""
    piece = response.read(size)
    if not piece and response.length:
        raise OSError(f"the body ended {response.length} bytes early")
    return piece


def check_sum(stream: Hashing, expected: str | None, swapped: bool = False) -> None:
    actual = stream.finish()
    if expected is not None and expected.lower() != actual:
        first, second = (actual, expected) if swapped else (expected, actual)
        raise wrong_input(f"Snapshot checksum mismatch: expected {first}, got {second}")


# ---- putting in place -----------------------------------------------------------------------------------------------


def restore_collection(node: Node, name: str, unpacked: Path) -> None:
    folder = temporary(node.tmp, f"col-{name}-recovery")
    unpacked.rename(folder)
    try:
        config = read_json(folder / "config.json")
        if config is None:
            missing = f"failed to open file `{folder / 'config.json'}`: No such file or directory (os error 2)"
            raise internal(f"File IO error: {missing}")
        for number in range(config["params"]["shard_number"]):
            prepare_shard(folder / str(number))
        collection = existing_or_new(node, name, config, folder)
        for number, shard in collection.shards.items():
            put_in_place(node, shard, folder / str(number))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def existing_or_new(node: Node, name: str, config: Json, folder: Path) -> Collection:
    existing = node.collections.get(name)
    if existing is not None:
        check_compatible(existing.config, config)
        return existing
    created = node.create(name, config)
    created.write_schema(read_json(folder / "payload_index.json", {}).get("schema", {}))
    return created


def restore_shard(node: Node, shard: Shard, folder: Path) -> None:
    prepare_shard(folder)
    put_in_place(node, shard, folder)


def prepare_shard(folder: Path) -> None:
    """Segments as the engine wants them: `segments/<uuid>/…`."""
    if not (folder / "shard_config.json").is_file():
        raise internal(f"Can't read shard config at {folder}")
    for entry in sorted((folder / "segments").glob("*")):
        if entry.suffix == ".tar":
            unpack_segment(entry)
        elif (entry / "files").is_dir():
            lift(entry / "files", entry)
        segment = entry.with_suffix("")
        if (segment / "segment_manifest.json").exists():
            raise bad_request("a partial snapshot cannot be recovered as a whole one")


def unpack_segment(archive: Path) -> None:
    folder = archive.with_suffix("")
    try:
        with archive.open("rb") as file:
            tar.unpack(file, folder)
    except ApiError as error:
        reason = error.message.rsplit("Failed to unpack tar archive: ", 1)[-1]
        raise internal(
            f'Failed to restore snapshot from "{archive}": Service runtime error: IO Error: {reason}'
        ) from error
    archive.unlink()
    lift(folder / "snapshot" / "files", folder)


def lift(inner: Path, outer: Path) -> None:
    """Put what is in `inner`, somewhere below `outer`, in the place of `outer`."""
    aside = outer.with_name(outer.name + ".lifted")
    inner.rename(aside)
    shutil.rmtree(outer)
    aside.rename(outer)


def put_in_place(node: Node, shard: Shard, folder: Path) -> None:
    if not (folder / "wal").is_dir():
        state = f"Replica {node.peer} of shard {shard.number} has state Some(Active)"
        raise wrong_input(f"{state}, but expected Some(ManualRecovery)")
    shard.replace(folder)
