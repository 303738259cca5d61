"""Weaviate, by REST and GraphQL. A batch answers 200 with an error inside."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence

from .client import PAGE, Answer, Client, Refused, Row
from .rest import Rest


class Weaviate(Client):
    def __init__(self, url: str, api_key: str, collection: str, timeout: float) -> None:
        self._rest = Rest(url, {"Authorization": f"Bearer {api_key}"}, timeout)
        self._collection = collection

    def is_ready(self) -> bool:
        return self._rest.answers("/v1/.well-known/ready")

    def create_collection(self, _: int) -> None:
        texts = [{"name": name, "dataType": ["text"]} for name in ("name", "text")]
        self._rest.call("POST", "/v1/schema", {"class": self._collection, "vectorizer": "none", "properties": texts})

    def write(self, rows: Sequence[Row]) -> None:
        objects = [
            {
                "class": self._collection,
                "id": row.id,
                "properties": {"name": row.name, "text": row.text},
                "vector": row.vector.tolist(),
            }
            for row in rows
        ]
        for answer in self._rest.call("POST", "/v1/batch/objects", {"objects": objects}):
            if answer["result"].get("status") != "SUCCESS":
                raise Refused(f"{answer['id']}: {answer['result']}")

    def count(self) -> int:
        found = self._query(f"{{Aggregate{{{self._collection}{{meta{{count}}}}}}}}")
        return found["Aggregate"][self._collection][0]["meta"]["count"]

    def ask(self, question: array, limit: int) -> list[Answer]:
        near = f"nearVector:{{vector:{json.dumps(question.tolist())}}} limit:{limit}"
        found = self._query(f"{{Get{{{self._collection}({near}){{name text _additional{{id distance}}}}}}}}")
        return [
            Answer(a["_additional"]["id"], a["name"], a["text"], a["_additional"]["distance"])
            for a in found["Get"][self._collection]
        ]

    def rows(self) -> Iterator[Row]:
        """In the order of their ids."""
        after = ""
        while True:
            query = f"class={self._collection}&include=vector&limit={PAGE}&after={after}"
            page = self._rest.call("GET", f"/v1/objects?{query}")["objects"]
            for row in page:
                yield Row(row["id"], row["properties"]["name"], row["properties"]["text"], array("f", row["vector"]))
            if len(page) < PAGE:
                return
            after = page[-1]["id"]

    def _query(self, query: str) -> dict:
        answer = self._rest.call("POST", "/v1/graphql", {"query": query})
        if answer.get("errors"):
            raise Refused(str(answer["errors"]))
        return answer["data"]
