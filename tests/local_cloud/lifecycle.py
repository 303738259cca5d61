"""Auto Scaling's state machine: launches, lifecycle hooks, health, replacement. moto's instances are InService at once
and for ever.

`reconcile` is one step of a group's life and runs on every tick. The rules, and what is not known of AWS, are in
README.md.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from moto.autoscaling.models import FakeAutoScalingGroup, InstanceState, LifecycleHook
from moto.core.exceptions import ServiceException

COUNTED = {"Pending", "Pending:Wait", "Pending:Proceed", "InService"}
LAUNCH, TERMINATE = ("EC2", "AutoScalingGroup"), ("AutoScalingGroup", "EC2")  # origin, destination


@dataclass
class Action:
    """A lifecycle action that waits: one hook on one instance."""

    hook: LifecycleHook
    speed: float
    result: str | None = None
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: float = field(default_factory=time.monotonic)
    deadline: float = 0

    def heartbeat(self) -> Action:
        """Start the time-out anew; the global time-out stays where it is."""
        last = self.began + self.hook.global_timeout / self.speed
        self.deadline = min(time.monotonic() + self.hook.heartbeat_timeout / self.speed, last)
        return self


def enter(cloud, group: FakeAutoScalingGroup, member: InstanceState, phase: str) -> None:
    """phase is Pending or Terminating: wait for the hooks of that transition, or go straight on."""
    way, suffix, path = {
        "Pending": ("launch", "LAUNCHING", LAUNCH),
        "Terminating": ("terminate", "TERMINATING", TERMINATE),
    }[phase]
    hooks = [
        h
        for h in group.autoscaling_backend.describe_lifecycle_hooks(group.name)
        if h.lifecycle_transition == f"autoscaling:EC2_INSTANCE_{suffix}"
    ]
    member.lifecycle_state, member.actions = phase + (":Wait" if hooks else ""), {}
    for hook in hooks:
        action = member.actions[hook.name] = Action(hook, cloud.timing.clock_speed).heartbeat()
        detail = {
            "LifecycleActionToken": action.token,
            "LifecycleHookName": hook.name,
            "LifecycleTransition": hook.lifecycle_transition,
        }
        if hook.notification_metadata:
            detail["NotificationMetadata"] = hook.notification_metadata
        event(cloud, group, member, f"EC2 Instance-{way} Lifecycle Action", path, **detail)
    if not hooks:
        proceed(cloud, group, member, abandoned=False)


def event(cloud, group, member, detail_type: str, path: tuple[str, str], **detail: object) -> None:
    cloud.bus.emit(
        "aws.autoscaling",
        detail_type,
        {
            **detail,
            "AutoScalingGroupName": group.name,
            "EC2InstanceId": member.instance_id,
            "Origin": path[0],
            "Destination": path[1],
        },
        [group.arn],
    )


def notice(cloud, group, member, detail_type: str, path: tuple[str, str], status: str, cause: str) -> None:
    """A scaling activity: kept for DescribeScalingActivities, and told to the bus."""
    now = time.time()
    activity = {
        "ActivityId": str(uuid.uuid4()),
        "AutoScalingGroupName": group.name,
        "Cause": cause,
        "StartTime": now,
        "EndTime": now,
        "Description": f"{detail_type} ({member.instance_id or 'no instance'})",
        "StatusCode": status,
        "StatusMessage": cause,
        "Progress": 100,
    }
    cloud.activities.insert(0, activity)
    event(
        cloud,
        group,
        member,
        detail_type,
        path,
        ActivityId=activity["ActivityId"],
        RequestId=activity["ActivityId"],
        Cause=cause,
        Description=activity["Description"],
        StatusCode=status,
        StatusMessage=cause,
        Details={},
    )


def finish(cloud, group, member, action: Action, result: str) -> None:
    """One hook is done. One ABANDON ends the wait; else it ends when every hook is done."""
    action.result = result
    if result == "ABANDON" or all(a.result for a in member.actions.values()):
        proceed(cloud, group, member, abandoned=result == "ABANDON")


def proceed(cloud, group, member, *, abandoned: bool) -> None:
    member.actions = {}
    retention = (group.instance_lifecycle_policy or {}).get("RetentionTriggers", {})
    if member.lifecycle_state.startswith("Pending") and abandoned:
        notice(
            cloud,
            group,
            member,
            "EC2 Instance Launch Unsuccessful",
            LAUNCH,
            "Cancelled",
            "The lifecycle action was abandoned or timed out",
        )
        enter(cloud, group, member, "Terminating")
    elif member.lifecycle_state.startswith("Pending"):
        member.lifecycle_state, member.in_service_since = "InService", time.monotonic()
        notice(cloud, group, member, "EC2 Instance Launch Successful", LAUNCH, "InProgress", "")
    elif abandoned and retention.get("TerminateHookAbandon") == "retain":
        member.lifecycle_state = "Terminating:Retained"
    else:
        member.lifecycle_state = "Terminating:Proceed"
        group.ec2_backend.terminate_instances([member.instance_id])


def reconcile(cloud, group: FakeAutoScalingGroup) -> None:
    for member in list(group.instance_states):
        advance(cloud, group, member)
    live = [m for m in group.instance_states if m.lifecycle_state in COUNTED]
    missing = group.desired_capacity - len(live)
    if missing > 0:
        launch(cloud, group, missing)
    for member in [m for m in live if not m.protected_from_scale_in][: max(-missing, 0)]:
        enter(cloud, group, member, "Terminating")


def advance(cloud, group, member: InstanceState) -> None:
    """What time and the state of the machine do to one member."""
    machine, phase, now = member.instance._state.name, member.lifecycle_state, time.monotonic()
    if phase == "Pending" and machine == "running":
        enter(cloud, group, member, "Pending")
    elif phase == "Pending" and machine != "pending":
        group.instance_states.remove(member)
        notice(cloud, group, member, "EC2 Instance Launch Unsuccessful", LAUNCH, "Failed", f"The instance is {machine}")
    elif phase.endswith(":Wait"):
        late = next((a for a in member.actions.values() if not a.result and now >= a.deadline), None)
        if late:
            finish(cloud, group, member, late, late.hook.default_result or "ABANDON")
    elif phase == "InService" and (machine != "running" or member.health_status == "Unhealthy"):
        member.health_status, member.sick_since = "Unhealthy", getattr(member, "sick_since", now)
        if (
            now - member.sick_since >= cloud.timing.health_check
            and "ReplaceUnhealthy" not in group._suspended_processes
        ):
            enter(cloud, group, member, "Terminating")
    elif phase == "Terminating:Proceed" and machine == "terminated":
        group.instance_states.remove(member)
        notice(cloud, group, member, "EC2 Instance Terminate Successful", TERMINATE, "InProgress", "")
    elif phase == "Terminating:Retained" and machine == "terminated":  # terminated by other hands
        group.instance_states.remove(member)


def launch(cloud, group, count: int) -> None:
    now = time.monotonic()
    if "Launch" in group._suspended_processes or now < getattr(group, "next_launch", 0):
        return
    try:
        group.replace_autoscaling_group_instances(count, group.get_propagated_tags())
    except ServiceException as error:
        group.next_launch = now + cloud.timing.launch_retry
        nobody = type("Nobody", (), {"instance_id": ""})
        notice(
            cloud, group, nobody, "EC2 Instance Launch Unsuccessful", LAUNCH, "Failed", f"{error.code}: {error.message}"
        )
