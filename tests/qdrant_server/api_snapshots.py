"""Snapshots over HTTP. With wait=false everything but the reading of the request happens after the answer 202, and how
it ended is only logged; /metrics shows what still runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from . import archives, recover, snapshots
from .errors import ApiError, not_found
from .node import Node
from .web import TEXT, FileReply, Reply, Request, StreamReply, accepted, in_background, result

Json = dict[str, Any]


def done(request: Request, began: float, action: Callable[[], Any]) -> Reply:
    if request.wait(True):
        return result(action(), began)
    in_background(f"{request.method} {request.path}", action)
    return accepted(began)


def shard_number(text: str) -> int:
    if not text.isdigit():
        raise not_found(f"shard {text} not found")
    return int(text)


# ---- collections ----------------------------------------------------------------------------------------------------


def list_collection(node: Node, _request: Request, began: float, name: str) -> Reply:
    return result(snapshots.listing(snapshots.collection_folder(node, name)), began)


def create_collection(node: Node, request: Request, began: float, name: str) -> Reply:
    return done(request, began, lambda: snapshots.create_collection_snapshot(node, name))


def download_collection(node: Node, _request: Request, _began: float, name: str, snapshot: str) -> FileReply:
    return FileReply(snapshots.find(snapshots.collection_folder(node, name), snapshot, plain=True))


def delete_collection(node: Node, request: Request, began: float, name: str, snapshot: str) -> Reply:
    return done(request, began, lambda: snapshots.delete(snapshots.collection_folder(node, name), snapshot))


def recover_collection(node: Node, request: Request, began: float, name: str) -> Reply:
    body = request.fields("location")
    recover.check_request(body.get("priority"), body.get("checksum"), "JSON body")
    return done(request, began, lambda: recover.recover_collection(node, name, body))


def upload_collection(node: Node, request: Request, began: float, name: str) -> Reply:
    """The file stays in the snapshots folder after the recovery, as on the real server."""
    checksum = request.query.get("checksum")
    recover.check_request(request.query.get("priority"), checksum, "query parameters")
    path = stored_upload(node, request, node.real_name(name))
    return done(request, began, lambda: recover.recover_collection_file(node, name, path, checksum, uploaded=True))


def stored_upload(node: Node, request: Request, name: str) -> Path:
    with snapshots.work_folder(node, f"{name}-upload") as work:
        path, given = request.store_upload("snapshot", work)
        final = node.snapshots / name / (Path(given or "").name or f"{work.name}.snapshot")
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, final)
    return final


# ---- full snapshots -------------------------------------------------------------------------------------------------


def list_full(node: Node, _request: Request, began: float) -> Reply:
    return result(snapshots.listing(node.snapshots), began)


def create_full(node: Node, request: Request, began: float) -> Reply:
    return done(request, began, lambda: snapshots.create_full_snapshot(node))


def download_full(node: Node, _request: Request, _began: float, snapshot: str) -> FileReply:
    return FileReply(snapshots.find(node.snapshots, snapshot, plain=True))


def delete_full(node: Node, request: Request, began: float, snapshot: str) -> Reply:
    return done(request, began, lambda: snapshots.delete(node.snapshots, snapshot))


# ---- shards ---------------------------------------------------------------------------------------------------------


def list_shard(node: Node, _request: Request, began: float, name: str, shard: str) -> Reply:
    return result(snapshots.listing(snapshots.shard_folder(node, name, shard_number(shard))), began)


def create_shard(node: Node, request: Request, began: float, name: str, shard: str) -> Reply:
    return done(request, began, lambda: snapshots.create_shard_snapshot(node, name, shard_number(shard)))


def download_shard(node: Node, _request: Request, _began: float, name: str, shard: str, snapshot: str) -> FileReply:
    return FileReply(snapshots.find(snapshots.shard_folder(node, name, shard_number(shard)), snapshot, plain=True))


def delete_shard(node: Node, request: Request, began: float, name: str, shard: str, snapshot: str) -> Reply:
    number = shard_number(shard)
    return done(request, began, lambda: snapshots.delete(snapshots.shard_folder(node, name, number), snapshot))


def recover_shard(node: Node, request: Request, began: float, name: str, shard: str) -> Reply:
    body = request.fields("location")
    recover.check_request(body.get("priority"), body.get("checksum"), "JSON body")
    return done(request, began, lambda: recover.recover_shard(node, name, shard_number(shard), body))


def upload_shard(node: Node, request: Request, began: float, name: str, shard: str) -> Reply:
    checksum = request.query.get("checksum")
    recover.check_request(request.query.get("priority"), checksum, "query parameters")
    found = node.collection(name).shard(shard_number(shard))
    with snapshots.work_folder(node, f"{name}-upload") as work:
        path, _ = request.store_upload("snapshot", work)
        with path.open("rb") as file:
            recover.recover_shard_stream(node, found, file.read, checksum)
    return result(None, began)


def stream_shard(node: Node, _request: Request, _began: float, name: str, shard: str) -> StreamReply:
    collection = node.collection(name)
    return StreamReply(*snapshots.stream_shard(node, collection, collection.shard(shard_number(shard))))


def partial_manifest(node: Node, _request: Request, began: float, name: str, shard: str) -> Reply:
    return result(archives.manifest_of(node.collection(name).shard(shard_number(shard))), began)


def partial_create(node: Node, request: Request, _began: float, name: str, shard: str) -> StreamReply | Reply:
    collection = node.collection(name)
    found = collection.shard(shard_number(shard))
    known = known_manifests(request.body.read())
    with found.lock:
        if archives.nothing_changed(archives.manifest_of(found), known):
            return Reply(304, content_type=TEXT)
        return StreamReply(*snapshots.stream_shard(node, collection, found, known))


def known_manifests(data: bytes) -> Json:
    try:
        known = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"Json deserialize error: {error}", plain=True) from error
    for value in known.values() if isinstance(known, dict) else [known]:
        if not isinstance(value, dict) or not value.keys() >= {"segment_id", "segment_version", "file_versions"}:
            kind = f"integer `{value}`" if isinstance(value, int) else type(value).__name__
            where = f"line 1 column {len(data) - 1}"
            message = f"Json deserialize error: invalid type: {kind}, expected struct SegmentManifest at {where}"
            raise ApiError(400, message, plain=True)
    return known
