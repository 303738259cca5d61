"""The main job with the other two kinds of address, end to end: a network interface, and a secondary private address.
tests/test_recovery.py has the Elastic IP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from local_cloud import LocalCloud, Timing
from local_cloud.waiting import wait_for
from target import Target, replaced_on_purpose

ARRIVES_BY = {"network_interface": "ec2:AttachNetworkInterface", "private_ip": "ec2:AssignPrivateIpAddresses"}
LEAVES_BY = {"network_interface": "ec2:DetachNetworkInterface", "private_ip": "ec2:UnassignPrivateIpAddresses"}


interface_only = pytest.mark.parametrize("target", ["network_interface"], indirect=True)


@pytest.fixture(scope="module", params=["network_interface", "private_ip"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """In service with 200 rows, of which the first 100 are in a backup. The tests of this file follow each other on it."""
    timing = Timing(clock_speed=5, schedule_speed=12)  # a tick every five seconds
    with LocalCloud(tmp_path_factory.mktemp(request.param), timing=timing) as cloud:
        target = Target(cloud, endpoint=request.param)
        target.launch()
        target.load(1, 100)
        assert target.back_up()["ok"]
        target.load(101, 200)
        yield target


def calls(target: Target, names: dict[str, str], not_about: str = "") -> list[dict]:
    """What the functions asked EC2 for, each once, about any other instance: one that dies can be looked at just before."""
    wanted, machine = names[target.database.endpoint["kind"]], target.cloud.machines.get(not_about)
    ignored = {not_about, *(i.id for i in machine.instance.nics.values() if i.device_index == 0)} if machine else set()
    asked = [c["parameters"] for c in list(target.cloud.calls) if c["call"] == wanted]
    asked = [p for p in asked if not ignored & {p.get("InstanceId"), p.get("NetworkInterfaceId")}]
    # Two events can wake two functions at once, and both ask for the same; anything else is another place.
    return [p for n, p in enumerate(asked) if p not in asked[:n]]


def test_a_dead_instance_comes_back_with_its_data_then_its_address(target: Target) -> None:
    ip = target.database.address
    dead = target.kill()
    wait_for("the move", lambda: calls(target, ARRIVES_BY, dead), 60, 0.01)
    owner = target.pointer()["owner"]
    assert owner != dead and any(owner in run for run in target.results("restore-")), "the data first"
    new = target.served(other_than=(dead,))
    assert target.rows() == set(range(1, 101)), "exactly what was backed up"
    assert (target.pointer()["owner"], target.database.address) == (new, ip)
    assert len(calls(target, ARRIVES_BY, dead)) == 1, "moved to one place"
    told = wait_for("the e-mail", lambda: [m for m in target.cloud.mail if "restored and serving" in m.subject], 20)
    assert f"address {ip} now leads to {new}" in told[0].body
    target.assert_restorable()


def test_a_planned_replacement_loses_nothing_that_was_acknowledged(target: Target) -> None:
    replaced_on_purpose(target)
    assert len(calls(target, LEAVES_BY)) == 1, "taken away from one place, before the final backup"
    forced = [c for c in target.cloud.calls if c["call"] == LEAVES_BY["network_interface"]]
    assert not any(str(c["parameters"].get("Force")).lower() == "true" for c in forced)
    target.assert_restorable()


@interface_only
def test_an_interface_that_its_guest_does_not_let_go_is_taken_by_force(target: Target) -> None:
    rows, old = target.rows(), target.database.holder()
    attachment = target.database.interface()["Attachment"]["AttachmentId"]

    def asked() -> list[bool]:
        """Of each way in which it was to be detached, whether it was by force."""
        about = [p for p in calls(target, LEAVES_BY) if p["AttachmentId"] == attachment]
        return [str(p["Force"]).lower() == "true" for p in about]

    target.cloud.machine(old).lets_go = False
    target.terminate()
    wait_for("the question", asked, 30)
    ticks = len(target.cloud.invocations)
    wait_for("some more ticks", lambda: len(target.cloud.invocations) > ticks + 3, 60)
    assert target.database.interface()["Attachment"]["InstanceId"] == old and asked() == [False], "it has its time"
    assert target.write(500), "clients still reach it"
    assert not target.keys(f"runs/final-{old}"), "so its final backup waits"
    # A minute passes.
    key = f"endpoint/{attachment}.json"
    record = target.record(key)
    record["at"] = (datetime.fromisoformat(record["at"]) - timedelta(seconds=60)).isoformat()
    target.put(key, json.dumps(record).encode())
    target.served(other_than=(old,), limit=120)
    assert asked() == [False, True] and target.keys(f"runs/final-{old}")
    assert target.rows() == rows | {500}


@interface_only
def test_an_interface_that_would_go_with_its_instance_is_kept(target: Target) -> None:
    rows, at = target.rows(), target.database.interface()
    assert target.back_up()["ok"]
    target.cloud.client("ec2").modify_network_interface_attribute(
        NetworkInterfaceId=at["NetworkInterfaceId"],
        Attachment={"AttachmentId": at["Attachment"]["AttachmentId"], "DeleteOnTermination": True},
    )
    assert target.database.interface()["Attachment"]["DeleteOnTermination"], "it would be deleted"
    wait_for("a tick", lambda: not target.database.interface()["Attachment"]["DeleteOnTermination"], 30)
    dead = target.kill()
    target.served(other_than=(dead,))
    assert (target.database.interface()["PrivateIpAddress"], target.rows()) == (target.database.address, rows)


def test_a_group_that_is_not_pinned_is_told_and_not_tried_for_ever(target: Target) -> None:
    rows = target.rows()
    assert target.back_up()["ok"]
    right, subnets = target.database.subnet, target.cloud.client("ec2").describe_subnets()["Subnets"]
    wrong = next(s for s in subnets if s["AvailabilityZone"] != right["AvailabilityZone"])
    target.database.pin(wrong["SubnetId"])
    dead = target.kill()
    stray = target.database.wait_for_state("Pending:Wait", other_than=(dead,), limit=30)
    subject = "where the address cannot go"
    told = wait_for("the e-mail", lambda: [m for m in target.cloud.mail if subject in m.subject], 30)
    named = right["AvailabilityZone"] if "interface" in target.database.endpoint["kind"] else wrong["CidrBlock"]
    assert named in told[0].body and stray in told[0].body
    ticks = len(target.cloud.invocations)
    wait_for("some more ticks", lambda: len(target.cloud.invocations) > ticks + 3, 60)
    assert target.database.members()[stray] == "Pending:Wait" and target.database.holder() is None
    assert not [k for k in target.keys("runs/") if stray in k], "nothing is restored where it cannot serve"
    assert len([m for m in target.cloud.mail if subject in m.subject]) == 1
    # What the e-mail says.
    target.database.pin(right["SubnetId"])
    target.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=stray, ShouldDecrementDesiredCapacity=False
    )
    target.served(other_than=(dead, stray), limit=120)
    assert target.rows() == rows


def test_nothing_was_done_that_the_roles_do_not_allow(target: Target) -> None:
    assert target.cloud.denied == []
