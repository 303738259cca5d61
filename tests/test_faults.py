"""What goes wrong around the main job, one test each, on real parts. After each the pointer names a backup that restores.

Deaths and lost replies at every single step are in functions/lifecycle/tests (simulated, thousands of histories) and in
agent/tests (the real agent, killed at every step); here the same kinds of trouble meet the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target

ROWS = set(range(1, 101))
EVENTS = ".*Lifecycle Action|.*Status-change.*"


@pytest.fixture(scope="module")
def shared_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with LocalCloud(tmp_path_factory.mktemp("faults"), timing=Timing(clock_speed=20, schedule_speed=20)) as cloud:
        target = Target(cloud)
        target.launch()
        target.load(1, 100)
        assert target.back_up()["ok"]
        yield target


@pytest.fixture
def target(shared_target: Target) -> Iterator[Target]:
    """In service with its rows before each test, and again after it."""
    yield shared_target
    cloud = shared_target.cloud
    cloud.s3_faults.clear()
    cloud.api_faults.clear()
    cloud.bus.calm()
    shared_target.served(limit=180)
    assert shared_target.rows() == ROWS
    shared_target.assert_restorable()


# What S3 may answer once and then not again; the agent and the functions go on by themselves.
PASSING = ["InternalError", "SlowDown", "ConditionalRequestConflict"]


@pytest.mark.parametrize("error", PASSING)
def test_a_restore_bears_an_s3_that_answers(target: Target, error: str) -> None:
    fault = target.cloud.s3_faults.add("PutObject" if "Conflict" in error else ".*", ".*", error=error, times=3)
    dead = target.kill()
    target.served(other_than=(dead,), limit=150)
    assert len(fault.hits) == 3, fault.hits


def test_a_take_over_whose_reply_is_lost_is_recognised_as_its_own(target: Target) -> None:
    generation = target.pointer()["generation"]
    fault = target.cloud.s3_faults.add("PutObject", ".*latest_weaviate_backup.*", lose_reply=True)
    dead = target.kill()
    target.served(other_than=(dead,), limit=150)
    assert fault.hits, "the reply of the compare-and-set was lost"
    assert target.pointer()["generation"] == generation + 1, "and it was done once"


def test_a_refused_take_over_is_decided_anew(target: Target) -> None:
    target.cloud.s3_faults.add("PutObject", ".*latest_weaviate_backup.*", error="PreconditionFailed")
    dead = target.kill()
    new = target.served(other_than=(dead,), limit=150)
    assert target.pointer()["owner"] == new


@pytest.mark.parametrize("error", ["AccessDenied", "NoSuchBucket"])
def test_a_repository_that_cannot_be_read_is_not_taken_for_an_empty_one(target: Target, error: str) -> None:
    target.cloud.s3_faults.add("GetObject|HeadObject|ListObjectsV2", ".*", error=error, times=10_000)
    dead = target.kill()
    new = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=60)
    told = "the backups cannot be read"
    wait_for("the e-mail", lambda: any(told in s for s in target.subjects()), 60)
    assert target.database.holder() is None, "no address without data"
    assert target.database.members()[new] == "Pending:Wait", "and the instance is kept waiting"


def test_doubled_late_and_reordered_events_change_nothing(target: Target) -> None:
    bus = target.cloud.bus
    bus.duplicate(EVENTS, times=math.inf)
    bus.delay(EVENTS, 3, times=2)
    generation = target.pointer()["generation"]
    with bus.shuffle(EVENTS):
        dead = target.kill()
        new = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=60)
    target.served(other_than=(dead,), limit=150)
    assert target.pointer()["generation"] == generation + 1
    assert len([k for k in target.keys(f"runs/restore-{new}") if k.endswith("claim.json")]) == 1


def test_the_tick_makes_good_for_events_that_never_arrive(target: Target) -> None:
    target.cloud.bus.drop(EVENTS, times=math.inf)
    dead = target.kill()
    target.served(other_than=(dead,), limit=150)


def test_an_instance_whose_agent_registers_late_is_waited_for(target: Target) -> None:
    dead = target.kill()
    new = target.database.wait_for_state("Pending", other_than=(dead,), limit=60)
    target.cloud.agent_down(new)
    wait_for("the hook", lambda: target.database.members()[new] == "Pending:Wait", 30)
    wait_for("heartbeats", lambda: [c for c in target.cloud.calls if "RecordLifecycleActionHeartbeat" in str(c)], 30)
    assert target.database.holder() is None
    target.cloud.agent_up(new)
    assert target.served(other_than=(dead,), limit=150) == new


def test_a_restore_whose_process_is_killed_is_tried_again(target: Target) -> None:
    dead = target.kill()
    new = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=60)
    machine = target.cloud.machine(new)
    kill = f"pkill -KILL -f 'run restore-{new}' && echo killed"
    wait_for("the agent", lambda: machine.run(kill, 5)[1].strip(), 60)
    assert target.served(other_than=(dead,), limit=180) == new
    assert any("a restore failed" in s for s in target.subjects())


def test_a_backup_that_fails_is_told_and_leaves_the_pointer(target: Target) -> None:
    before = target.pointer()
    target.cloud.s3_faults.add("PutObject", ".*backups/.*/manifest.json", error="AccessDenied", times=100)
    result = target.back_up()
    assert not result["ok"] and result["error"]["code"]
    assert target.pointer() == before
    wait_for("the e-mail", lambda: any("a backup failed" in s for s in target.subjects()), 30)


def test_a_backup_that_is_damaged_in_the_bucket_is_found_and_passed_over(target: Target) -> None:
    good = target.pointer()["backup_id"]
    assert target.back_up()["ok"]
    bad = target.pointer()["backup_id"]
    chunk = next(k for k in target.keys(f"backups/{bad}/") if "chunk" in k)
    target.s3.delete_object(Bucket=target.database.bucket, Key=f"{target.database.prefix}/{chunk}")
    target.cloud.fire("perennial-docs-verify")
    wait_for("the e-mail", lambda: any("a backup is damaged" in s for s in target.subjects()), 30)
    dead = target.kill()
    target.served(other_than=(dead,), limit=150)
    assert target.pointer()["backup_id"] == good


def test_a_truncated_pointer_is_passed_over_and_made_whole(target: Target) -> None:
    key = "latest_weaviate_backup.manifest.json"
    target.put(key, target.bytes(key)[:100])
    dead = target.kill()
    new = target.served(other_than=(dead,), limit=150)
    assert target.pointer()["owner"] == new
