"""SSM: which agents are registered, and the calls about commands. commands.py runs them, documents.py says what."""

from __future__ import annotations

import threading
import time

import yaml
from moto.core.responses import ActionResult, EmptyResult
from moto.ssm.exceptions import SSMException
from moto.ssm.models import Command
from moto.ssm.responses import SimpleSystemManagerResponse

from .commands import execute
from .documents import check_document, command_parameters


def install(cloud) -> None:
    install_registration(cloud)
    install_sending(cloud)
    install_looking(cloud)


def matching(cloud, wanted: dict[str, list]) -> list:
    def facts(machine) -> dict[str, str]:
        return {
            "InstanceIds": machine.id,
            "PingStatus": ping(machine),
            **{f"tag:{t['key']}": t["value"] for t in machine.instance.get_tags()},
        }

    return [
        m
        for m in cloud.machines.values()
        if m.state != "terminated" and all(facts(m).get(k) in v for k, v in wanted.items())
    ]


def ping(machine) -> str:
    return "Online" if machine.online else "ConnectionLost"


def install_registration(cloud) -> None:
    @cloud.patches.extend(SimpleSystemManagerResponse)
    def describe_instance_information(_, response):
        wanted = {
            f.get("Key") or f["key"]: f.get("Values") or f["valueSet"]
            for f in response._get_param("Filters", []) + response._get_param("InstanceInformationFilterList", [])
        }
        if unknown := [k for k in wanted if k not in ("InstanceIds", "PingStatus") and not k.startswith("tag:")]:
            raise SSMException("InvalidInstanceInformationFilterValue", f"the local cloud does not filter by {unknown}")
        return ActionResult(
            {
                "InstanceInformationList": [
                    {
                        "InstanceId": m.id,
                        "PingStatus": ping(m),
                        "LastPingDateTime": time.time(),
                        "AgentVersion": "3.3.2746.0",
                        "PlatformType": "Linux",
                        "ResourceType": "EC2Instance",
                        "IPAddress": m.instance.private_ip,
                    }
                    for m in matching(cloud, wanted)
                    if m.online or m.was_online
                ]
            }
        )

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def create_document(base, response):
        if response._get_param("DocumentType") in (None, "Command"):
            check_document(yaml.safe_load(response._get_param("Content")))  # JSON is YAML
        return base()


def install_sending(cloud) -> None:
    @cloud.patches.extend(Command)
    def _get_instance_ids_from_targets(_, command):
        """moto takes every instance when Targets is empty, and fails on Key=InstanceIds."""
        return [m.id for m in matching(cloud, {t["Key"]: t["Values"] for t in command.targets}) if command.targets]

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def send_command(base, response):
        backend, name = response.ssm_backend, response._get_param("DocumentName")
        version, timeout = response._get_param("DocumentVersion"), int(response._get_param("TimeoutSeconds") or 3600)
        if not 30 <= timeout <= 2592000 or len(response._get_param("Comment") or "") > 100:
            raise SSMException("ValidationException", "TimeoutSeconds is 30 to 2592000, Comment at most 100 characters")
        document = backend._get_documents(name).find("" if version in (None, "$DEFAULT") else version, "")
        values = command_parameters(document, response._get_param("Parameters", {}))
        known = {m.id for m in matching(cloud, {}) if m.online or m.was_online}
        if bad := sorted(set(response._get_param("InstanceIds", [])) - known):
            raise SSMException(
                "InvalidInstanceId", f"Instances {bad} not in a valid state for account {backend.account_id}"
            )
        base()
        command = backend._commands[-1]
        command.timeout_seconds, command.sent_at = timeout, time.monotonic()
        command.status = command.status_details = "Pending"
        command.completed_count, command.target_count = 0, len(command.invocations)
        for invocation in command.invocations:
            invocation.update(
                Status="Pending",
                StatusDetails="Pending",
                ResponseCode=-1,
                ExecutionElapsedTime="",
                ExecutionStartDateTime="",
                ExecutionEndDateTime="",
                DocumentVersion=document.document_version,
                PluginName=document.content_json["mainSteps"][0]["name"],
                cancel=False,
            )
            threading.Thread(target=execute, args=(cloud, command, document, values, invocation), daemon=True).start()
        return ActionResult({"Command": command.response_object()})

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def cancel_command(_, response):
        only = response._get_param("InstanceIds")
        for invocation in response.ssm_backend.get_command_by_id(response._get_param("CommandId")).invocations:
            invocation["cancel"] = invocation["cancel"] or not only or invocation["InstanceId"] in only
        return EmptyResult()


def install_looking(cloud) -> None:
    def visible(command: Command) -> bool:
        return time.monotonic() - command.sent_at >= cloud.timing.ssm_visible

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def get_command_invocation(base, response):
        if not visible(response.ssm_backend.get_command_by_id(response._get_param("CommandId"))):
            raise SSMException("InvocationDoesNotExist", "")
        return base()

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def list_command_invocations(_, response):
        command_id, instance = response._get_param("CommandId"), response._get_param("InstanceId")
        found = [
            {
                **invocation,
                "RequestedDateTime": command.requested_date_time,
                "CommandPlugins": [
                    {
                        "Name": invocation["PluginName"],
                        "Status": invocation["Status"],
                        "ResponseCode": invocation["ResponseCode"],
                        "Output": invocation["StandardOutputContent"][:2500],
                    }
                ]
                if response._get_param("Details")
                else [],
            }
            for command in reversed(response.ssm_backend.list_commands(command_id, instance))
            if visible(command)
            for invocation in command.invocations
            if instance in (None, invocation["InstanceId"])
        ]
        return page(response, "CommandInvocations", [f for f in found if passes(response, f)])

    @cloud.patches.extend(SimpleSystemManagerResponse)
    def list_commands(_, response):
        found = [
            command.response_object()
            for command in reversed(
                response.ssm_backend.list_commands(response._get_param("CommandId"), response._get_param("InstanceId"))
            )
            if visible(command)
        ]
        return page(response, "Commands", [f for f in found if passes(response, f)])


def passes(response, found: dict) -> bool:
    for wanted in response._get_param("Filters") or []:
        key, value = wanted.get("key"), wanted.get("value")
        if key == "Status":
            fits = found["Status"] == value
        elif key == "DocumentName":
            fits = found["DocumentName"] == value
        elif key in ("InvokedAfter", "InvokedBefore"):
            asked = found["RequestedDateTime"].strftime("%Y-%m-%dT%H:%M:%SZ")
            fits = asked >= value if key == "InvokedAfter" else asked <= value
        else:
            raise SSMException("InvalidFilterKey", f"the local cloud does not filter commands by {key}")
        if not fits:
            return False
    return True


def page(response, key: str, found: list) -> ActionResult:
    start, size = int(response._get_param("NextToken") or 0), int(response._get_param("MaxResults") or 50)
    more = {"NextToken": str(start + size)} if len(found) > start + size else {}
    return ActionResult({key: found[start : start + size], **more})
