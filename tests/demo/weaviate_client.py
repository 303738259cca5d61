"""The few calls of Weaviate's REST API that the demo makes, as any client would make them.

What did not certainly succeed is `Refused`: no connection, a connection that was cut, an error, or a batch that answers
200 with an error inside.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import requests

CONNECT, READ = 2, 30  # seconds
PAGE = 500


class Refused(Exception):
    """Not acknowledged: it may or may not have been done."""


@dataclass(frozen=True)
class Row:
    id: str
    name: str
    text: str
    vector: array  # of 32-bit floats, as Weaviate keeps them


@dataclass(frozen=True)
class Answer:
    id: str
    name: str
    text: str
    distance: float


class Weaviate:
    """One client of one collection; not to be shared between threads."""

    def __init__(self, url: str, api_key: str, collection: str) -> None:
        self._url, self._collection, self._session = url, collection, requests.Session()
        self._session.headers["Authorization"] = f"Bearer {api_key}"

    def create_collection(self) -> None:
        texts = [{"name": name, "dataType": ["text"]} for name in ("name", "text")]
        self._call("POST", "/v1/schema", {"class": self._collection, "vectorizer": "none", "properties": texts})

    def write(self, rows: Sequence[Row]) -> None:
        """Returns when all are acknowledged. A row that exists is replaced, so it may be repeated."""
        objects = [
            {
                "class": self._collection,
                "id": row.id,
                "properties": {"name": row.name, "text": row.text},
                "vector": row.vector.tolist(),
            }
            for row in rows
        ]
        for answer in self._call("POST", "/v1/batch/objects", {"objects": objects}):
            if answer["result"].get("status") != "SUCCESS":
                raise Refused(f"{answer['id']}: {answer['result']}")

    def count(self) -> int:
        found = self._query(f"{{Aggregate{{{self._collection}{{meta{{count}}}}}}}}")
        return found["Aggregate"][self._collection][0]["meta"]["count"]

    def nearest(self, vector: array, limit: int) -> list[Answer]:
        near = f"nearVector:{{vector:{json.dumps(vector.tolist())}}} limit:{limit}"
        found = self._query(f"{{Get{{{self._collection}({near}){{name text _additional{{id distance}}}}}}}}")
        return [
            Answer(a["_additional"]["id"], a["name"], a["text"], a["_additional"]["distance"])
            for a in found["Get"][self._collection]
        ]

    def rows(self) -> Iterator[Row]:
        """All of them, in the order of their ids."""
        after = ""
        while True:
            query = f"class={self._collection}&include=vector&limit={PAGE}&after={after}"
            page = self._call("GET", f"/v1/objects?{query}")["objects"]
            for row in page:
                yield Row(row["id"], row["properties"]["name"], row["properties"]["text"], array("f", row["vector"]))
            if len(page) < PAGE:
                return
            after = page[-1]["id"]

    def _query(self, query: str) -> dict:
        answer = self._call("POST", "/v1/graphql", {"query": query})
        if answer.get("errors"):
            raise Refused(str(answer["errors"]))
        return answer["data"]

    def _call(self, method: str, path: str, body: object = None) -> object:
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=(CONNECT, READ))
        except requests.RequestException as error:
            raise Refused(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from error
        if not answer.ok:
            raise Refused(f"{method} {path.partition('?')[0]}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None
