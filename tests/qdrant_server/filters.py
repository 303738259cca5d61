"""Filters of the API in the engine's form."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from .errors import ApiError, bad_json

Json = dict[str, Any]


def filter_of(body: Json | None) -> edge.Filter | None:
    if body is None:
        return None
    try:
        return parse_filter(body)
    except ApiError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise bad_json(f"filter: {str(error).splitlines()[0]}") from error


def parse_filter(body: Json) -> edge.Filter:
    unknown = body.keys() - {"must", "should", "must_not", "min_should"}
    if unknown:
        raise bad_json(f"unknown field `{min(unknown)}`, expected one of `should`, `min_should`, `must`, `must_not`")
    few = body.get("min_should")
    return edge.Filter(
        must=conditions(body.get("must")),
        should=conditions(body.get("should")),
        must_not=conditions(body.get("must_not")),
        min_should=edge.MinShould(conditions(few["conditions"]), few["min_count"]) if few else None,
    )


def conditions(body: list[Json] | Json | None) -> list[Any] | None:
    if body is None:
        return None
    return [condition(one) for one in (body if isinstance(body, list) else [body])]


def condition(body: Json) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "has_vector" in body:
        return edge.HasVectorCondition(body["has_vector"])
    if "nested" in body:
        return edge.NestedCondition(body["nested"]["key"], parse_filter(body["nested"]["filter"]))
    if isinstance(body.get("is_empty"), dict):
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if isinstance(body.get("is_null"), dict):
        return edge.IsNullCondition(body["is_null"]["key"])
    if "key" in body:
        return field_condition(body)
    return parse_filter(body)


def field_condition(body: Json) -> edge.FieldCondition:
    known = {
        "match": match,
        "range": value_range,
        "values_count": lambda one: edge.ValuesCount(**one),
        "geo_bounding_box": lambda one: edge.GeoBoundingBox(point(one["top_left"]), point(one["bottom_right"])),
        "geo_radius": lambda one: edge.GeoRadius(point(one["center"]), one["radius"]),
        "geo_polygon": polygon,
        "is_empty": bool,
        "is_null": bool,
    }
    parts = {name: parse(body[name]) for name, parse in known.items() if body.get(name) is not None}
    if not parts:
        raise bad_json(f"the condition on `{body['key']}` asks for nothing")
    return edge.FieldCondition(body["key"], **parts)


def match(body: Json) -> Any:
    kinds = {
        "value": edge.MatchValue,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
    }
    for name, kind in kinds.items():
        if name in body:
            return kind(body[name])
    raise bad_json("data did not match any variant of untagged enum Match")


def value_range(body: Json) -> Any:
    dates = any(isinstance(value, str) for value in body.values())
    return (edge.RangeDateTime if dates else edge.RangeFloat)(**body)


def point(body: Json) -> edge.GeoPoint:
    return edge.GeoPoint(body["lon"], body["lat"])


def polygon(body: Json) -> edge.GeoPolygon:
    def line(one: Json) -> list[edge.GeoPoint]:
        return [point(each) for each in one["points"]]

    return edge.GeoPolygon(line(body["exterior"]), [line(one) for one in body.get("interiors") or []])
