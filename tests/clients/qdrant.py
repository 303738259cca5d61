"""Qdrant, by REST. Vectors are compared by their product and stored as they are given (with `Cosine` the engine would
store them at length one); those of the demo have length one, so one less the product is the cosine's distance.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from .client import PAGE, Answer, Client, Row
from .rest import Rest


class Qdrant(Client):
    def __init__(self, url: str, api_key: str, collection: str, timeout: float) -> None:
        self._rest = Rest(url, {"api-key": api_key}, timeout)
        self._path = f"/collections/{collection}"

    def is_ready(self) -> bool:
        return self._rest.answers("/readyz")

    def create_collection(self, dimensions: int) -> None:
        self._rest.call("PUT", self._path, {"vectors": {"size": dimensions, "distance": "Dot"}})

    def write(self, rows: Sequence[Row]) -> None:
        points = [
            {"id": row.id, "vector": row.vector.tolist(), "payload": {"name": row.name, "text": row.text}}
            for row in rows
        ]
        self._rest.call("PUT", f"{self._path}/points?wait=true", {"points": points})

    def count(self) -> int:
        return self._rest.call("POST", f"{self._path}/points/count", {"exact": True})["result"]["count"]

    def ask(self, question: array, limit: int) -> list[Answer]:
        query = {"query": question.tolist(), "limit": limit, "with_payload": True, "params": {"exact": True}}
        points = self._rest.call("POST", f"{self._path}/points/query", query)["result"]["points"]
        return [Answer(p["id"], p["payload"]["name"], p["payload"]["text"], 1 - p["score"]) for p in points]

    def rows(self) -> Iterator[Row]:
        """In the order of their ids."""
        offset = None
        while True:
            query = {"limit": PAGE, "offset": offset, "with_payload": True, "with_vector": True}
            page = self._rest.call("POST", f"{self._path}/points/scroll", query)["result"]
            for point in page["points"]:
                payload = point["payload"]
                yield Row(point["id"], payload["name"], payload["text"], array("f", point["vector"]))
            if (offset := page["next_page_offset"]) is None:
                return
