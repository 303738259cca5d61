"""What the Qdrant of these tests promises about data: acknowledged writes survive a kill, snapshots taken under a writer
are whole, a bad recovery leaves the live data alone, aliases move in one step.
"""

from __future__ import annotations

import http.server
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge
import requests

from qdrant_server import tar, wal
from qdrant_server.process import QdrantServer

VECTORS = {"vectors": {"size": 4, "distance": "Dot"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    running = QdrantServer(tmp_path / "qdrant").start()
    yield running
    running.kill()


class Writer:
    """A client that never stops: points 1, 2, 3, …, one after the other, each with its number as payload."""

    def __init__(self, server: QdrantServer, collection: str) -> None:
        self.url, self.collection = server.url, collection
        self.acknowledged, self.sent, self.failed = 0, 0, []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        session = requests.Session()
        url = f"{self.url}/collections/{self.collection}/points"
        while not self.ended.is_set():
            self.sent += 1
            point = {"id": self.sent, "vector": [self.sent, 1, 2, 3], "payload": {"n": self.sent}}
            wait = {"wait": str(self.sent % 3 != 0).lower()}
            try:
                reply = session.put(url, params=wait, json={"points": [point]}, timeout=30)
            except requests.ConnectionError:
                return
            if reply.status_code != 200:
                self.failed.append(reply.text)
                return
            self.acknowledged = self.sent

    def past(self, number: int) -> int:
        while self.acknowledged < number:
            assert self.thread.is_alive(), self.failed
            time.sleep(0.005)
        return self.acknowledged

    def stop(self) -> int:
        self.ended.set()
        self.thread.join()
        assert not self.failed, self.failed
        return self.acknowledged


def test_acknowledged_writes_survive_a_kill(server: QdrantServer) -> None:
    server.result("PUT", "/collections/k", {**VECTORS, "optimizers_config": {"flush_interval_sec": 1}})
    writer = Writer(server, "k")
    writer.past(200)
    time.sleep(1.2)  # past a flush
    writer.past(writer.acknowledged + 50)
    server.kill()
    writer.thread.join()
    server.start()
    points = server.points("k")
    assert len(points) in (writer.acknowledged, writer.sent)
    assert sorted(points) == list(range(1, len(points) + 1))
    assert all(point["payload"] == {"n": n} and point["vector"][0] == n for n, point in points.items())
    done = server.result("POST", "/collections/k/points/delete?wait=true", {"points": [1]})
    log = server.storage / "collections/k/0/wal"
    assert done["operation_id"] == wal.next_number(log) - 1 == len(points) + 1, "numbering goes on"


def test_collections_aliases_and_indexes_survive_a_kill(server: QdrantServer) -> None:
    server.result("PUT", "/collections/a", VECTORS)
    server.result("PUT", "/collections/gone", VECTORS)
    server.result("PUT", "/collections/a/index?wait=true", {"field_name": "n", "field_schema": "integer"})
    actions = [{"create_alias": {"collection_name": name, "alias_name": f"to-{name}"}} for name in ("a", "gone")]
    server.result("POST", "/collections/aliases", {"actions": actions})
    assert server.result("DELETE", "/collections/gone")
    (server.storage / "collections" / "half-made" / "0").mkdir(parents=True)
    (server.storage / "tmp" / "left-over").mkdir()
    server.kill()
    server.start()
    assert [one["name"] for one in server.result("GET", "/collections")["collections"]] == ["a"]
    assert server.result("GET", "/aliases")["aliases"] == [{"alias_name": "to-a", "collection_name": "a"}]
    assert "n" in server.result("GET", "/collections/to-a")["payload_schema"]
    assert list((server.storage / "tmp").iterdir()) == []


def test_snapshots_under_a_writer_are_whole(server: QdrantServer) -> None:
    """Each kind holds every write that was acknowledged before the request, and no write without those before it."""
    server.result("PUT", "/collections/w", VECTORS)
    server.result("PUT", "/collections/from-stream", VECTORS)
    writer = Writer(server, "w")
    before_snapshot = writer.past(100)
    snapshot = server.result("POST", "/collections/w/snapshots")
    before_stream = writer.past(writer.acknowledged + 50)
    stream = server.ask("GET", "/collections/w/shards/0/snapshot").content
    end = writer.stop()
    location = {"location": f"file://{server.snapshots}/w/{snapshot['name']}", "checksum": snapshot["checksum"]}
    server.result("PUT", "/collections/from-snapshot/snapshots/recover", location)
    upload(server, "/collections/from-stream/shards/0/snapshots/upload", stream)
    for name, least in (("from-snapshot", before_snapshot), ("from-stream", before_stream)):
        found = sorted(server.points(name))
        assert least <= len(found) <= end, name
        assert found == list(range(1, len(found) + 1)), name
    assert server.count("w") == end


def test_two_snapshots_in_a_second_share_a_name(server: QdrantServer) -> None:
    server.result("PUT", "/collections/s", VECTORS)
    for _ in range(5):  # a machine that is busy may not make two in one second
        time.sleep(1 - time.time() % 1)
        names = [server.result("POST", "/collections/s/snapshots")["name"] for _ in range(2)]
        if names[0] == names[1]:
            break
    assert names[0] == names[1]
    listed = [one["name"] for one in server.result("GET", "/collections/s/snapshots")]
    assert listed.count(names[0]) == 1


def test_what_goes_wrong_in_the_background_is_only_logged(server: QdrantServer) -> None:
    server.result("PUT", "/collections/b", VECTORS)
    for method, path, body in [
        ("POST", "/collections/nope/snapshots", None),
        ("PUT", "/collections/new/snapshots/recover", {"location": "ftp://nowhere/x"}),
        ("POST", "/collections/b/shards/9/snapshots", None),
    ]:
        reply = server.ask(method, f"{path}?wait=false", body)
        assert (reply.status_code, reply.json()["status"]) == (202, "accepted")
    until(lambda: all(text in server.log.read_text() for text in ("`nope` doesn't exist", "ftp", "shard 9 not found")))
    point = {"points": [1, 999], "payload": {"x": 1}}
    assert server.result("POST", "/collections/b/points/payload?wait=false", point)["status"] == "acknowledged"
    until(lambda: 'snapshot_recovery_running{id="new"} 0' in server.ask("GET", "/metrics").text)


def test_a_download_that_is_cut_leaves_the_live_data(server: QdrantServer) -> None:
    """Also one that redirects, has no length, and needs a key: then it works."""
    server.result("PUT", "/collections/l", VECTORS)
    put(server, "l", range(1, 4))
    snapshot = server.result("POST", "/collections/l/snapshots")
    archive = (server.snapshots / "l" / snapshot["name"]).read_bytes()
    put(server, "l", range(4, 6))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), source_of(archive)) as source:
        threading.Thread(target=source.serve_forever).start()
        base = f"http://127.0.0.1:{source.server_port}"
        for kind in ("cut", "cut-chunked"):
            reply = server.ask("PUT", "/collections/l/snapshots/recover", {"location": f"{base}/{kind}"})
            assert (reply.status_code, server.count("l")) == (500, 5), reply.text
        request = {"location": f"{base}/moved?token=1", "api_key": "secret", "checksum": snapshot["checksum"]}
        assert server.result("PUT", "/collections/l/snapshots/recover", request)
        assert server.count("l") == 3
        source.shutdown()
    assert list((server.storage / "tmp").iterdir()) == []


def source_of(archive: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    class Source(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/chunked")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            key_missing = path == "/chunked" and self.headers.get("api-key") != "secret"
            self.send_response(403 if key_missing else 200)
            chunked = path.endswith("chunked")
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(archive)))))
            self.end_headers()
            data = archive if path == "/chunked" else archive[: len(archive) * 3 // 4]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            if path == "/chunked":
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True
            return None

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    return Source


def test_uploads(server: QdrantServer) -> None:
    server.result("PUT", "/collections/u", VECTORS)
    put(server, "u", range(1, 4))
    snapshot = server.result("POST", "/collections/u/snapshots")
    archive = (server.snapshots / "u" / snapshot["name"]).read_bytes()
    path = "/collections/copy/snapshots/upload"
    reply = upload(server, f"{path}?checksum={'1' * 64}", archive)
    assert reply.status_code == 400
    assert f"expected {snapshot['checksum']}, got {'1' * 64}" in reply.text, "the real server mixes the two up as well"
    assert upload(server, f"{path}?checksum=abc", archive).status_code == 422
    assert upload(server, path, archive, field="file").status_code == 400
    assert server.ask("GET", "/collections/copy").status_code == 404
    assert upload(server, f"{path}?checksum={snapshot['checksum'].upper()}", archive).status_code == 200
    assert server.points("copy") == server.points("u")
    assert (server.snapshots / "copy" / "mine.snapshot").exists(), "the file stays, as on the real server"
    body, boundary = multipart(archive)
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))  # without a length
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert server.session.post(f"{server.url}/collections/c3/snapshots/upload", data=pieces, headers=headers).ok
    assert server.count("c3") == 3


def multipart(content: bytes) -> tuple[bytes, str]:
    prepared = requests.Request("POST", "http://x", files={"snapshot": ("mine.snapshot", content)}).prepare()
    return prepared.body, prepared.headers["Content-Type"].split("boundary=")[1]


def test_shard_snapshots_are_recovered_by_name_and_url(server: QdrantServer) -> None:
    for name in ("one", "two"):
        server.result("PUT", f"/collections/{name}", VECTORS)
    put(server, "one", range(1, 6))
    snapshot = server.result("POST", "/collections/one/shards/0/snapshots")
    recover = "/shards/0/snapshots/recover"
    put(server, "one", range(6, 9))
    assert server.result("PUT", f"/collections/one{recover}", {"location": snapshot["name"]}) is True
    assert server.count("one") == 5
    url = f"{server.url}/collections/one/shards/0/snapshots/{snapshot['name']}"
    assert server.result("PUT", f"/collections/two{recover}", {"location": url, "checksum": snapshot["checksum"]})
    assert server.points("two") == server.points("one")
    assert put(server, "two", range(9, 10)) == put(server, "one", range(9, 10)) == 2, (
        "numbering goes on behind the archive"
    )
    statuses = {
        "wrong checksum": server.ask("PUT", f"/collections/two{recover}", {"location": url, "checksum": "0" * 64}),
        "a file URL": server.ask("PUT", f"/collections/two{recover}", {"location": "file:///x"}),
        "no collection": server.ask("PUT", f"/collections/zz{recover}", {"location": url}),
        "POST": server.ask("POST", f"/collections/two{recover}", {"location": url}),
    }
    assert {what: reply.status_code for what, reply in statuses.items()} == {
        "wrong checksum": 400,
        "a file URL": 400,
        "no collection": 404,
        "POST": 404,
    }


def test_an_alias_moves_in_one_step(server: QdrantServer) -> None:
    for name, count in (("old", 1), ("new", 2)):
        server.result("PUT", f"/collections/{name}", VECTORS)
        put(server, name, range(count))
    move(server, "old")
    seen, ended = set(), threading.Event()

    def client() -> None:
        session = requests.Session()
        while not ended.is_set():
            reply = session.post(f"{server.url}/collections/live/points/count", json={}, timeout=30)
            seen.add((reply.status_code, reply.json().get("result", {}).get("count")))

    clients = [threading.Thread(target=client) for _ in range(2)]
    for one in clients:
        one.start()
    for turn in range(40):
        move(server, "new" if turn % 2 == 0 else "old")
    ended.set()
    for one in clients:
        one.join()
    assert seen == {(200, 1), (200, 2)}
    refused = {
        "actions": [
            {"delete_alias": {"alias_name": "live"}},
            {"create_alias": {"collection_name": "x", "alias_name": "y"}},
        ]
    }
    assert server.ask("POST", "/collections/aliases", refused).status_code == 404
    assert server.count("live") == 1, "all actions or none"


def test_ids_vectors_filters_and_queries(server: QdrantServer) -> None:
    config = {
        "vectors": {
            "a": {"size": 2, "distance": "Cosine"},
            "m": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"s": {}},
    }
    server.result("PUT", "/collections/v", config)
    identifier = str(uuid.uuid4())
    points = [
        {"id": 1, "vector": {"a": [3, 4], "s": {"indices": [7], "values": [0.5]}}, "payload": {"n": 1, "tag": ["x"]}},
        {"id": identifier, "vector": {"a": [4, 3], "m": [[1, 0], [0, 1]]}, "payload": {"n": 2.5, "tag": ["x", "y"]}},
    ]
    server.result("PUT", "/collections/v/points?wait=true", {"points": points})
    batch = {"batch": {"ids": [3], "vectors": {"a": [[1, 0]]}, "payloads": [None]}}
    server.result("PUT", "/collections/v/points?wait=true", batch)
    stored = server.points("v")
    assert list(stored) == [1, 3, identifier]
    assert stored[1]["vector"] == {"a": [0.6, 0.8], "s": {"indices": [7], "values": [0.5]}}
    assert stored[identifier]["vector"]["m"] == [[1, 0], [0, 1]]
    for condition, expected in [
        ({"must": [{"key": "n", "match": {"value": 1}}]}, [1]),
        ({"must": {"key": "n", "range": {"gt": 1}}}, [identifier]),
        ({"must_not": [{"has_id": [1, 3]}]}, [identifier]),
        ({"should": [{"key": "tag", "match": {"any": ["y", "z"]}}, {"has_id": [3]}]}, [3, identifier]),
        ({"must": [{"is_empty": {"key": "n"}}]}, [3]),
        ({"must": [{"key": "tag", "values_count": {"gte": 2}}]}, [identifier]),
        ({"must": [{"has_vector": "m"}]}, [identifier]),
        ({"min_should": {"conditions": [{"has_id": [1]}, {"key": "n", "match": {"value": 1}}], "min_count": 2}}, [1]),
    ]:
        page = server.result("POST", "/collections/v/points/scroll", {"filter": condition})
        assert [one["id"] for one in page["points"]] == expected, condition
        assert server.result("POST", "/collections/v/points/count", {"filter": condition})["count"] == len(expected)
    for query, expected in [
        ({"query": [1, 0], "using": "a", "params": {"exact": True}}, [3, identifier, 1]),
        ({"query": {"nearest": 1}, "using": "a", "limit": 1}, [identifier]),
        ({"query": {"indices": [7], "values": [2.0]}, "using": "s"}, [1]),
        ({"query": [[1, 1]], "using": "m"}, [identifier]),
        ({"query": identifier, "using": "a", "filter": {"must": [{"has_id": [3]}]}}, [3]),
    ]:
        found = server.result("POST", "/collections/v/points/query", query)["points"]
        assert [one["id"] for one in found] == expected, query
    for path, body, status in [
        ("/points/query", {"query": 99, "using": "a"}, 404),
        ("/points/query", {"query": {"sample": "random"}}, 400),
        ("/points/scroll", {"filter": {"most": []}}, 400),
        ("/points", {"ids": ["not-a-uuid"]}, 400),
        ("/points/delete", {}, 400),
    ]:
        assert server.ask("POST", f"/collections/v{path}", body).status_code == status, (path, body)


def test_several_shards(server: QdrantServer) -> None:
    server.result("PUT", "/collections/m", {**VECTORS, "shard_number": 3})
    put(server, "m", range(1, 31))
    server.result("POST", "/collections/m/points/delete?wait=true", {"points": [5, 6]})
    snapshot = server.result("POST", "/collections/m/snapshots")
    location = {"location": f"file://{server.snapshots}/m/{snapshot['name']}"}
    server.result("PUT", "/collections/copy/snapshots/recover", location)
    assert list(server.points("copy")) == [n for n in range(1, 31) if n not in (5, 6)]
    page = server.result("POST", "/collections/copy/points/scroll", {"limit": 4})
    assert ([one["id"] for one in page["points"]], page["next_page_offset"]) == ([1, 2, 3, 4], 7)
    nearest = {"query": [1, 0, 0, 0], "limit": 3, "offset": 1}
    found = server.result("POST", "/collections/copy/points/query", nearest)["points"]
    assert [one["id"] for one in found] == [29, 28, 27]
    shards = server.result("GET", "/collections/copy/cluster")["local_shards"]
    assert sum(one["points_count"] for one in shards) == 28
    assert all(one["points_count"] for one in shards)


@pytest.mark.parametrize("pieces", [0, 1, 3, 4, 25, 26, 60])
def test_files_with_holes_are_read_by_the_engines_own_reader(tmp_path: Path, pieces: int) -> None:
    """A sparse header has room for 4 pieces, each block after it for 21; the engine reads archives as the real server."""
    segment = tmp_path / "shard/segments" / str(uuid.uuid4()) / "files"
    long_name = segment / ("x" * 60) / ("y" * 60)
    long_name.mkdir(parents=True)
    with (long_name / "holes").open("wb") as file:
        for piece in range(pieces):
            file.seek((2 * piece + 1) << 16)
            file.write(bytes([piece + 1]) * 5000)
        file.truncate((2 * pieces + 2) << 16)
    with (tmp_path / "archive").open("wb") as file:
        archive = tar.Writer(file)
        archive.add_tree("", tmp_path / "shard")
        archive.finish()
    qdrant_edge.EdgeShard.unpack_snapshot(str(tmp_path / "archive"), str(tmp_path / "theirs"))
    with (tmp_path / "archive").open("rb") as file:
        tar.unpack(file, tmp_path / "ours")
    written = (long_name / "holes").read_bytes()
    assert [path.read_bytes() for path in (tmp_path / "theirs").rglob("holes")] == [written]
    assert [path.read_bytes() for path in (tmp_path / "ours").rglob("holes")] == [written]
    assert (tmp_path / "archive").stat().st_size < 10_000 + pieces * 9_000


# ---- helpers --------------------------------------------------------------------------------------------------------


def put(server: QdrantServer, collection: str, numbers: range) -> int:
    """The number of the operation."""
    points = [{"id": n, "vector": [n, 1, 2, 3], "payload": {"n": n}} for n in numbers]
    return server.result("PUT", f"/collections/{collection}/points?wait=true", {"points": points})["operation_id"]


def move(server: QdrantServer, name: str) -> None:
    create = {"create_alias": {"collection_name": name, "alias_name": "live"}}
    server.result("POST", "/collections/aliases", {"actions": [{"delete_alias": {"alias_name": "live"}}, create]})


def upload(server: QdrantServer, path: str, content: bytes, field: str = "snapshot") -> requests.Response:
    files = {field: ("mine.snapshot", content)}
    return server.session.post(server.url + path, files=files, timeout=60)


def until(what: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
