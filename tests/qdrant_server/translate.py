"""Points, vectors and requests between JSON and the engine.

Numbers: the engine hands out 32-bit floats widened to 64 bits. They are narrowed again before they are printed, so that
0.2581989 does not become 0.2581988990306854, as on the real server.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy
import qdrant_edge as edge

from .errors import bad_json, wrong_input
from .filters import filter_of
from .schema import named_vectors

Json = dict[str, Any]


# ---- to the engine --------------------------------------------------------------------------------------------------


def points_of(body: Json, params: Json) -> list[edge.Point]:
    """The points of an upsert, as a list or as a batch of columns."""
    if "batch" in body:
        batch = body["batch"]
        rows = columns(batch)
    elif isinstance(body.get("points"), list):
        rows = [(one.get("id"), one.get("vector"), one.get("payload")) for one in body["points"]]
    else:
        raise bad_json("data did not match any variant of untagged enum PointInsertOperations")
    return [point_of(identifier, vector, payload, params) for identifier, vector, payload in rows]


def columns(batch: Json) -> list[tuple[Any, Any, Any]]:
    ids, vectors = batch["ids"], batch["vectors"]
    payloads = batch.get("payloads") or [None] * len(ids)
    if isinstance(vectors, dict):
        vectors = [{name: column[row] for name, column in vectors.items()} for row in range(len(ids))]
    if not len(ids) == len(vectors) == len(payloads):
        raise wrong_input("ids, vectors and payloads of a batch have to be of one length")
    return list(zip(ids, vectors, payloads, strict=True))


def point_of(identifier: Any, vector: Any, payload: Any, params: Json) -> edge.Point:
    if identifier is None:
        raise bad_json("missing field `id`")
    if vector is None:
        raise bad_json("missing field `vector`")
    try:
        return edge.Point(id=identifier, vector=vector_of(vector, params), payload=payload)
    except (TypeError, ValueError) as error:
        raise bad_json(f"point {identifier!r}: {str(error).splitlines()[0]}") from error


def point_vectors_of(body: Json, params: Json) -> list[edge.PointVectors]:
    return [edge.PointVectors(id=one["id"], vector=vector_of(one["vector"], params)) for one in body["points"]]


def vector_of(vector: Any, params: Json) -> Any:
    """Checked here: the engine would log an operation with a wrong vector before it refuses it, the server does not."""
    known = named_vectors(params.get("vectors") or {})
    sparse = params.get("sparse_vectors") or {}
    if not isinstance(vector, dict):
        check_dense("", vector, known)
        return vector
    for name, one in vector.items():
        if name not in sparse:
            check_dense(name, one, known)
    return {name: named(one) for name, one in vector.items()}


def check_dense(name: str, vector: Any, known: dict[str, Json]) -> None:
    if name not in known:
        raise wrong_input(f"Not existing vector name error: {name}")
    size = known[name]["size"]
    for row in vector if known[name].get("multivector_config") and vector else [vector]:
        if not isinstance(row, list):
            raise bad_json("data did not match any variant of untagged enum VectorStruct")
        if len(row) != size:
            raise wrong_input(f"Vector dimension error: expected dim: {size}, got {len(row)}")


def named(vector: Any) -> Any:
    if isinstance(vector, dict):
        return edge.SparseVector(vector["indices"], vector["values"])
    return vector


def selector(body: Any, default: bool) -> Any:
    """with_payload and with_vector: a flag, a list of names, or a map that includes or excludes."""
    if body is None:
        return default
    if isinstance(body, dict):
        if "include" in body:
            return edge.PayloadSelector.Include(body["include"])
        return edge.PayloadSelector.Exclude(body["exclude"])
    return body


def search_params(body: Json | None) -> edge.SearchParams | None:
    if not body:
        return None
    return edge.SearchParams(
        hnsw_ef=body.get("hnsw_ef"), exact=bool(body.get("exact")), indexed_only=bool(body.get("indexed_only"))
    )


def order_by(body: Any) -> edge.OrderBy:
    if isinstance(body, str):
        return edge.OrderBy(body)
    directions = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc, None: None}
    return edge.OrderBy(body["key"], directions[body.get("direction")], body.get("start_from"))


def scroll_request(body: Json, limit: int) -> edge.ScrollRequest:
    return edge.ScrollRequest(
        limit=limit,
        offset=body.get("offset"),
        filter=filter_of(body.get("filter")),
        with_payload=selector(body.get("with_payload"), True),
        with_vector=selector(body.get("with_vector"), False),
        order_by=order_by(body["order_by"]) if body.get("order_by") else None,
    )


# ---- from the engine ------------------------------------------------------------------------------------------------


def point_json(point: edge.Record | edge.ScoredPoint) -> Json:
    out: Json = {"id": identifier_json(point.id)}
    if isinstance(point, edge.ScoredPoint):
        out["version"], out["score"] = point.version, numpy.float32(point.score)
    payload, vector, order = point.payload, point.vector, point.order_value  # each look is a conversion
    if payload is not None:
        out["payload"] = payload
    if vector is not None:
        out["vector"] = vector_json(vector)
    if order is not None:
        out["order_value"] = order
    return out


def identifier_json(identifier: Any) -> Any:
    return str(identifier) if isinstance(identifier, UUID) else identifier


def sort_key(identifier: Any) -> tuple[bool, Any]:
    """Numbers before UUIDs, as the engine scrolls."""
    return (not isinstance(identifier, int), identifier if isinstance(identifier, int) else str(identifier))


def vector_json(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: vector_json(one) for name, one in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return {"indices": vector.indices, "values": numpy.asarray(vector.values, numpy.float32)}
    return numpy.asarray(vector, numpy.float32)
