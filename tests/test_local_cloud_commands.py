"""The local cloud's own rules: Systems Manager's documents and commands."""

from __future__ import annotations

import json
import time

import pytest

from local_cloud import Timing, refusal, wait_for

DOCUMENT = {
    "schemaVersion": "2.2",
    "parameters": {
        "Script": {"type": "String"},
        "Word": {"type": "String", "default": "none", "allowedPattern": "^[a-z]+$"},
        "Note": {"type": "String", "default": "", "interpolationType": "ENV_VAR"},
        "Limit": {"type": "String", "default": "20"},
    },
    "mainSteps": [
        {
            "action": "aws:runShellScript",
            "name": "run",
            "inputs": {
                "timeoutSeconds": "{{ Limit }}",
                "runCommand": ["{{ Script }}", 'echo {{Word}} "{{ Note }}" on $PERENNIAL_INSTANCE_ID'],
            },
        }
    ],
}


class Agent:
    """Sends commands to one instance of a database."""

    def __init__(self, cloud, database):
        self.cloud, self.ssm = cloud, cloud.client("ssm")
        self.instance = database.wait_for_state("Pending:Wait")
        self.ssm.create_document(
            Name="document", Content=json.dumps(DOCUMENT), DocumentType="Command", DocumentFormat="JSON"
        )

    def registered(self):
        return self.ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [self.instance]}])[
            "InstanceInformationList"
        ]

    def send(self, script="true", timeout=3600, **parameters):
        return self.ssm.send_command(
            DocumentName="document",
            InstanceIds=[self.instance],
            Comment="restore-i-1",
            TimeoutSeconds=timeout,
            Parameters={"Script": [script], **{name: [value] for name, value in parameters.items()}},
        )["Command"]["CommandId"]

    def look(self, command):
        found = [
            i
            for i in self.ssm.list_command_invocations(InstanceId=self.instance, Details=True)["CommandInvocations"]
            if i["CommandId"] == command
        ]
        return found[0] if found else None

    def result(self, command):
        wait_for(
            "the command",
            lambda: (self.look(command) or {}).get("Status", "Pending") not in ("Pending", "InProgress"),
            limit=15,
        )
        return self.ssm.get_command_invocation(CommandId=command, InstanceId=self.instance)


@pytest.fixture
def database(cloud):
    return cloud.create_database_stack(capacity=1, user_data="sleep 600 &", heartbeat=600)


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
    told = [e["detail"]["status"] for e in cloud.events_named("EC2 Command Invocation Status-change Notification")]
    assert told == ["Pending", "InProgress", "Success"]
    assert [e["detail"]["status"] for e in cloud.events_named("EC2 Command Status-change Notification")] == told
    assert cloud.events_named("EC2 Command Status-change Notification")[0]["detail"]["parameters"]["Word"] == ["hello"]


def test_parameters_and_documents_are_checked(agent):
    assert refusal(agent.send, Word="Hello; reboot") == "InvalidParameters"
    assert refusal(agent.send, Unknown="x") == "InvalidParameters"
    odd = {**DOCUMENT, "mainSteps": [{"action": "aws:downloadContent", "name": "x", "inputs": {}}]}
    assert (
        refusal(agent.ssm.create_document, Name="odd", Content=json.dumps(odd), DocumentType="Command")
        == "InvalidDocumentContent"
    )


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
