"""A collection: its configuration, its shards, and the operations on its points.

    collections/<name>/config.json  version.info  payload_index.json  shard_key_mapping.json  <shard>/

`config.json` is written last: a folder without it is a collection whose creation was cut off. With more than one shard,
points are spread by a hash of their id that is not the real server's; a snapshot of a real collection with several
shards restores and reads, but writing to its existing points would put them into another shard.
"""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from .errors import ApiError, not_found
from .files import read_json, write, write_json
from .schema import field_index
from .shard import Shard
from .translate import identifier_json, sort_key

Json = dict[str, Any]

FORMAT_VERSION = "0.4.2"  # version.info of a collection made by 1.18.3


class Collection:
    def __init__(self, name: str, folder: Path, config: Json, peer: int) -> None:
        self.name, self.folder, self.config = name, folder, config
        self.shards = {
            number: Shard(number, folder / str(number), config, peer)
            for number in range(config["params"]["shard_number"])
        }

    @property
    def params(self) -> Json:
        return self.config["params"]

    # ---- life ----

    def create(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # what a cut-off creation left
        self.folder.mkdir(parents=True)
        for shard in self.shards.values():
            shard.create()
        write(self.folder / "version.info", FORMAT_VERSION.encode())
        write_json(self.folder / "shard_key_mapping.json", [])
        self.write_schema({})
        write_json(self.folder / "config.json", self.config)

    def open(self) -> None:
        for shard in self.shards.values():
            shard.open()

    def close(self, why: str) -> None:
        for shard in self.shards.values():
            shard.close(why)

    def shard(self, number: int) -> Shard:
        if number not in self.shards:
            raise not_found(f"shard {number} not found")
        return self.shards[number]

    def write_schema(self, schema: Json) -> None:
        write_json(self.folder / "payload_index.json", {"schema": schema})

    def schema(self) -> Json:
        return read_json(self.folder / "payload_index.json", {}).get("schema", {})

    # ---- writing ----

    def apply_by_point(self, items: list[Any], make: Callable[[list[Any]], edge.UpdateOperation]) -> int:
        """An operation on points or ids, each part in the shard that it belongs to."""
        if len(self.shards) == 1:
            return self.shards[0].apply(make(items))
        parts: dict[int, list[Any]] = defaultdict(list)
        for item in items:
            identifier = identifier_json(getattr(item, "id", item))
            parts[zlib.crc32(str(identifier).encode()) % len(self.shards)].append(item)
        return max((self.shards[number].apply(make(part)) for number, part in sorted(parts.items())), default=0)

    def apply_everywhere(self, *operations: edge.UpdateOperation) -> int:
        return max(shard.apply(*operations) for shard in self.shards.values())

    def create_index(self, field: str, schema: Any) -> int:
        operation = edge.UpdateOperation.create_field_index(field, field_index(schema))
        number = self.apply_everywhere(operation, operation)  # a real shard logs it twice
        self.write_schema({**self.schema(), field: schema})
        return number

    def delete_index(self, field: str) -> int:
        number = self.apply_everywhere(edge.UpdateOperation.delete_field_index(field))
        self.write_schema({name: one for name, one in self.schema().items() if name != field})
        return number

    # ---- reading ----

    def ask_all(self, ask: Callable[[edge.EdgeShard], Any]) -> list[Any]:
        return [shard.read(ask) for shard in self.shards.values()]

    def count(self, wanted: edge.Filter | None, exact: bool) -> int:
        return sum(self.ask_all(lambda engine: engine.count(edge.CountRequest(filter=wanted, exact=exact))))

    def retrieve(self, ids: list[Any], payload: Any, vector: Any) -> list[edge.Record]:
        found = itertools.chain.from_iterable(self.ask_all(lambda engine: engine.retrieve(ids, payload, vector)))
        by_id = {identifier_json(point.id): point for point in found}
        return [by_id[identifier] for identifier in dict.fromkeys(ids) if identifier in by_id]

    def scroll(self, request: edge.ScrollRequest, limit: int) -> tuple[list[edge.Record], Any]:
        pages = self.ask_all(lambda engine: engine.scroll(request))
        points = [point for page, _ in pages for point in page]
        if len(pages) == 1:
            return points, identifier_json(pages[0][1])
        points.sort(key=lambda point: sort_key(identifier_json(point.id)))
        following = [identifier_json(each.id) for each in points[limit:]]
        following += [identifier_json(offset) for _, offset in pages if offset is not None]
        return points[:limit], min(following, key=sort_key, default=None)

    def query(self, make: Callable[[int, int], edge.QueryRequest], limit: int, offset: int) -> list[edge.ScoredPoint]:
        if len(self.shards) == 1:
            return self.shards[0].read(lambda engine: engine.query(make(limit, offset)))
        found = itertools.chain.from_iterable(self.ask_all(lambda engine: engine.query(make(limit + offset, 0))))
        closer_is_less = self.distance() in ("Euclid", "Manhattan")
        ranked = sorted(found, key=lambda point: point.score if closer_is_less else -point.score)
        return ranked[offset : offset + limit]

    def distance(self) -> str | None:
        """Of the only vector; with several named vectors of different distances the ranking across shards is not right."""
        vectors = self.params.get("vectors") or {}
        return vectors.get("distance") or next((one["distance"] for one in vectors.values()), None)

    # ---- description ----

    def info(self) -> Json:
        infos = self.ask_all(lambda engine: engine.info())
        fields: dict[str, int] = defaultdict(int)
        kinds: dict[str, str] = {}
        for info in infos:
            for field, index in info.payload_schema.items():
                fields[field] += index.points
                kinds[field] = str(index.data_type).rsplit(".", 1)[-1].lower()
        written = self.schema()
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": sum(info.indexed_vectors_count for info in infos),
            "points_count": sum(info.points_count for info in infos),
            "segments_count": sum(info.segments_count for info in infos),
            "config": {key: value for key, value in self.config.items() if key != "uuid"},
            "payload_schema": {
                field: {
                    "data_type": kinds[field],
                    **({"params": written[field]} if isinstance(written.get(field), dict) else {}),
                    "points": points,
                }
                for field, points in fields.items()
            },
            "update_queue": {"length": 0},
        }

    def points_per_shard(self) -> dict[int, int | None]:
        """None for a shard that lost its data."""
        counts: dict[int, int | None] = {}
        for number, shard in self.shards.items():
            try:
                counts[number] = shard.read(lambda engine: engine.info().points_count)
            except ApiError:
                counts[number] = None
        return counts
