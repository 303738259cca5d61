"""The bucket of the backups is away when the instance dies: a replica stands in, end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target

REPLICA = "docs-replica"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """In service with 200 rows, of which the first 100 are in a backup, here and in the replica."""
    timing = Timing(clock_speed=5, schedule_speed=12)  # a tick every five seconds
    restore = {"fall_over_after": "20s", "attempts": 2, "empty_repository": "allow"}
    with LocalCloud(tmp_path_factory.mktemp("replicas"), engine="redis", timing=timing) as cloud:
        target = Target(cloud, replica=REPLICA, restore=restore)
        target.launch()
        target.load(1, 100)
        result = target.back_up()
        assert result["ok"] and any("copied to" in finding for finding in result["findings"]), result
        target.load(101, 200)
        yield target


def told(target: Target, words: str, limit: float = 60) -> str:
    found = wait_for(f"the e-mail: {words}", lambda: [m for m in target.cloud.mail if words in m.subject], limit)
    return found[0].body


def test_a_replica_stands_in_and_the_bucket_gets_its_owner_back(target: Target) -> None:
    target.cloud.s3_faults.add(bucket=target.database.bucket, error="AccessDenied", times=math.inf)
    dead = target.kill()
    new = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=60)
    assert "stands in from" in told(target, "the backups cannot be read")
    assert target.served(other_than=(dead,), limit=180) == new
    assert target.rows() == set(range(1, 101)), "exactly what was backed up"
    assert "from the replica" in told(target, "restored and serving")
    assert target.pointer(REPLICA)["owner"] == new

    target.cloud.s3_faults.clear()
    wait_for("its owner", lambda: target.pointer()["owner"] == new, 60)
    assert target.pointer()["generation"] == target.pointer(REPLICA)["generation"] == 2
    assert target.pointer()["backup_id"] in told(target, "backups go to the repository again")


def test_then_everything_is_as_before(target: Target) -> None:
    target.load(201, 300)
    result = target.back_up()
    assert result["ok"], result
    dead = target.kill()
    target.served(other_than=(dead,))
    assert target.rows() == {*range(1, 101), *range(201, 301)}
    target.assert_restorable()


def test_nothing_was_done_that_the_roles_do_not_allow(target: Target) -> None:
    assert target.cloud.denied == []
