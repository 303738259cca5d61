"""Collections and aliases."""

from __future__ import annotations

from .errors import internal
from .node import Node
from .schema import config_from_request
from .web import Reply, Request, result


def names(node: Node, _request: Request, began: float) -> Reply:
    return result({"collections": [{"name": name} for name in sorted(node.collections)]}, began)


def info(node: Node, _request: Request, began: float, name: str) -> Reply:
    return result(node.collection(name).info(), began)


def exists(node: Node, _request: Request, began: float, name: str) -> Reply:
    return result({"exists": node.real_name(name) in node.collections}, began)


def create(node: Node, request: Request, began: float, name: str) -> Reply:
    body = request.fields()
    node.create(name, config_from_request(body, len(request.data)))
    return result(True, began)


def delete(node: Node, _request: Request, began: float, name: str) -> Reply:
    return result(node.delete(name), began)


def cluster(node: Node, _request: Request, began: float, name: str) -> Reply:
    counts = node.collection(name).points_per_shard()
    shards = [
        {"shard_id": number, "points_count": count or 0, "state": "Active" if count is not None else "Dead"}
        for number, count in counts.items()
    ]
    answer = {"peer_id": node.peer, "shard_count": len(shards), "local_shards": shards}
    return result({**answer, "remote_shards": [], "shard_transfers": []}, began)


def optimizations(node: Node, _request: Request, began: float, name: str) -> Reply:
    """Always idle: there is no optimizer."""
    segments = node.collection(name).info()["segments_count"]
    summary = {"queued_optimizations": 0, "queued_segments": 0, "queued_points": 0, "idle_segments": segments}
    return result({"summary": summary, "running": []}, began)


# ---- aliases --------------------------------------------------------------------------------------------------------


def aliases(node: Node, _request: Request, began: float) -> Reply:
    return result({"aliases": alias_list(node)}, began)


def aliases_of(node: Node, _request: Request, began: float, name: str) -> Reply:
    real = node.collection(name).name
    return result({"aliases": [one for one in alias_list(node) if one["collection_name"] == real]}, began)


def alias_list(node: Node) -> list[dict[str, str]]:
    return [{"alias_name": alias, "collection_name": name} for alias, name in sorted(node.aliases.items())]


def change_aliases(node: Node, request: Request, began: float) -> Reply:
    body = request.fields("actions")
    try:
        node.change_aliases(body["actions"])
    except OSError as error:
        raise internal(f"File IO error: {error}") from error
    return result(True, began)
