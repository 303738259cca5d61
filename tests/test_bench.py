"""The benchmark's own parts: the data are the same each time, changes are as large as they say, a wrong restore is seen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.data import MIB, VARIANTS, Data, day, variant
from bench.measure import Command, CommandFailed, run
from bench.server import LINE
from bench.tree import Differs, files, fingerprint, must_equal, total_bytes
from local_cloud.cloud import CACHE

SIZE, CHANGED = 8 * MIB, 80 * 1024


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(CACHE)


@pytest.fixture
def tree(data: Data, tmp_path: Path) -> Path:
    data.make(tmp_path / "tree", SIZE)
    return tmp_path / "tree"


def test_the_same_seed_makes_the_same_bytes(data: Data, tree: Path, tmp_path: Path) -> None:
    data.make(tmp_path / "again", SIZE)
    assert fingerprint(tmp_path / "again") == fingerprint(tree)
    assert total_bytes(tree) == pytest.approx(SIZE, rel=0.01)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_variant_touches_only_what_it_changes(tree: Path, tmp_path: Path, kind: str) -> None:
    before, times = fingerprint(tree), {path: path.stat().st_mtime_ns for path in files(tree)}
    variant(tree, tmp_path / "variant", kind, CHANGED)
    assert fingerprint(tree) == before, "the base stays as it is"
    assert {path: path.stat().st_mtime_ns for path in files(tree)} == times
    changed = 0
    for path in files(tmp_path / "variant"):
        base = tree / path.relative_to(tmp_path / "variant")
        if not path.samefile(base):
            old, new = base.read_bytes(), path.read_bytes()
            slots = range(0, len(new), 512)
            changed += sum(len(new[at : at + 512]) for at in slots if old[at : at + 512] != new[at : at + 512])
    assert changed == (0 if kind == "nothing" else CHANGED)


@pytest.mark.parametrize("scattered", [False, True])
def test_a_day_changes_a_tree_in_place(tree: Path, scattered: bool) -> None:
    before, size = fingerprint(tree), total_bytes(tree)
    day(tree, 1, SIZE // 20, scattered)
    assert fingerprint(tree) != before
    assert total_bytes(tree) - size == pytest.approx(0 if scattered else SIZE // 40, abs=1024)


def test_a_restored_tree_that_differs_is_named(tree: Path) -> None:
    expected = fingerprint(tree)
    must_equal(tree, expected, "nothing changed")
    wrong, absent = files(tree)[:2]
    wrong.write_bytes(b"x")
    absent.unlink()
    (tree / "more").touch()
    with pytest.raises(Differs) as seen:
        must_equal(tree, expected, "the base")
    for text in (f"{wrong.name} has another content", f"{absent.name} is missing", "more should not be there"):
        assert text in str(seen.value)


def test_processes_that_a_command_leaves_behind_are_waited_for_and_measured() -> None:
    busy = (
        "x = bytearray(80 << 20); import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    )
    cost = run(Command(["bash", "-c", '"$PYTHON" -c "$BUSY" & exit 0'], {"PYTHON": sys.executable, "BUSY": busy}))
    assert cost.seconds >= 0.3 and cost.cpu_seconds >= 0.3
    assert 80 * MIB < cost.peak_bytes < 120 * MIB


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(CommandFailed, match=r"code 3:\ntoo bad"):
        run(Command(["bash", "-c", "echo too bad; exit 3"], dict(os.environ)))


def test_the_servers_log_is_read() -> None:
    line = (
        b"AKIA bench [21/November/2026:14:30:47 +0000] 127.0.0.1 AKIA 0G4E s3_PutObject x/small /bench/x/small?x-id=1 "
        b"200 - 0 3 12 12 - aws-cli/1 - gBrC= SigV4 - AuthHeader host - arn:aws:s3:::/bench/x/small Yes\n"
    )
    assert LINE.findall(line * 2) == [(b"PutObject", b"12")] * 2
