"""A deployed target for end-to-end tests: the real functions, the real agent, a database of the cloud's engine with rows in it."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import uuid
from array import array

from clients import CLIENTS, Client, Refused, Row, connect
from local_cloud import LocalCloud
from local_cloud.cloud import built
from local_cloud.waiting import wait_for

FUNCTIONS = {f"{name.title()}Function": built(name) for name in ("lifecycle", "backup", "verify", "alert")}
COLLECTION, DIMENSIONS = "Row", 32


class Target:
    """One database with Perennial deployed around it. Rows are numbered; row n has a vector made from n, where there are
    vectors.
    """

    def __init__(self, cloud: LocalCloud, endpoint: str | None = None, replica: str = "", **settings: object) -> None:
        self.cloud = cloud
        self.database = cloud.create_database_stack(heartbeat=300, endpoint=endpoint, replica=replica)
        text = self.database.settings(**settings)
        cloud.deploy("../infra/template.yaml", self.database.parameters(settings=text), FUNCTIONS)
        self.s3 = cloud.client("s3")
        self.backups = 0

    # ---- the client's side -------------------------------------------------------------------------------------------

    def client(self, timeout: float = 10) -> Client:
        """Through the stable address. Each call here has one of its own: several threads make them."""
        return connect(self.cloud.engine.name, self.database.url, self.database.api_key, COLLECTION, timeout)

    def load(self, first: int, last: int) -> None:
        """Rows first..last, acknowledged."""
        client = self.client(timeout=60)
        if first == 1:
            client.create_collection(DIMENSIONS)
        client.write([self.row(n) for n in range(first, last + 1)])

    def write(self, n: int) -> bool:
        """Whether the write of row n was acknowledged."""
        try:
            self.client(timeout=5).write([self.row(n)])
        except Refused:
            return False
        return True

    def rows(self) -> set[int]:
        """Every row that a client can read; each must be as it was written."""
        found = {int(row.name): row for row in self.client(timeout=30).rows()}
        changed = [n for n, row in found.items() if row != self.row(n)]
        assert not changed, f"rows that came back changed: {changed[:10]}"
        return set(found)

    def ask(self, n: int) -> list[int]:
        """The rows whose vectors are nearest to that of row n, or whose names begin like its name."""
        client, row = self.client(), self.row(n)
        return [int(answer.name) for answer in client.ask(row.vector if client.searches else row.name, 5)]

    def row(self, n: int) -> Row:
        chance, dimensions = random.Random(n), DIMENSIONS if CLIENTS[self.cloud.engine.name].searches else 0
        vector = array("f", (chance.gauss(0, 1) for _ in range(dimensions)))
        return Row(str(uuid.uuid5(uuid.NAMESPACE_URL, f"row/{n}")), str(n), f"row {n}", vector)

    # ---- what happens to it ------------------------------------------------------------------------------------------

    def launch(self) -> str:
        """The first instance, in service."""
        self.database.set_capacity(1)
        return self.served()

    def served(self, other_than: tuple[str, ...] = (), limit: float = 90) -> str:
        """Waits until an instance is in service, has the address and answers there."""

        def ready() -> str | None:
            serving = [i for i, s in self.database.members().items() if s == "InService" and i not in other_than]
            if not serving or self.database.holder() not in serving:
                return None
            return serving[0] if self.client(timeout=2).is_ready() else None

        return wait_for("an instance in service that answers at the address", ready, limit, 0.2)

    def back_up(self, limit: float = 60) -> dict:
        """A scheduled backup; its result record."""
        known = set(self.results("backup-"))
        self.cloud.fire(f"perennial-{self.database.name}-backup")
        run = wait_for(
            "the backup's result", lambda: next(iter(set(self.results("backup-")) - known), None), limit, 0.2
        )
        return self.record(f"runs/{run}/result.json")

    def kill(self) -> str:
        """The instance in service dies; its id."""
        instance = self.database.holder()
        self.cloud.kill(instance)
        return instance

    def terminate(self) -> str:
        """The group is told to replace its instance; its id."""
        instance = self.database.holder()
        self.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=instance, ShouldDecrementDesiredCapacity=False
        )
        return instance

    # ---- what the repository says ------------------------------------------------------------------------------------

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.database.bucket, Prefix=f"{self.database.prefix}/{prefix}"
        )
        start = len(self.database.prefix) + 1
        return [o["Key"][start:] for page in pages for o in page.get("Contents", [])]

    def bytes(self, key: str, bucket: str = "") -> bytes:
        whole = f"{self.database.prefix}/{key}"
        return self.s3.get_object(Bucket=bucket or self.database.bucket, Key=whole)["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.database.bucket, Key=f"{self.database.prefix}/{key}", Body=body)

    def record(self, key: str) -> dict:
        return json.loads(self.bytes(key))

    def results(self, prefix: str) -> list[str]:
        """Names of the runs that have a result."""
        return [k.split("/")[1] for k in self.keys(f"runs/{prefix}") if k.endswith("/result.json")]

    def pointer(self, bucket: str = "") -> dict:
        return json.loads(self.bytes(self.database.pointer, bucket))

    def subjects(self) -> list[str]:
        return [mail.subject for mail in self.cloud.mail]

    def assert_restorable(self) -> None:
        """The pointer names a backup that is whole, checked here byte by byte without Perennial's own code."""
        folder = f"backups/{self.pointer()['backup_id']}"
        manifest = self.bytes(f"{folder}/manifest.json")
        assert hashlib.sha256(manifest).hexdigest() == self.pointer()["manifest_sha256"]
        for entry in json.loads(manifest)["objects"]:
            assert hashlib.sha256(self.bytes(f"{folder}/{entry['key']}")).hexdigest() == entry["sha256"], entry


class Writer:
    """A client that never stops writing; `acknowledged` are the rows that the database said it has."""

    def __init__(self, target: Target, first: int) -> None:
        self.target, self.next, self.acknowledged, self.refused = target, first, set(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            n, self.next = self.next, self.next + 1
            if self.target.write(n):
                self.acknowledged.add(n)
            else:
                self.refused += 1
                self._stop.wait(0.05)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def replaced_on_purpose(target: Target) -> str:
    """A planned replacement under a client that never stops; nothing that was acknowledged may be lost. The instance
    that went.
    """
    before = target.rows()
    with Writer(target, 1000) as writer:
        wait_for("some writes", lambda: len(writer.acknowledged) > 20)
        old = target.terminate()
        target.served(other_than=(old,), limit=120)
        wait_for("writes to the new instance", lambda: target.write(999), 20)
    missing = (before | writer.acknowledged) - target.rows()
    assert not missing, f"{len(missing)} acknowledged rows are lost: {sorted(missing)[:10]}"
    assert writer.refused, "writes were refused for a while"
    return old
