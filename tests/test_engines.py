"""The main job with the other engines, each at its own kind of address, end to end. tests/test_recovery.py has Weaviate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target, replaced_on_purpose

ASKED = (7, 17, 77)
LEAVES = {"ec2:DetachNetworkInterface", "ec2:UnassignPrivateIpAddresses"}


@pytest.fixture(scope="module", params=["qdrant", "redis"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """In service with 200 rows, of which the first 100 are in a backup. The tests of this file follow each other on it."""
    timing = Timing(clock_speed=5, schedule_speed=12)  # a tick every five seconds
    with LocalCloud(tmp_path_factory.mktemp(request.param), engine=request.param, timing=timing) as cloud:
        target = Target(cloud)
        target.launch()
        target.load(1, 100)
        assert target.back_up()["ok"]
        yield target


def test_a_backup_is_whole_and_holds_samples(target: Target) -> None:
    target.assert_restorable()
    [counted] = target.record(f"backups/{target.pointer()['backup_id']}/manifest.json")["collections"]
    assert counted["count_before"] == counted["count_after"] == 100 + target.client().bookkeeping
    assert counted["samples"], "what is looked at again after a restore"


def test_a_dead_instance_comes_back_with_its_data_then_its_address(target: Target) -> None:
    answers, address = [target.ask(n) for n in ASKED], target.database.url
    target.load(101, 200)
    dead = target.kill()
    new = target.served(other_than=(dead,))
    assert target.rows() == set(range(1, 101)), "exactly what was backed up"
    assert [target.ask(n) for n in ASKED] == answers
    assert (target.pointer()["owner"], target.database.url) == (new, address)
    told = wait_for("the e-mail", lambda: [m for m in target.cloud.mail if "restored and serving" in m.subject], 20)
    assert new in told[0].body


def test_a_planned_replacement_loses_nothing_that_was_acknowledged(target: Target) -> None:
    old = replaced_on_purpose(target)
    taken_away = [call for call in target.cloud.calls if call["call"] in LEAVES]
    if target.cloud.engine.name == "redis":
        assert not taken_away and not target.results(f"precopy-{old}"), "it goes on answering reads"
        return target.assert_restorable()
    # Qdrant cannot refuse writes: its clients are cut off before the final backup, but not before most of it is made.
    assert len(taken_away) == 1
    [precopy] = [target.record(f"runs/{run}/result.json") for run in target.results(f"precopy-{old}")]
    [final] = [target.record(f"runs/{run}/result.json") for run in target.results(f"final-{old}")]
    assert target.record(f"backups/{final['backup_id']}/manifest.json")["parent"] == precopy["backup_id"]
    target.assert_restorable()


def test_nothing_was_done_that_the_roles_do_not_allow(target: Target) -> None:
    assert target.cloud.denied == []
