"""Clients of the engines, for the end-to-end tests and the demo: the few calls that they make, as any client would make
them. `connect` gives one for an engine's name.
"""

from __future__ import annotations

from .client import Answer, Client, Refused, Row
from .qdrant import Qdrant
from .redis import Redis
from .weaviate import Weaviate

CLIENTS: dict[str, type[Client]] = {"weaviate": Weaviate, "qdrant": Qdrant, "redis": Redis}


def connect(engine: str, url: str, api_key: str, collection: str, timeout: float = 30) -> Client:
    """Nothing is sent yet."""
    return CLIENTS[engine](url, api_key, collection, timeout)


__all__ = ["CLIENTS", "Answer", "Client", "Refused", "Row", "connect"]
