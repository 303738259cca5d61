"""The database engines that the local cloud's instances can run: how each is started, and what its target's settings say.

Their user data is in user_data/. It finds in its environment ENGINE_API_KEY, BUCKET and PREFIX besides what every
instance has (machine.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

USER_DATA = Path(__file__).with_name("user_data")


@dataclass(frozen=True)
class Engine:
    name: str  # as the settings say it
    port: int  # where its clients expect it
    endpoint: str  # the kind of stable address, unless another is asked for
    programs: tuple[str, ...] = ()  # in the cache's bin folder
    scheme: str = "http"
    settings: Mapping[str, object] = field(default_factory=dict)  # what only this engine's targets have

    @property
    def user_data(self) -> str:
        return (USER_DATA / f"{self.name}.sh").read_text()


# A restore of Redis puts files into its data folder, so the agent has to stop and start it.
SERVICE = {word: ["redis-service", word] for word in ("start", "stop", "pid")}

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("weaviate", 8080, "elastic_ip", ("weaviate-server",), settings={"host_name": "weaviate-0"}),
        # No program of its own: the server is tests/qdrant_server.
        Engine("qdrant", 6333, "network_interface"),
        Engine("redis", 6379, "private_ip", ("redis-server",), "redis", {"service": SERVICE}),
    )
}
