"""Operations on points.

wait=false: the operation is applied before the answer all the same, because the engine is synchronous; what differs is
that the answer says `acknowledged` and never that it failed, which on the real server only the log tells.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from .collection import Collection
from .errors import ApiError, bad_json, bad_request, not_found
from .filters import filter_of
from .node import Node
from .translate import (
    identifier_json,
    named,
    order_by,
    point_json,
    point_vectors_of,
    points_of,
    scroll_request,
    search_params,
    selector,
)
from .web import Reply, Request, result

Json = dict[str, Any]
Update = edge.UpdateOperation


# ---- writing --------------------------------------------------------------------------------------------------------


def written(collection: Collection, request: Request, began: float, write: Callable[[], int]) -> Reply:
    if request.wait(False):
        return result({"operation_id": write(), "status": "completed"}, began)
    try:
        number = write()
    except ApiError as error:
        print(f"operation on {collection.name}: {error.message}", file=sys.stderr, flush=True)
        number = collection.shards[0].next_number - 1
    return result({"operation_id": number, "status": "acknowledged"}, began)


def upsert(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    points = points_of(body, collection.params)
    return written(collection, request, began, lambda: collection.apply_by_point(points, Update.upsert_points))


def delete(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    return on_points(
        collection, request, began, body, Update.delete_points, lambda wanted: Update.delete_points_by_filter(wanted)
    )


def set_payload(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("payload")
    payload, key = body["payload"], body.get("key")
    return on_points(
        collection,
        request,
        began,
        body,
        lambda ids: Update.set_payload(ids, payload, key),
        lambda wanted: Update.set_payload_by_filter(wanted, payload, key),
    )


def overwrite_payload(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("payload")
    payload, key = body["payload"], body.get("key")
    return on_points(
        collection,
        request,
        began,
        body,
        lambda ids: Update.overwrite_payload(ids, payload, key),
        lambda wanted: Update.overwrite_payload_by_filter(wanted, payload, key),
    )


def delete_payload(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("keys")
    return on_points(
        collection,
        request,
        began,
        body,
        lambda ids: Update.delete_payload(ids, body["keys"]),
        lambda wanted: Update.delete_payload_by_filter(wanted, body["keys"]),
    )


def clear_payload(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    return on_points(collection, request, began, body, Update.clear_payload, Update.clear_payload_by_filter)


def update_vectors(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("points")
    try:
        vectors = point_vectors_of(body, collection.params)
    except (KeyError, TypeError, ValueError) as error:
        raise bad_json(str(error).splitlines()[0]) from error
    return written(collection, request, began, lambda: collection.apply_by_point(vectors, Update.update_vectors))


def delete_vectors(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("vector")
    return on_points(
        collection,
        request,
        began,
        body,
        lambda ids: Update.delete_vectors(ids, body["vector"]),
        lambda wanted: Update.delete_vectors_by_filter(wanted, body["vector"]),
    )


def on_points(
    collection: Collection,
    request: Request,
    began: float,
    body: Json,
    by_ids: Callable[[list[Any]], edge.UpdateOperation],
    by_filter: Callable[[edge.Filter], edge.UpdateOperation],
) -> Reply:
    """An operation on `points`, or on what a `filter` finds."""
    if body.get("points") is not None:
        ids = [checked_id(one) for one in body["points"]]
        return written(collection, request, began, lambda: collection.apply_by_point(ids, by_ids))
    wanted = filter_of(body.get("filter"))
    if wanted is None:
        raise bad_json("data did not match any variant: either `points` or `filter` is needed")
    return written(collection, request, began, lambda: collection.apply_everywhere(by_filter(wanted)))


def create_index(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("field_name", "field_schema")
    return written(
        collection, request, began, lambda: collection.create_index(body["field_name"], body["field_schema"])
    )


def delete_index(node: Node, request: Request, began: float, name: str, field: str) -> Reply:
    collection = node.collection(name)
    return written(collection, request, began, lambda: collection.delete_index(field))


# ---- reading --------------------------------------------------------------------------------------------------------


def count(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    return result({"count": collection.count(filter_of(body.get("filter")), body.get("exact", True))}, began)


def retrieve(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields("ids")
    ids = [checked_id(one) for one in body["ids"]]
    payload, vector = selector(body.get("with_payload"), True), selector(body.get("with_vector"), False)
    return result([point_json(point) for point in collection.retrieve(ids, payload, vector)], began)


def get(node: Node, _request: Request, began: float, name: str, point: str) -> Reply:
    identifier = int(point) if point.isdigit() else checked_id(point)
    found = node.collection(name).retrieve([identifier], True, True)
    if not found:
        raise not_found(f"Point with id {point} does not exists!")
    return result(point_json(found[0]), began)


def scroll(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    limit = body.get("limit") or 10
    points, offset = collection.scroll(scroll_request(body, limit), limit)
    return result({"points": [point_json(point) for point in points], "next_page_offset": offset}, began)


def query(node: Node, request: Request, began: float, name: str) -> Reply:
    collection, body = node.collection(name), request.fields()
    scoring, excluded = scoring_of(collection, body)
    wanted = filter_of(body.get("filter"))
    if excluded is not None:
        others = edge.HasIdCondition({excluded})
        wanted = edge.Filter(must=[wanted] if wanted else None, must_not=[others])

    def make(limit: int, offset: int) -> edge.QueryRequest:
        return edge.QueryRequest(
            limit=limit,
            offset=offset,
            query=scoring,
            filter=wanted,
            with_payload=selector(body.get("with_payload"), False),
            with_vector=selector(body.get("with_vector"), False),
            score_threshold=body.get("score_threshold"),
            params=search_params(body.get("params")),
        )

    points = collection.query(make, body.get("limit") or 10, body.get("offset") or 0)
    return result({"points": [point_json(point) for point in points]}, began)


def scoring_of(collection: Collection, body: Json) -> tuple[Any, Any]:
    """How to score, and the point that asks and therefore is not an answer."""
    wanted, using = body.get("query"), body.get("using")
    if body.get("prefetch"):
        raise bad_request("this server has no prefetch")
    if isinstance(wanted, dict) and "order_by" in wanted:
        return order_by(wanted["order_by"]), None
    if isinstance(wanted, dict) and "nearest" in wanted:
        wanted = wanted["nearest"]
    if wanted is None:
        return None, None
    if isinstance(wanted, (int, str)):
        return edge.Query.Nearest(vector_of_point(collection, checked_id(wanted), using or ""), using), wanted
    if isinstance(wanted, list) or (isinstance(wanted, dict) and "indices" in wanted):
        return edge.Query.Nearest(named(wanted), using), None
    raise bad_request("this server answers queries for the nearest points, by vector or id, and order_by")


def vector_of_point(collection: Collection, identifier: Any, using: str) -> Any:
    found = collection.retrieve([identifier], False, [using])
    if not found:
        raise not_found(f"No point with id {identifier_json(identifier)} found")
    vector = found[0].vector
    if isinstance(vector, dict):
        vector = vector.get(using)
    if not vector:
        raise bad_request(f"point {identifier_json(identifier)} has no vector `{using}`")
    return vector


def checked_id(identifier: Any) -> Any:
    """The engine panics on nothing but is not kind either: a wrong id is the client's mistake, said in one line."""
    try:
        edge.HasIdCondition({identifier})
    except (TypeError, ValueError) as error:
        raise bad_json(
            f"value {identifier!r} is not a valid point ID, valid values are either an unsigned integer or a UUID"
        ) from error
    return identifier
