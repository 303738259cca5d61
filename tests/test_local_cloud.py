"""The local cloud's own rules, part one: instances, groups, addresses, commands. They are AWS's; see local_cloud/README.md."""
from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest
from botocore.exceptions import ClientError
from local_cloud import LocalCloud, Timing, wait_for
from local_cloud.processes import marked

SERVER = "import http.server,sys; http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"


@pytest.fixture
def database(cloud):
    """A group of one with both hooks; its instance sleeps."""
    return cloud.create_database_stack(capacity=1, user_data="sleep 600 &", heartbeat=600)


def in_state(database, state, other_than=()):
    return wait_for(f"an instance in {state}", lambda: next(
        (i for i, s in database.members().items() if s == state and i not in other_than), None), limit=15)


def act(cloud, database, instance, result="CONTINUE", hook="perennial-launch", **by):
    cloud.client("autoscaling").complete_lifecycle_action(
        AutoScalingGroupName=database.group, LifecycleHookName=hook, LifecycleActionResult=result, **(by or {"InstanceId": instance}))


def in_service(cloud, database):
    instance = in_state(database, "Pending:Wait")
    act(cloud, database, instance)
    assert database.members()[instance] == "InService"
    return instance


def events(cloud, detail_type):
    return [e for e in cloud.events if e["detail-type"] == detail_type]


def refusal(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


# ---- groups and hooks ---------------------------------------------------------------------------------------------------------

def test_a_launch_waits_for_its_hook_and_only_the_right_token_ends_the_wait(cloud, database):
    instance = in_state(database, "Pending:Wait")
    event = wait_for("the event", lambda: events(cloud, "EC2 Instance-launch Lifecycle Action"))[0]["detail"]
    assert (event["EC2InstanceId"], event["Origin"], event["Destination"]) == (instance, "EC2", "AutoScalingGroup")
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        act(cloud, database, instance, LifecycleActionToken="0" * 36)
    act(cloud, database, instance, LifecycleActionToken=event["LifecycleActionToken"])
    assert database.members() == {instance: "InService"}
    assert events(cloud, "EC2 Instance Launch Successful")
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        act(cloud, database, instance)


def test_heartbeats_keep_a_hook_open_and_silence_abandons_the_launch(cloud):
    database = cloud.create_database_stack(capacity=1, user_data="sleep 600 &", heartbeat=100)  # a second here
    instance = in_state(database, "Pending:Wait")
    for _ in range(4):
        time.sleep(0.5)
        cloud.client("autoscaling").record_lifecycle_action_heartbeat(
            AutoScalingGroupName=database.group, LifecycleHookName=database.launch_hook, InstanceId=instance)
    assert database.members() == {instance: "Pending:Wait"}
    in_state(database, "Pending:Wait", [instance])
    assert events(cloud, "EC2 Instance Launch Unsuccessful")[0]["detail"]["EC2InstanceId"] == instance


def test_a_hook_ends_at_its_global_timeout_whatever_the_heartbeats():
    from types import SimpleNamespace

    from local_cloud.lifecycle import Action

    action = Action(SimpleNamespace(heartbeat_timeout=60, global_timeout=90), speed=1)
    assert action.heartbeat().deadline - action.began == pytest.approx(60, abs=1)
    action.began -= 80
    assert action.heartbeat().deadline - action.began == pytest.approx(90, abs=0.01)


def test_during_a_replacement_both_instances_exist(cloud, database):
    old = in_service(cloud, database)
    cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(InstanceId=old, ShouldDecrementDesiredCapacity=False)
    new = in_state(database, "Pending:Wait", [old])
    assert database.members() == {old: "Terminating:Wait", new: "Pending:Wait"}
    act(cloud, database, old, hook=database.terminate_hook)
    wait_for("its end", lambda: old not in database.members())
    assert events(cloud, "EC2 Instance Terminate Successful")


def test_an_abandoned_termination_keeps_the_instance_where_the_group_says_so(cloud, database):
    old = in_service(cloud, database)
    scaling = cloud.client("autoscaling")
    scaling.terminate_instance_in_auto_scaling_group(InstanceId=old, ShouldDecrementDesiredCapacity=False)
    act(cloud, database, old, "ABANDON", database.terminate_hook)
    assert database.members()[old] == "Terminating:Retained"
    in_state(database, "Pending:Wait", [old])  # it does not count
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
    act_on = in_state(database, "Terminating:Wait")  # the hook runs although nothing is left to act on
    act(cloud, database, act_on, hook=database.terminate_hook)
    in_state(database, "Pending:Wait", [instance])


def test_a_launch_without_capacity_is_told_and_tried_again(cloud):
    cloud.no_capacity = True
    database = cloud.create_database_stack(capacity=1, user_data="true")
    failed = wait_for("the notice", lambda: events(cloud, "EC2 Instance Launch Unsuccessful"))[0]
    assert "InsufficientInstanceCapacity" in failed["detail"]["StatusMessage"]
    assert database.members() == {}
    cloud.no_capacity = False
    in_state(database, "Pending:Wait")


@pytest.mark.parametrize(("change", "what"), [
    ({"HeartbeatTimeout": 29}, "HeartbeatTimeout"), ({"DefaultResult": "RETRY"}, "DefaultResult"), ({"LifecycleTransition": "x"}, "Transition")])
def test_hooks_are_validated(cloud, database, change, what):
    hook = {"LifecycleHookName": "more", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING", "HeartbeatTimeout": 60}
    with pytest.raises(ClientError, match=what):
        cloud.client("autoscaling").put_lifecycle_hook(AutoScalingGroupName=database.group, **{**hook, **change})


# ---- addresses ------------------------------------------------------------------------------------------------------------------

def test_the_address_leads_to_its_holder_and_moving_it_cuts_connections(cloud, database):
    old = in_service(cloud, database)
    ec2 = cloud.client("ec2")
    cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(InstanceId=old, ShouldDecrementDesiredCapacity=False)
    new = in_state(database, "Pending:Wait", [old])
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
    instance = in_state(database, "Pending")
    assert refusal(cloud.client("ec2").associate_address, AllocationId=database.allocation_id, InstanceId=instance) == "InvalidInstanceID"


# ---- commands -------------------------------------------------------------------------------------------------------------------

DOCUMENT = {"schemaVersion": "2.2", "parameters": {
    "Script": {"type": "String"}, "Word": {"type": "String", "default": "none", "allowedPattern": "^[a-z]+$"},
    "Note": {"type": "String", "default": "", "interpolationType": "ENV_VAR"}, "Limit": {"type": "String", "default": "20"}},
    "mainSteps": [{"action": "aws:runShellScript", "name": "run", "inputs": {
        "timeoutSeconds": "{{ Limit }}", "runCommand": ["{{ Script }}", "echo {{Word}} \"{{ Note }}\" on $PERENNIAL_INSTANCE_ID"]}}]}


class Agent:
    """Sends commands to one instance of a database."""

    def __init__(self, cloud, database):
        self.cloud, self.ssm = cloud, cloud.client("ssm")
        self.instance = in_state(database, "Pending:Wait")
        self.ssm.create_document(Name="document", Content=json.dumps(DOCUMENT), DocumentType="Command", DocumentFormat="JSON")

    def registered(self):
        return self.ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [self.instance]}])["InstanceInformationList"]

    def send(self, script="true", timeout=3600, **parameters):
        return self.ssm.send_command(
            DocumentName="document", InstanceIds=[self.instance], Comment="restore-i-1", TimeoutSeconds=timeout,
            Parameters={"Script": [script], **{name: [value] for name, value in parameters.items()}})["Command"]["CommandId"]

    def look(self, command):
        found = [i for i in self.ssm.list_command_invocations(InstanceId=self.instance, Details=True)["CommandInvocations"] if i["CommandId"] == command]
        return found[0] if found else None

    def result(self, command):
        wait_for("the command", lambda: (self.look(command) or {}).get("Status", "Pending") not in ("Pending", "InProgress"), limit=15)
        return self.ssm.get_command_invocation(CommandId=command, InstanceId=self.instance)


@pytest.fixture
def agent(cloud, database):
    agent = Agent(cloud, database)
    wait_for("the agent", agent.registered)
    return agent


def test_a_command_before_registration_is_refused(make_cloud):
    cloud = make_cloud(timing=Timing(ssm_register=2), programs=[])
    agent = Agent(cloud, cloud.create_database_stack(capacity=1, user_data="true"))
    assert agent.registered() == []
    assert refusal(agent.send) == "InvalidInstanceId"
    wait_for("the agent", agent.registered)
    agent.send()


def test_a_command_is_really_executed_and_found_again_by_its_comment(cloud, agent):
    command = agent.send("echo made > file", Word="hello", Note="$(touch hacked); `id`")
    done = agent.result(command)
    assert (done["Status"], done["ResponseCode"]) == ("Success", 0)
    assert done["StandardOutputContent"] == f"hello $(touch hacked); `id` on {agent.instance}\n"
    assert (cloud.machine(agent.instance).folder / "file").read_text() == "made\n"
    assert not (cloud.machine(agent.instance).folder / "hacked").exists()
    assert agent.look(command)["Comment"] == "restore-i-1"
    told = [e["detail"]["status"] for e in events(cloud, "EC2 Command Invocation Status-change Notification")]
    assert told == ["Pending", "InProgress", "Success"]
    assert [e["detail"]["status"] for e in events(cloud, "EC2 Command Status-change Notification")] == told
    assert events(cloud, "EC2 Command Status-change Notification")[0]["detail"]["parameters"]["Word"] == ["hello"]


def test_parameters_and_documents_are_checked(agent):
    assert refusal(agent.send, Word="Hello; reboot") == "InvalidParameters"
    assert refusal(agent.send, Unknown="x") == "InvalidParameters"
    odd = {**DOCUMENT, "mainSteps": [{"action": "aws:downloadContent", "name": "x", "inputs": {}}]}
    assert refusal(agent.ssm.create_document, Name="odd", Content=json.dumps(odd), DocumentType="Command") == "InvalidDocumentContent"


def test_how_commands_fail(agent):
    failing, slow, long = agent.send("exit 7"), agent.send("sleep 60", Limit="1"), agent.send("sleep 60")
    wait_for("it to run", lambda: (agent.look(long) or {}).get("Status") == "InProgress")
    agent.ssm.cancel_command(CommandId=long)
    got = {name: agent.result(command) for name, command in (("failing", failing), ("slow", slow), ("long", long))}
    assert (got["failing"]["Status"], got["failing"]["ResponseCode"]) == ("Failed", 7)
    assert (got["slow"]["Status"], got["slow"]["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")
    assert got["long"]["Status"] == "Cancelled"


def test_an_agent_that_went_away_times_the_delivery_out(cloud, agent):
    cloud.agent_down(agent.instance)
    assert agent.registered()[0]["PingStatus"] == "ConnectionLost"
    done = agent.result(agent.send(timeout=60))  # 0.6 s here
    assert (done["Status"], done["StatusDetails"], done["ResponseCode"]) == ("TimedOut", "DeliveryTimedOut", -1)


def test_a_command_on_a_machine_that_dies_ends_at_its_time_limit(cloud, agent):
    command = agent.send("sleep 60", Limit="2")
    wait_for("it to run", lambda: (agent.look(command) or {}).get("Status") == "InProgress")
    began = time.monotonic()
    cloud.kill(agent.instance)
    assert agent.result(command)["StatusDetails"] == "ExecutionTimedOut"
    assert time.monotonic() - began > 1


# ---- clean-up -------------------------------------------------------------------------------------------------------------------

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
    from pathlib import Path

    with subprocess.Popen([sys.executable, "-c", program, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True) as run:
        identity, workdir = run.stdout.readline().split()
        assert len(marked(LocalCloud.MARKER, identity)) >= 2  # the S3 server and the daemon
        run.kill()
    wait_for("the processes to go", lambda: not marked(LocalCloud.MARKER, identity))
    wait_for("the folder to go", lambda: not Path(workdir).exists())
