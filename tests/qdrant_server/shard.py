"""One shard: an engine, the lock that orders its writes, and its folder.

    <shard>/segments/<uuid>/  wal/  edge_config.json      the engine's own
    <shard>/shard_config.json  replica_state.json         as the real server has them

The engine is synchronous: it logs an operation, applies it and returns. The lock orders writes, flushes and copies; reads
need none. While a shard is being replaced, and after that failed, it has no engine: everything asked of it answers 500,
as on the real server. The marker `shard_<id>.initializing` beside the folder says so to the next start.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as edge

from . import wal
from .errors import ApiError, from_engine, internal
from .files import write_json
from .schema import edge_config

Json = dict[str, Any]
T = TypeVar("T")

REPLACING = "Failed to restore local replica: shard is being restored from a snapshot"
LOST = "Failed to restore local replica"
DIRTY = "Dirty shard - shard is not fully initialized"


class Shard:
    def __init__(self, number: int, folder: Path, config: Json, peer: int) -> None:
        self.number, self.folder, self.config, self.peer = number, folder, config, peer
        self.lock = threading.RLock()
        self.engine: edge.EdgeShard | None = None
        self.without_engine = LOST
        self.next_number, self.unflushed = 0, False

    @property
    def marker(self) -> Path:
        return self.folder.with_name(f"shard_{self.number}.initializing")

    # ---- life ----

    def create(self) -> None:
        self.folder.mkdir(parents=True)
        self.write_descriptions()
        self.engine = edge.EdgeShard.create(str(self.folder), edge_config(self.config))
        self.apply(edge.UpdateOperation.upsert_points([]))  # a real shard's log begins with an empty operation

    def open(self) -> None:
        """Open what is on disk; a shard that was being replaced when the server ended stays without data."""
        if self.marker.exists():
            self.without_engine = DIRTY
            return
        self.engine = edge.EdgeShard.load(str(self.folder), edge_config(self.config))
        self.next_number = wal.next_number(self.folder / "wal")

    def write_descriptions(self) -> None:
        write_json(self.folder / "shard_config.json", {"type": "ReplicaSet"})
        state = {"is_local": True, "this_peer_id": self.peer, "peers": {str(self.peer): "Active"}}
        write_json(self.folder / "replica_state.json", state)

    def close(self, why: str) -> None:
        with self.lock:
            engine, self.engine, self.without_engine = self.engine, None, why
            if engine is not None:
                engine.close()

    def replace(self, restored: Path) -> None:
        """Take over a folder that was unpacked from a snapshot. If the engine does not load it, the old data is gone
        already: the real server promises no more."""
        with self.lock:
            self.marker.touch()
            self.close(REPLACING)
            shutil.rmtree(self.folder, ignore_errors=True)
            restored.rename(self.folder)
            # How far the archive's own server had applied its log; this engine always applies all of it.
            (self.folder / "applied_seq.json").unlink(missing_ok=True)
            self.write_descriptions()
            try:
                engine = edge.EdgeShard.load(str(self.folder), edge_config(self.config))
            except Exception as error:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.without_engine = LOST
                raise load_error(error) from error
            self.next_number, self.unflushed = wal.next_number(self.folder / "wal"), True
            self.engine = engine
            self.marker.unlink()

    # ---- operations ----

    def apply(self, *operations: edge.UpdateOperation) -> int:
        """The number of the last operation. One that the engine refuses half-way may have changed something, and is in
        the log: the real server behaves the same."""
        with self.lock:
            engine = self.running()
            self.unflushed = True
            for operation in operations:
                try:
                    engine.update(operation)
                except Exception as error:
                    self.next_number = wal.next_number(self.folder / "wal")
                    raise from_engine(error) from error
                self.next_number += 1
            return self.next_number - 1

    def read(self, ask: Callable[[edge.EdgeShard], T]) -> T:
        try:
            return ask(self.running())
        except ApiError:
            raise
        except Exception as error:
            raise from_engine(error) from error

    def running(self) -> edge.EdgeShard:
        engine = self.engine
        if engine is None:
            raise internal(self.without_engine)
        return engine

    def flush(self) -> None:
        """Segments to disk; the engine then drops log files that it needs no more."""
        with self.lock:
            if self.unflushed and self.engine is not None:
                self.engine.flush()
                self.unflushed = False

    def flush_quietly(self) -> None:
        try:
            self.flush()
        except Exception as error:  # the flusher goes on with the other shards, and tries this one again
            print(f"flush of {self.folder}: {error}", file=sys.stderr, flush=True)


def load_error(error: Exception) -> ApiError:
    """The engine's words are the real server's, but for what it puts before them."""
    text = str(error).removeprefix("Service runtime error: ")
    if text.startswith("failed to open WAL"):
        return internal(f"Wal error: {text.split(': ', 1)[1]}")
    if text.startswith("failed to load segment"):
        return internal(text.split(": ", 1)[1].removeprefix("Service runtime error: "))
    return internal(text)
