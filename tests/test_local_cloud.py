"""The local cloud's own rules: instances, groups, hooks, addresses. They are AWS's; local_cloud/README.md says which
are guessed.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from local_cloud import LocalCloud, Timing, refusal, wait_for
from local_cloud.lifecycle import Action
from local_cloud.processes import marked

SERVER = """
import http.server, sys
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def database(cloud):
    """A group of one with both hooks; its instance sleeps."""
    return cloud.create_database_stack(capacity=1, user_data="sleep 600 &", heartbeat=600)


def in_service(cloud, database):
    instance = database.wait_for_state("Pending:Wait")
    database.complete(instance)
    assert database.members()[instance] == "InService"
    return instance


# ---- groups and hooks ------------------------------------------------------------------------------------------------


def test_a_launch_waits_for_its_hook_and_only_the_right_token_ends_the_wait(cloud, database):
    instance = database.wait_for_state("Pending:Wait")
    event = wait_for("the event", lambda: cloud.events_named("EC2 Instance-launch Lifecycle Action"))[0]["detail"]
    assert (event["EC2InstanceId"], event["Origin"], event["Destination"]) == (instance, "EC2", "AutoScalingGroup")
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        database.complete(instance, LifecycleActionToken="0" * 36)
    database.complete(instance, LifecycleActionToken=event["LifecycleActionToken"])
    assert database.members() == {instance: "InService"}
    assert cloud.events_named("EC2 Instance Launch Successful")
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        database.complete(instance)


def test_heartbeats_keep_a_hook_open_and_silence_abandons_the_launch(cloud):
    database = cloud.create_database_stack(capacity=1, user_data="sleep 600 &", heartbeat=100)  # a second here
    instance = database.wait_for_state("Pending:Wait")
    for _ in range(4):
        time.sleep(0.5)
        cloud.client("autoscaling").record_lifecycle_action_heartbeat(
            AutoScalingGroupName=database.group, LifecycleHookName=database.launch_hook, InstanceId=instance
        )
    assert database.members() == {instance: "Pending:Wait"}
    database.wait_for_state("Pending:Wait", [instance])
    assert cloud.events_named("EC2 Instance Launch Unsuccessful")[0]["detail"]["EC2InstanceId"] == instance


def test_a_hook_ends_at_its_global_timeout_whatever_the_heartbeats():
    action = Action(SimpleNamespace(heartbeat_timeout=60, global_timeout=90), speed=1)
    assert action.heartbeat().deadline - action.began == pytest.approx(60, abs=1)
    action.began -= 80
    assert action.heartbeat().deadline - action.began == pytest.approx(90, abs=0.01)


def test_during_a_replacement_both_instances_exist(cloud, database):
    old = in_service(cloud, database)
    cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=old, ShouldDecrementDesiredCapacity=False
    )
    new = database.wait_for_state("Pending:Wait", [old])
    assert database.members() == {old: "Terminating:Wait", new: "Pending:Wait"}
    database.complete(old, hook=database.terminate_hook)
    wait_for("its end", lambda: old not in database.members())
    assert cloud.events_named("EC2 Instance Terminate Successful")


def test_an_abandoned_termination_keeps_the_instance_where_the_group_says_so(cloud, database):
    old = in_service(cloud, database)
    scaling = cloud.client("autoscaling")
    scaling.terminate_instance_in_auto_scaling_group(InstanceId=old, ShouldDecrementDesiredCapacity=False)
    database.complete(old, "ABANDON", database.terminate_hook)
    assert database.members()[old] == "Terminating:Retained"
    database.wait_for_state("Pending:Wait", [old])  # it does not count
    assert cloud.machine(old).state == "running"
    scaling.terminate_instance_in_auto_scaling_group(InstanceId=old, ShouldDecrementDesiredCapacity=False)
    wait_for("its end", lambda: old not in database.members())


def test_hardware_death_takes_processes_disks_and_address_and_the_group_replaces_it(cloud, database):
    instance = in_service(cloud, database)
    wait_for("its daemon", lambda: marked("LOCAL_CLOUD_INSTANCE", instance))
    cloud.client("ec2").associate_address(AllocationId=database.allocation_id, InstanceId=instance)
    folder = cloud.machine(instance).folder
    (folder / "data" / "file").write_text("gone soon")
    cloud.kill(instance)
    assert cloud.machine(instance).state == "terminated"
    assert not marked("LOCAL_CLOUD_INSTANCE", instance)
    assert not folder.exists()
    assert database.holder() is None
    act_on = database.wait_for_state("Terminating:Wait")  # the hook runs although nothing is left to act on
    database.complete(act_on, hook=database.terminate_hook)
    database.wait_for_state("Pending:Wait", [instance])


def test_a_launch_without_capacity_is_told_and_tried_again(cloud):
    cloud.no_capacity = True
    database = cloud.create_database_stack(capacity=1, user_data="true")
    failed = wait_for("the notice", lambda: cloud.events_named("EC2 Instance Launch Unsuccessful"))[0]
    assert "InsufficientInstanceCapacity" in failed["detail"]["StatusMessage"]
    assert database.members() == {}
    cloud.no_capacity = False
    database.wait_for_state("Pending:Wait")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"HeartbeatTimeout": 29}, "HeartbeatTimeout"),
        ({"DefaultResult": "RETRY"}, "DefaultResult"),
        ({"LifecycleTransition": "x"}, "Transition"),
    ],
)
def test_hooks_are_validated(cloud, database, change, what):
    hook = {
        "LifecycleHookName": "more",
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
        "HeartbeatTimeout": 60,
    }
    with pytest.raises(ClientError, match=what):
        cloud.client("autoscaling").put_lifecycle_hook(AutoScalingGroupName=database.group, **{**hook, **change})


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_the_address_leads_to_its_holder_and_moving_it_cuts_connections(cloud, database):
    old = in_service(cloud, database)
    ec2 = cloud.client("ec2")
    cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=old, ShouldDecrementDesiredCapacity=False
    )
    new = database.wait_for_state("Pending:Wait", [old])
    for instance in (old, new):
        machine = cloud.machine(instance)
        (machine.folder / "name").write_text(instance)
        machine.start(sys.executable, "-c", SERVER, str(machine.engine_port))

    def fetch():
        with socket.create_connection((database.address, cloud.addresses.port), timeout=2) as connection:
            connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
            return connection.makefile().read().splitlines()[-1:]

    def answers(instance):
        try:
            return fetch() == [instance]
        except ConnectionResetError:  # nothing listens on the holder yet
            return False

    with pytest.raises(ConnectionRefusedError):
        fetch()
    ec2.associate_address(AllocationId=database.allocation_id, InstanceId=old)
    wait_for("the server", lambda: answers(old))
    idle = socket.create_connection((database.address, cloud.addresses.port), timeout=2)
    idle.sendall(b"GET /name HTT")
    time.sleep(0.1)
    taken = {"AllocationId": database.allocation_id, "InstanceId": new}
    assert refusal(ec2.associate_address, **taken, AllowReassociation=False) == "Resource.AlreadyAssociated"
    assert database.holder() == old
    ec2.associate_address(**taken)  # moves: that is the default in a VPC
    assert database.holder() == new
    with pytest.raises(ConnectionResetError):
        idle.recv(1)
    wait_for("the server", lambda: answers(new))
    ec2.disassociate_address(AssociationId=ec2.describe_addresses()["Addresses"][0]["AssociationId"])
    with pytest.raises(ConnectionRefusedError):
        fetch()


def test_a_pending_instance_cannot_have_the_address(make_cloud):
    cloud = make_cloud(timing=Timing(boot=60), programs=[])
    database = cloud.create_database_stack(capacity=1)
    instance = database.wait_for_state("Pending")
    assert (
        refusal(cloud.client("ec2").associate_address, AllocationId=database.allocation_id, InstanceId=instance)
        == "InvalidInstanceID"
    )


# ---- clean-up --------------------------------------------------------------------------------------------------------


def test_a_killed_test_run_leaves_no_process():
    program = """
import sys; sys.path.insert(0, sys.argv[1])
from local_cloud import LocalCloud
import time
cloud = LocalCloud(programs=[]).start()
cloud.create_database_stack(capacity=1, user_data="setsid sleep 600 &")
while not any(m.up_since for m in cloud.machines.values()): time.sleep(0.05)
time.sleep(0.3)
print(cloud.id, cloud.workdir, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    ) as run:
        identity, workdir = run.stdout.readline().split()
        assert len(marked(LocalCloud.MARKER, identity)) >= 2  # the S3 server and the daemon
        run.kill()
    wait_for("the processes to go", lambda: not marked(LocalCloud.MARKER, identity))
    wait_for("the folder to go", lambda: not Path(workdir).exists())
