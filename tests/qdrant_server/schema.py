"""A collection's configuration: the defaults and checks of the API, `config.json` on disk, and the engine's own form of
it. What belongs to the optimizer, to clusters and to quantization is kept and shown but has no effect here.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from .errors import bad_json, wrong_input

DISTANCES = {name: getattr(edge.Distance, name) for name in ("Cosine", "Euclid", "Dot", "Manhattan")}
DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZER = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
    "prevent_unoptimized": None,
}
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
VECTOR_FIELDS = ("size", "distance", "hnsw_config", "quantization_config", "on_disk", "datatype", "multivector_config")
FIELD_PARAMS = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}

Json = dict[str, Any]


def config_from_request(body: Json, column: int) -> Json:
    """The collection's config.json for the body of a create request; `column` is where the real server sees an error."""
    vectors = body.get("vectors") or {}
    sparse = body.get("sparse_vectors")
    if not valid_vectors(vectors):
        raise bad_json(f"data did not match any variant of untagged enum VectorsConfig at line 1 column {column}")
    shards = body.get("shard_number") or 1
    if not isinstance(shards, int) or shards < 1:
        raise bad_json(f"invalid value for shard_number at line 1 column {column}")
    params: Json = {
        "vectors": vectors,
        "shard_number": shards,
        "replication_factor": body.get("replication_factor") or 1,
        "write_consistency_factor": body.get("write_consistency_factor") or 1,
        "on_disk_payload": body.get("on_disk_payload", True),
    }
    if sparse:
        params["sparse_vectors"] = sparse
    return {
        "params": params,
        "hnsw_config": overlaid(HNSW, body.get("hnsw_config")),
        "optimizer_config": overlaid(OPTIMIZER, body.get("optimizers_config")),
        "wal_config": overlaid(WAL, body.get("wal_config")),
        "quantization_config": body.get("quantization_config"),
        "uuid": None,
    }


def overlaid(defaults: Json, given: Json | None) -> Json:
    return {**defaults, **{key: value for key, value in (given or {}).items() if value is not None}}


def valid_vectors(vectors: Any) -> bool:
    if not isinstance(vectors, dict):
        return False
    return all(
        isinstance(one, dict)
        and type(one.get("size")) is int
        and 1 <= one["size"] <= 65536
        and one.get("distance") in DISTANCES
        for one in named_vectors(vectors).values()
    )


def named_vectors(vectors: Json) -> dict[str, Json]:
    """A collection with one unnamed vector has it under the empty name."""
    return {"": vectors} if "size" in vectors else vectors


def edge_config(config: Json) -> edge.EdgeConfig:
    params, hnsw, optimizer = config["params"], config["hnsw_config"], config["optimizer_config"]
    return edge.EdgeConfig(
        vectors={name: edge_vector(one) for name, one in named_vectors(params.get("vectors") or {}).items()},
        sparse_vectors={name: edge_sparse(one or {}) for name, one in (params.get("sparse_vectors") or {}).items()},
        on_disk_payload=params.get("on_disk_payload"),
        hnsw_config=edge.HnswIndexConfig(hnsw["m"], hnsw["ef_construct"], hnsw["full_scan_threshold"]),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizer.get("deleted_threshold"),
            vacuum_min_vector_number=optimizer.get("vacuum_min_vector_number"),
            default_segment_number=optimizer.get("default_segment_number"),
            indexing_threshold=optimizer.get("indexing_threshold"),
        ),
    )


def edge_vector(one: Json) -> edge.EdgeVectorParams:
    multi = one.get("multivector_config")
    return edge.EdgeVectorParams(
        size=one["size"],
        distance=DISTANCES[one["distance"]],
        on_disk=one.get("on_disk"),
        datatype=DATATYPES.get(one.get("datatype") or ""),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
    )


def edge_sparse(one: Json) -> edge.EdgeSparseVectorParams:
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if one.get("modifier") == "idf" else None)


def field_index(schema: Any) -> Any:
    """The engine's form of a `field_schema`: a type, or a map with the type and its settings."""
    kind = schema if isinstance(schema, str) else (schema or {}).get("type")
    if kind not in FIELD_PARAMS:
        raise wrong_input(f"unknown field_schema {schema!r}; known: {', '.join(FIELD_PARAMS)}")
    if isinstance(schema, str):
        return getattr(edge.PayloadSchemaType, kind.capitalize())
    settings = {key: value for key, value in schema.items() if key != "type" and value is not None}
    if "tokenizer" in settings:
        settings["tokenizer"] = getattr(edge.TokenizerType, settings["tokenizer"].capitalize())
    try:
        return FIELD_PARAMS[kind](**settings)
    except (TypeError, AttributeError) as error:
        raise wrong_input(f"field_schema {schema!r}: {error}") from error


def check_compatible(existing: Json, snapshot: Json) -> None:
    """The real server compares these two and nothing else when a snapshot goes over an existing collection."""
    old, new = existing["params"], snapshot["params"]
    what = "Snapshot is not compatible with existing collection:"
    if described(old["vectors"]) != described(new["vectors"]):
        raise wrong_input(
            f"{what} Collection vectors: {described(old['vectors'])} Snapshot Vectors: {described(new['vectors'])}"
        )
    if old["shard_number"] != new["shard_number"]:
        raise wrong_input(
            f"{what} Collection shard number: {old['shard_number']} Snapshot shard number: {new['shard_number']}"
        )


def described(vectors: Json) -> str:
    """Vector parameters in the words of the real server's error."""

    def one(params: Json) -> str:
        values = [f"{key}: {params.get(key)}" for key in VECTOR_FIELDS]
        return f"VectorParams {{ {', '.join(values)} }}"

    if "size" in vectors:
        return f"Single({one(vectors)})"
    return "Multi({" + ", ".join(f'"{name}": {one(params)}' for name, params in sorted(vectors.items())) + "})"
