"""A command on an instance: delivered to its agent, really executed, reported."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from moto.ssm.models import Command, Document

from .documents import render

OUTPUT_LIMIT, ERROR_LIMIT = 24000, 8000
OPEN = ("Pending", "InProgress")


def execute(cloud, command: Command, document: Document, values: dict, invocation: dict) -> None:
    """One invocation, on its own thread: wait for the agent, run each step, report."""
    machine = cloud.machines[invocation["InstanceId"]]
    report(cloud, command, invocation, "Pending")
    delivery_ends = time.monotonic() + cloud.timing.scaled(command.timeout_seconds)
    while not machine.online and not cloud.stopping:
        if invocation["cancel"]:
            return report(cloud, command, invocation, "Cancelled")
        if time.monotonic() > delivery_ends:
            return report(cloud, command, invocation, "TimedOut", "DeliveryTimedOut")
        time.sleep(cloud.timing.tick)
    invocation["ExecutionStartDateTime"] = stamp()
    report(cloud, command, invocation, "InProgress")
    first_failure = 0
    for step in document.content_json["mainSteps"]:
        inputs = step["inputs"]
        limit = float(render(document, [str(inputs.get("timeoutSeconds", 3600))], values))
        code = run_step(cloud, machine, render(document, inputs["runCommand"], values), limit, values, invocation)
        if code is None and invocation["cancel"]:
            return report(cloud, command, invocation, "Cancelled")
        if code is None:
            return report(cloud, command, invocation, "TimedOut", "ExecutionTimedOut")
        first_failure = first_failure or code
    report(cloud, command, invocation, "Failed" if first_failure else "Success", code=first_failure)


def run_step(cloud, machine, script: str, limit: float, values: dict, invocation: dict) -> int | None:
    """The exit code; None when it was cancelled, ran out of time, or the machine went away and nobody reports."""
    variables = {f"SSM_{name}": value for name, value in values.items() if isinstance(value, str)}
    began = time.monotonic()
    code, out, err = machine.run(script, limit, variables, lambda: invocation["cancel"])
    while (
        machine.up_since is None
        and time.monotonic() < began + limit
        and not invocation["cancel"]
        and not cloud.stopping
    ):
        time.sleep(cloud.timing.tick)  # the service cannot know: it waits for the time limit
        code = None
    invocation.update(
        StandardOutputContent=(invocation["StandardOutputContent"] + out)[:OUTPUT_LIMIT],
        StandardErrorContent=(invocation["StandardErrorContent"] + err)[:ERROR_LIMIT],
        ExecutionEndDateTime=stamp(),
    )
    return code


def report(cloud, command: Command, invocation: dict, status: str, details: str | None = None, code: int = -1) -> None:
    """Record it and tell the bus: of this invocation, and of the command when its status changed."""
    with cloud.lock:
        before = command.status if status != "Pending" else None
        invocation.update(Status=status, StatusDetails=details or status, ResponseCode=code)
        states = [i["Status"] for i in command.invocations]
        command.status = command.status_details = next(
            s for s in (*OPEN, "Failed", "TimedOut", "Cancelled", "Success") if s in states
        )
        command.completed_count = sum(s not in OPEN for s in states)
        command.error_count = sum(s in ("Failed", "TimedOut") for s in states)
    asked = {
        "command-id": command.command_id,
        "document-name": command.document_name,
        "requested-date-time": command.requested_date_time.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    cloud.bus.emit(
        "aws.ssm",
        "EC2 Command Invocation Status-change Notification",
        {**asked, "instance-id": invocation["InstanceId"], "status": status},
    )
    if command.status != before:
        expires = command.requested_date_time + timedelta(seconds=command.timeout_seconds)
        cloud.bus.emit(
            "aws.ssm",
            "EC2 Command Status-change Notification",
            {
                **asked,
                "expire-after": expires.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "parameters": command.parameters,
                "status": command.status,
            },
        )


def stamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
