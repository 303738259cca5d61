"""A first launch on a repository that was read and found empty. (One cloud at a time in a process, hence a file of its own.)"""

from __future__ import annotations

from pathlib import Path

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target


def test_an_empty_repository_is_refused_unless_the_settings_allow_it(tmp_path: Path) -> None:
    restore = {"timeout": "2h", "stalled_after": "10m", "attempts": 2, "empty_repository": "refuse"}
    with LocalCloud(tmp_path, timing=Timing(clock_speed=20, schedule_speed=20)) as cloud:
        target = Target(cloud, restore=restore)
        target.database.set_capacity(1)
        new = target.database.wait_for_state("Pending:Wait", limit=60)
        wait_for("the e-mail", lambda: any("nothing to restore" in s for s in target.subjects()), 60)
        assert target.database.holder() is None and target.database.members()[new] == "Pending:Wait"
        assert not target.keys("runs/")
