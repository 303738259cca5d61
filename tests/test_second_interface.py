"""infra/second-interface.sh with the programs it calls replaced: what it asks the system for, and that it can be repeated."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "infra" / "second-interface.sh"
MAC = "02:00:00:00:00:01"
METADATA = {
    "device-number": "1",
    "subnet-ipv4-cidr-block": "10.0.1.128/25",
    "local-ipv4s": "10.0.1.150\n10.0.1.151",
}

# Each writes down how it was called. curl answers from a folder; ip remembers its rules.
CURL = """#!/bin/sh
for last; do :; done
case "$last" in
  */api/token) echo token ;;
  *) cat "$STATE/metadata/${last##*/}" 2>/dev/null || exit 22 ;;
esac
"""
IP = """#!/bin/sh
echo "ip $*" >>"$STATE/calls"
case "$1 $2" in
  "rule show") grep -qsx "$4 $6" "$STATE/rules" && echo "found" ;;
  "rule add") echo "$4 $6" >>"$STATE/rules" ;;
esac
exit 0
"""
RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >>"$STATE/calls"
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A folder with the stand-ins; the device ens6 has come."""
    programs, metadata, device = (tmp_path / n for n in ("bin", "metadata", "sys/class/net/ens6"))
    for folder in (programs, metadata, device):
        folder.mkdir(parents=True)
    recorded = dict.fromkeys(("sysctl", "sleep", "systemctl", "udevadm"), RECORD)
    for name, text in {"curl": CURL, "ip": IP, **recorded}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name, text in METADATA.items():
        (metadata / name).write_text(text)
    (device / "address").write_text(MAC)
    return tmp_path


def up(system: Path) -> tuple[int, list[str], str]:
    """Exit code, what it asked for this time, what it complained about."""
    return run(system, SCRIPT, "up", "ens6", SYS=str(system / "sys"))


def run(system: Path, script: Path, *words: str, **env: str) -> tuple[int, list[str], str]:
    """As `up`, of any of its verbs."""
    calls = system / "calls"
    calls.unlink(missing_ok=True)
    done = subprocess.run(
        [str(script), *words],
        env={"PATH": f"{system / 'bin'}:{os.environ['PATH']}", "STATE": str(system), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr


def test_replies_to_the_fixed_address_leave_through_its_interface(system: Path) -> None:
    code, asked, _ = up(system)
    assert code == 0
    assert [a for a in asked if "rule show" not in a] == [
        "ip link set dev ens6 up",
        "sysctl --quiet --write net.ipv4.conf.ens6.rp_filter=2",
        "ip address replace 10.0.1.150/25 dev ens6 noprefixroute",
        "ip rule add from 10.0.1.150 table 10001 priority 10001",
        "ip address replace 10.0.1.151/25 dev ens6 noprefixroute",
        "ip rule add from 10.0.1.151 table 10001 priority 10001",
        "ip route replace 10.0.1.128/25 dev ens6 scope link table 10001",
        "ip route replace default via 10.0.1.129 dev ens6 table 10001",
    ]


def test_it_can_be_repeated(system: Path) -> None:
    up(system)
    code, asked, _ = up(system)
    assert code == 0
    assert not [a for a in asked if "rule add" in a], "rules are not replaced by `ip`, so one is added once"
    assert all("replace" in a or "rule show" in a or "link set" in a or "sysctl" in a for a in asked)


def test_the_primary_interface_is_left_alone(system: Path) -> None:
    (system / "metadata" / "device-number").write_text("0")
    assert up(system) == (0, [], "")


def test_a_device_that_the_metadata_do_not_know_is_waited_for_and_then_told(system: Path) -> None:
    (system / "metadata" / "device-number").unlink()
    code, asked, complaint = up(system)
    assert (code, asked) == (1, ["sleep 2"] * 30)
    assert f"knows nothing about ens6 ({MAC})" in complaint


def test_installed_it_sets_up_every_interface_that_comes(system: Path) -> None:
    root = system / "root"
    script, unit, rule = (
        root / name
        for name in (
            "usr/local/sbin/second-interface.sh",
            "etc/systemd/system/perennial-interface@.service",
            "etc/udev/rules.d/75-perennial-interface.rules",
        )
    )
    for file in (script, unit, rule):
        file.parent.mkdir(parents=True)
    for place in (SCRIPT, SCRIPT, script):  # again, and from where it was installed
        code, asked, complaint = run(system, place, "install", DESTDIR=str(root))
        assert (code, complaint) == (0, "")
        assert asked == [
            "systemctl daemon-reload",
            "udevadm control --reload",
            "udevadm trigger --subsystem-match=net --action=add",
        ]
        assert (script.read_text(), script.stat().st_mode & 0o777) == (SCRIPT.read_text(), 0o755)
        assert unit.read_text().splitlines() == [
            "[Unit]",
            "Description=Perennial: addresses and routes of %I",
            "[Service]",
            "Type=oneshot",
            "ExecStart=/usr/local/sbin/second-interface.sh up %I",
        ]
        assert rule.read_text().splitlines() == [
            'ACTION=="add", SUBSYSTEM=="net", KERNEL=="e*", TAG+="systemd", '
            'ENV{SYSTEMD_WANTS}+="perennial-interface@%k.service"'
        ]
    assert {p for p in root.rglob("*") if p.is_file()} == {script, unit, rule}
