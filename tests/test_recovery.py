"""The main job, end to end: real functions, real agent, real Weaviate, a real S3 server; AWS is the local cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target, replaced_on_purpose


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """In service with 300 rows, of which the first 200 are in a scheduled backup. The tests of this file follow each
    other on it.
    """
    timing = Timing(clock_speed=5, schedule_speed=12)  # a tick every five seconds
    with LocalCloud(tmp_path_factory.mktemp("recovery"), timing=timing) as cloud:
        target = Target(cloud)
        target.launch()
        target.load(1, 200)
        assert target.back_up()["ok"]
        target.load(201, 300)
        yield target


def test_the_backup_is_whole_verified_and_measured(target: Target) -> None:
    target.assert_restorable()
    manifest = target.record(f"backups/{target.pointer()['backup_id']}/manifest.json")
    assert manifest["collections"][0]["count_before"] == manifest["collections"][0]["count_after"] == 200
    assert manifest["collections"][0]["samples"], "queries to be asked again after a restore"
    # The manifest wakes the verification, and the command's end the backup's own function: either may be first.
    for metric in ("VerificationGood", "BackupDuration", "BackupSize"):
        wait_for(f"the metric {metric}", lambda metric=metric: target.cloud.metrics.named(metric), 30)


def test_a_dead_instance_comes_back_with_its_data_then_its_address(target: Target) -> None:
    answers = [target.ask(n) for n in (7, 77, 177)]
    generation = target.pointer()["generation"]
    dead = target.kill()
    new = target.served(other_than=(dead,))
    assert target.rows() == set(range(1, 201)), "exactly what was backed up"
    assert [[n for n in target.ask(n) if n <= 200] for n in (7, 77, 177)] == [target.ask(n) for n in (7, 77, 177)]
    assert [target.ask(n)[0] for n in (7, 77, 177)] == [a[0] for a in answers]
    pointer = target.pointer()
    assert (pointer["owner"], pointer["generation"]) == (new, generation + 1)
    target.assert_restorable()
    told = wait_for("the e-mail", lambda: [m for m in target.cloud.mail if "restored and serving" in m.subject], 20)
    assert new in told[0].body and "What to do" in told[0].body
    assert any("lost without a final backup" in s for s in target.subjects())
    assert target.cloud.metrics.named("RestoreDuration")


def test_a_planned_replacement_loses_nothing_that_was_acknowledged(target: Target) -> None:
    old = replaced_on_purpose(target)
    wait_for("the old instance to go", lambda: old not in target.database.members(), 30)
    target.assert_restorable()


def test_an_instance_killed_while_it_restores_is_replaced(target: Target) -> None:
    rows = target.rows()
    assert target.back_up()["ok"]
    dead = target.kill()
    second = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=30)
    wait_for("its restore", lambda: any(k.startswith(f"runs/restore-{second}") for k in target.keys("runs/")), 30)
    target.cloud.kill(second)
    target.served(other_than=(dead, second), limit=180)
    assert target.rows() >= rows
    target.assert_restorable()


def test_nothing_was_done_that_the_roles_do_not_allow(target: Target) -> None:
    assert target.cloud.denied == []
