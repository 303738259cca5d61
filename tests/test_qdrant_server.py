"""The Qdrant of these tests answers as a real Qdrant 1.18.3 did: each recorded request is sent to it, in the recorded
order, and status, headers and the shape of the body are compared.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qdrant_server.process import QdrantServer
from qdrant_server.recorded import RECORDINGS, Recording, archive, damaged, differences, recordings

FULL, READ_ONLY = "full", "ro"
# What the real server does with live data when it recovers an archive with this damage over it.
SURVIVES = ("empty", "garbage", "half", "no-config", "no-shard", "no-shard-config", "no-wal", "segment-tar-garbage")
LOST = ("wal-garbage", "segment-json-garbage")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address of a file server on it."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    running = QdrantServer(tmp_path / "qdrant").start()
    yield running
    running.kill()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[QdrantServer]:
    running = QdrantServer(tmp_path / "qdrant", FULL, READ_ONLY).start()
    yield running
    running.kill()


class Replay:
    """Sends recorded requests; names and addresses in them become those of this run."""

    def __init__(self, server: QdrantServer, replacements: dict[str, str]) -> None:
        self.server, self.replacements = server, replacements
        self.found: list[str] = []

    def send(self, recording: Recording, body: Any = None) -> Any:
        request = json.loads(self.replaced(json.dumps(recording.request)))
        body = request.get("body") if body is None else body
        data = b'{"vectors":' if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        headers = request.get("headers", {}) | {"Accept-Encoding": "identity"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if request["api_key"] != "none":
            headers["api-key"] = request["api_key"]
        url = self.server.url + request["path"]
        reply = self.server.session.request(request["method"], url, data=data, headers=headers, timeout=60)
        answer = body_of(reply.content, recording.response["body"])
        different = differences(recording.response, reply.status_code, dict(reply.headers), answer)
        self.found += [f"{recording.number:03} {recording.name}: {one}" for one in different]
        return answer

    def replaced(self, text: str) -> str:
        for recorded, actual in self.replacements.items():
            text = text.replace(recorded, actual)
        return text


def body_of(data: bytes, recorded: Any) -> Any:
    """As it was recorded: JSON, short text, or the number of bytes."""
    if isinstance(recorded, str) and recorded.startswith("<"):
        return f"<{len(data)} bytes>"
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


def until_next_second() -> None:
    time.sleep(1.02 - time.time() % 1)


# ---- the recordings -------------------------------------------------------------------------------------------------


def test_requests_on_collections_points_and_snapshots(guarded: QdrantServer) -> None:
    """001-077: probes, keys, points, aliases, snapshots of every kind, and the same with a read-only key."""
    replay = Replay(guarded, {})
    second = None
    for recording in recordings(1, 77):
        if recording.name == "probe-metrics":
            recording.response["body"] = "<2688 bytes>"
        if recording.name == "snapshot-delete":
            until_next_second()
            second = guarded.result("POST", "/collections/c/snapshots")["name"]
            replay.replacements[recording.request["path"].rsplit("/", 1)[1]] = second
            until_next_second()
        answer = replay.send(recording)
        if recording.name in ("snapshot-create", "full-create"):
            until_next_second()  # or the next snapshot would have the same name
            replay.replacements[recording.response["body"]["result"]["name"]] = answer["result"]["name"]
    assert replay.found == []
    assert second not in [one["name"] for one in guarded.result("GET", "/collections/c/snapshots")]


def test_recovery(guarded: QdrantServer, files: tuple[Path, str], tmp_path: Path) -> None:
    """078-092: recovery from URLs and files, checksums, other configurations."""
    good = collection_of_the_recordings(guarded)
    folder, address = files
    (folder / "good.snapshot").write_bytes(good.read_bytes())
    (tmp_path / "qdrant" / "good.snapshot").write_bytes(good.read_bytes())
    checksum = good.with_name(good.name + ".checksum").read_text()
    recorded_sum = "398e4029fbe869b1f0148d124c274fd8c14920c45552553e519bd2b855da86f0"
    replacements = {
        "c-264278664572963-2026-11-21-10-08-04.snapshot": good.name,
        recorded_sum: checksum,
        recorded_sum.upper(): checksum.upper(),
        "127.0.0.1:8000": address,
        "127.0.0.1:16399": f"127.0.0.1:{closed_port()}",
        "/qdrant/": f"{tmp_path}/qdrant/",
    }
    replay = Replay(guarded, replacements)
    vectors = {"vectors": {"size": 4, "distance": "Cosine"}}
    guarded.result("PUT", "/collections/d8", {"vectors": {"size": 8, "distance": "Cosine"}})
    guarded.result("PUT", "/collections/d2s", {**vectors, "shard_number": 2})
    guarded.result("PUT", "/collections/dh", {**vectors, "hnsw_config": {"m": 8}})
    for recording in recordings(78, 92):
        if recording.name == "recover-http-existing":
            point = {"id": 500, "vector": [1, 1, 1, 1], "payload": {"n": 1}}
            guarded.result("PUT", "/collections/c/points?wait=true", {"points": [point]})
        replay.send(recording)
    assert replay.found == []
    assert guarded.count("c") == guarded.count("c2") == guarded.count("c3") == 8
    assert guarded.result("GET", "/collections/dh")["config"]["hnsw_config"]["m"] == 8
    wait_for(lambda: guarded.result("GET", "/collections/c5/exists")["exists"] and guarded.count("c5") == 8)
    assert guarded.ask("GET", "/collections/c4").status_code == 404
    assert list((guarded.storage / "tmp").iterdir()) == []


def test_recovery_of_damaged_archives(guarded: QdrantServer, files: tuple[Path, str]) -> None:
    """093-124: over live data and into a new name, and what is left of the live data."""
    good = collection_of_the_recordings(guarded)
    folder, address = files
    archives = damaged(good.read_bytes())
    for name, data in archives.items():
        (folder / f"{name}.snapshot").write_bytes(data)
    replay = Replay(guarded, {"127.0.0.1:8000": address})
    point = {"points": [{"id": 777, "vector": [1, 1, 1, 1], "payload": {}}]}
    recover_good(guarded, good)
    for recording in recordings(93, 124):
        damage = re.sub("^recover-(new-)?", "", recording.name)
        over_live_data = not recording.name.startswith("recover-new-")
        if over_live_data:
            guarded.result("PUT", "/collections/v/points?wait=true", point)
            assert guarded.count("v") == 9, damage
        replay.send(recording)
        if over_live_data and damage in LOST:
            assert lost(guarded, "v"), damage
            recover_good(guarded, good)  # heals it
        elif over_live_data:
            assert guarded.count("v") == (9 if damage in SURVIVES else 8), damage
    assert replay.found == []
    assert guarded.count("newno-wal") == 0, "a recovery that was refused leaves an empty collection behind"
    assert guarded.ask("GET", "/collections/newno-config").status_code == 404
    vectors = guarded.points("newsegment-vectors-missing")
    assert [one["vector"] for one in vectors.values()] == [{}] * 8, "the engine accepts a segment without vectors"
    guarded.kill()
    guarded.start()
    reply = guarded.ask("GET", "/collections/newwal-garbage")
    assert (reply.status_code, "Dirty shard" in reply.text) == (500, True), "and a lost shard stays lost"


def test_partial_snapshots_and_aliases(server: QdrantServer) -> None:
    """200-221, on the collection of the recordings, which was made by a real server."""
    upload(server, "/collections/tiny/snapshots/upload", archive("collection-snapshot"))
    action = {"create_alias": {"collection_name": "tiny", "alias_name": "places"}}
    server.result("POST", "/collections/aliases", {"actions": [action]})
    manifest = "/collections/tiny/shards/0/snapshot/partial/manifest"
    before = server.result("GET", manifest)
    change = {"points": [{"id": 40, "vector": [40, 1, 2, 3], "payload": {"city": "Oslo"}}]}
    server.result("PUT", "/collections/tiny/points?wait=true", change)
    replay = Replay(server, {})
    for recording in recordings(200, 221):
        body = None
        if recording.name == "201-partial-create-changed":
            body = before
        elif recording.name == "202-partial-create-304":
            body = server.result("GET", manifest)
        recording.request.setdefault("api_key", "none")
        replay.send(recording, body)
    assert replay.found == []


# ---- archives of a real server --------------------------------------------------------------------------------------


def test_archives_of_a_real_server_are_recovered(server: QdrantServer) -> None:
    """Each form brings the recorded points, and its log's numbering goes on."""
    expected = recorded_points()
    upload(server, "/collections/whole/snapshots/upload", archive("collection-snapshot"))
    for name in ("shard-snapshot", "shard-stream"):
        server.result("PUT", f"/collections/{name}", {"vectors": {"size": 4, "distance": "Dot"}})
        upload(server, f"/collections/{name}/shards/0/snapshots/upload", archive(name))
    for name in ("whole", "shard-snapshot", "shard-stream"):
        assert server.points(name) == expected, name
        assert server.result("GET", f"/collections/{name}")["payload_schema"]["city"]["points"] == 28
        point = {"points": [{"id": 77, "vector": [1, 1, 1, 1]}]}
        done = server.result("PUT", f"/collections/{name}/points?wait=true", point)
        assert done == {"operation_id": 77, "status": "completed"}, name
    partial = archive("partial-0-from-nothing")
    reply = upload(server, "/collections/whole/shards/0/snapshots/upload", partial, good=False)
    assert reply.status_code == 400, "a partial archive is not a whole one"


def test_archives_have_the_layout_of_a_real_servers(server: QdrantServer, tmp_path: Path) -> None:
    upload(server, "/collections/tiny/snapshots/upload", archive("collection-snapshot"))
    shard = "/collections/tiny/shards/0"
    made = {"collection-snapshot": server.result("POST", "/collections/tiny/snapshots")["name"]}
    stored = server.snapshots / "tiny" / made["collection-snapshot"]
    assert layout(stored) == recorded_layout("collection-snapshot")
    made["shard-snapshot"] = server.result("POST", f"{shard}/snapshots")["name"]
    assert layout(server.snapshots / "tiny/shards/0" / made["shard-snapshot"]) == recorded_layout("shard-snapshot")
    (tmp_path / "stream.tar").write_bytes(server.ask("GET", f"{shard}/snapshot").content)
    assert layout(tmp_path / "stream.tar") == recorded_layout("shard-stream")
    (tmp_path / "partial.tar").write_bytes(server.ask("POST", f"{shard}/snapshot/partial/create", {}).content)
    assert layout(tmp_path / "partial.tar") == recorded_layout("partial-0-from-nothing")
    assert stored.stat().st_size < 200_000, "files with holes are stored without the holes"


# ---- helpers --------------------------------------------------------------------------------------------------------


def collection_of_the_recordings(server: QdrantServer) -> Path:
    """The collection `c` with its 8 points, and its snapshot."""
    server.result("PUT", "/collections/c", {"vectors": {"size": 4, "distance": "Cosine"}})
    server.result("PUT", "/collections/c/index?wait=true", {"field_name": "n", "field_schema": "integer"})
    points = [{"id": n, "vector": [n, 1, 2, 3], "payload": {"n": n}} for n in range(1, 9)]
    server.result("PUT", "/collections/c/points?wait=true", {"points": points})
    return server.snapshots / "c" / server.result("POST", "/collections/c/snapshots")["name"]


def recover_good(server: QdrantServer, snapshot: Path) -> None:
    assert server.result("PUT", "/collections/v/snapshots/recover", {"location": f"file://{snapshot}"})


def lost(server: QdrantServer, name: str) -> bool:
    calls = [
        ("GET", "", None),
        ("POST", "/points/count", {}),
        ("PUT", "/points?wait=true", {"points": [{"id": 1, "vector": [1, 1, 1, 1]}]}),
    ]
    replies = [server.ask(method, f"/collections/{name}{path}", body) for method, path, body in calls]
    return all(reply.status_code == 500 and "Failed to restore local replica" in reply.text for reply in replies)


def upload(server: QdrantServer, path: str, data: bytes, good: bool = True) -> Any:
    url = f"{server.url}{path}?priority=snapshot"
    reply = server.session.post(url, files={"snapshot": ("recorded.snapshot", data)}, timeout=60)
    assert (reply.status_code == 200) == good, reply.text
    return reply


def recorded_points() -> dict[int, Any]:
    """At the moment of the archives: before 40 to 42 came and 9 went."""
    end = json.loads((RECORDINGS / "archives" / "points-at-the-end.json").read_text())
    points = {int(number): point for number, point in end.items() if int(number) < 40}
    points[9] = {"payload": {"city": "Paris", "n": 9, "r": 0, "step": 68}, "vector": [9, 0, 2, 3]}
    return points


SERVERS_OWN = ("newest_clocks.json", "applied_seq.json")  # of the real server's replication; not of the engine
ENGINES_NEWER = ("tracker_journal.dat",)  # the engine is newer than the recorded server


def layout(path: Path) -> set[str]:
    """The names in an archive, with the segments' own archives opened, and ids and numbers taken out."""
    with tarfile.open(path) as outer:
        names = [member.name for member in outer]
        for name in list(names):
            if name.endswith(".tar"):
                with tarfile.open(fileobj=outer.extractfile(name)) as inner:
                    names += ["  " + one for one in inner.getnames()]
    return {general(name) for name in names if not name.endswith(ENGINES_NEWER)}


def recorded_layout(name: str) -> set[str]:
    lines = (RECORDINGS / "archives" / f"{name}.list.txt").read_text().splitlines()
    found = (re.fullmatch(r"( *)[-Sd] +\d+ (.*)", line) for line in lines)
    names = {general(one[1] + one[2]) for one in found if one}
    return {one for one in names if not one.endswith(SERVERS_OWN)}


def general(name: str) -> str:
    return re.sub(r"closed-\d+", "closed-N", re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", "SEGMENT", name))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
