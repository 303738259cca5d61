"""Fixtures for every test here. Run them with `<cache>/venv/bin/python -m pytest tests`; tests/setup makes that
environment.

A missing server is a failure that names tests/setup, not a skip.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_cloud import LocalCloud, Timing


@pytest.fixture
def make_cloud(tmp_path: Path) -> Iterator[Callable[..., LocalCloud]]:
    """make_cloud(**options of LocalCloud): a started cloud, stopped after the test. Its files stay in pytest's folder
    of the test.
    """
    clouds, numbers = [], itertools.count(1)

    def make(**options: object) -> LocalCloud:
        clouds.append(LocalCloud(tmp_path / f"cloud-{next(numbers)}", **options).start())
        return clouds[-1]

    yield make
    for cloud in clouds:
        cloud.stop()


@pytest.fixture
def cloud(make_cloud: Callable[..., LocalCloud]) -> LocalCloud:
    """A cloud without long delays, whose long clocks run a hundred times faster, whose schedules run only on demand,
    and whose instances have no programs.
    """
    quick = Timing(
        boot=0.1, shutdown=0.1, health_check=0.1, launch_retry=0.3, ssm_register=0.2, clock_speed=100, schedule_speed=0
    )
    return make_cloud(timing=quick, programs=[])
