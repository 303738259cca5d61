"""Version, health and metrics."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from .node import Node
from .web import TEXT, Reply, Request, json_reply, result

VERSION = "1.18.3"  # the server whose answers were recorded; the engine itself is newer
COMMIT = f"stand-in on qdrant-edge-py {installed('qdrant-edge-py')}"


def version(_node: Node, _request: Request, _began: float) -> Reply:
    return json_reply({"title": "qdrant - vector search engine", "version": VERSION, "commit": COMMIT})


def health(_node: Node, _request: Request, _began: float) -> Reply:
    return Reply(200, b"healthz check passed", TEXT)


def ready(_node: Node, _request: Request, _began: float) -> Reply:
    return Reply(200, b"all shards are ready", TEXT)


def cluster(_node: Node, _request: Request, began: float) -> Reply:
    return result({"status": "disabled"}, began)


def metrics(node: Node, _request: Request, _began: float) -> Reply:
    """Those of the real server's that say something here."""
    collections = sorted(node.collections.items())
    points = {name: sum(count or 0 for count in one.points_per_shard().values()) for name, one in collections}
    names = sorted({*points, *node.running["creation"], *node.running["recovery"]})
    lines = [
        "# TYPE app_info gauge",
        f'app_info{{name="qdrant",version="{VERSION}"}} 1',
        "# TYPE app_status_recovery_mode gauge",
        "app_status_recovery_mode 0",
        "# TYPE collections_total gauge",
        f"collections_total {len(points)}",
        *family("collection_points", "gauge", points, points),
        *family("snapshot_creation_running", "gauge", names, node.running["creation"]),
        *family("snapshot_recovery_running", "gauge", names, node.running["recovery"]),
        *family("snapshot_created_total", "counter", names, node.created),
    ]
    return Reply(200, ("\n".join(lines) + "\n").encode(), TEXT)


def family(name: str, kind: str, ids: Any, values: Any) -> list[str]:
    return [f"# TYPE {name} {kind}", *(f'{name}{{id="{one}"}} {values[one]}' for one in ids)]
