"""The routes: which request goes to which function, and what the caller needs to be allowed.

A path that is not here answers 404 without a body, and so does every HEAD, as on the real server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import api_collections, api_points, api_service, api_snapshots
from .access import Keys
from .node import Node
from .web import Reply, Request

COLLECTION = "/collections/{name}"
SHARD = COLLECTION + "/shards/{shard}"


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    function: Callable[..., Any]
    manage: bool = False
    plain: bool = False  # its refusals are text

    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path))


def read(method: str, path: str, function: Callable[..., Any]) -> Route:
    return Route(method, path, function)


def manage(method: str, path: str, function: Callable[..., Any], plain: bool = False) -> Route:
    return Route(method, path, function, manage=True, plain=plain)


ROUTES = [
    read("GET", "/", api_service.version),
    read("GET", "/healthz", api_service.health),
    read("GET", "/livez", api_service.health),
    read("GET", "/readyz", api_service.ready),
    read("GET", "/metrics", api_service.metrics),
    read("GET", "/cluster", api_service.cluster),
    read("GET", "/aliases", api_collections.aliases),
    read("GET", "/snapshots", api_snapshots.list_full),
    manage("POST", "/snapshots", api_snapshots.create_full),
    read("GET", "/snapshots/{snapshot}", api_snapshots.download_full),
    manage("DELETE", "/snapshots/{snapshot}", api_snapshots.delete_full),
    read("GET", "/collections", api_collections.names),
    manage("POST", "/collections/aliases", api_collections.change_aliases),
    read("GET", COLLECTION, api_collections.info),
    manage("PUT", COLLECTION, api_collections.create),
    manage("DELETE", COLLECTION, api_collections.delete),
    read("GET", COLLECTION + "/exists", api_collections.exists),
    read("GET", COLLECTION + "/aliases", api_collections.aliases_of),
    read("GET", COLLECTION + "/cluster", api_collections.cluster),
    read("GET", COLLECTION + "/optimizations", api_collections.optimizations),
    manage("PUT", COLLECTION + "/index", api_points.create_index),
    manage("DELETE", COLLECTION + "/index/{field}", api_points.delete_index),
    manage("PUT", COLLECTION + "/points", api_points.upsert),
    read("POST", COLLECTION + "/points", api_points.retrieve),
    read("GET", COLLECTION + "/points/{point}", api_points.get),
    manage("POST", COLLECTION + "/points/delete", api_points.delete),
    manage("POST", COLLECTION + "/points/payload", api_points.set_payload),
    manage("PUT", COLLECTION + "/points/payload", api_points.overwrite_payload),
    manage("POST", COLLECTION + "/points/payload/delete", api_points.delete_payload),
    manage("POST", COLLECTION + "/points/payload/clear", api_points.clear_payload),
    manage("PUT", COLLECTION + "/points/vectors", api_points.update_vectors),
    manage("POST", COLLECTION + "/points/vectors/delete", api_points.delete_vectors),
    read("POST", COLLECTION + "/points/count", api_points.count),
    read("POST", COLLECTION + "/points/scroll", api_points.scroll),
    read("POST", COLLECTION + "/points/query", api_points.query),
    read("GET", COLLECTION + "/snapshots", api_snapshots.list_collection),
    manage("POST", COLLECTION + "/snapshots", api_snapshots.create_collection),
    manage("PUT", COLLECTION + "/snapshots/recover", api_snapshots.recover_collection),
    manage("POST", COLLECTION + "/snapshots/upload", api_snapshots.upload_collection),
    read("GET", COLLECTION + "/snapshots/{snapshot}", api_snapshots.download_collection),
    manage("DELETE", COLLECTION + "/snapshots/{snapshot}", api_snapshots.delete_collection),
    manage("GET", SHARD + "/snapshot", api_snapshots.stream_shard, plain=True),
    read("GET", SHARD + "/snapshot/partial/manifest", api_snapshots.partial_manifest),
    manage("POST", SHARD + "/snapshot/partial/create", api_snapshots.partial_create, plain=True),
    read("GET", SHARD + "/snapshots", api_snapshots.list_shard),
    manage("POST", SHARD + "/snapshots", api_snapshots.create_shard),
    manage("PUT", SHARD + "/snapshots/recover", api_snapshots.recover_shard),
    manage("POST", SHARD + "/snapshots/upload", api_snapshots.upload_shard),
    read("GET", SHARD + "/snapshots/{snapshot}", api_snapshots.download_shard),
    manage("DELETE", SHARD + "/snapshots/{snapshot}", api_snapshots.delete_shard),
]


class Api:
    def __init__(self, node: Node, keys: Keys) -> None:
        self.node, self.keys = node, keys
        self.routes = [(route, route.pattern()) for route in ROUTES]

    def answer(self, request: Request, began: float) -> Any:
        refusal = self.keys.refusal(request.path, request.headers)
        if refusal is not None:
            return refusal
        for route, pattern in self.routes:
            found = pattern.fullmatch(request.path) if route.method == request.method else None
            if found:
                if route.manage:
                    self.keys.check_manage(request.headers, route.plain)
                return route.function(self.node, request, began, **found.groupdict())
        return Reply(404)
