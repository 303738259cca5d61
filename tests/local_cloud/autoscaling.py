"""The Auto Scaling calls that moto lacks or answers wrongly; the state machine behind them is lifecycle.py."""

from __future__ import annotations

import time

from moto.autoscaling.exceptions import AutoscalingClientError
from moto.autoscaling.models import (
    AutoScalingBackend,
    FakeAutoScalingGroup,
    LifecycleHook,
    TerminateInstanceActivity,
    autoscaling_backends,
)
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from .lifecycle import enter, finish, proceed, reconcile


def groups() -> list[FakeAutoScalingGroup]:
    return [
        group
        for account in list(autoscaling_backends.values())
        for backend in list(account.values())
        for group in list(backend.autoscaling_groups.values())
    ]


def tick(cloud) -> None:
    for group in groups():
        reconcile(cloud, group)


def invalid(message: str) -> AutoscalingClientError:
    return AutoscalingClientError("ValidationError", message)


def add_hook(backend: AutoScalingBackend, group_name: str, spec: dict) -> None:
    timeout, default = int(spec.get("HeartbeatTimeout") or 3600), spec.get("DefaultResult") or "ABANDON"
    if not 30 <= timeout <= 7200:
        raise invalid(f"HeartbeatTimeout must be between 30 and 7200 seconds, not {timeout}")
    if default not in ("CONTINUE", "ABANDON"):
        raise invalid(f"DefaultResult must be CONTINUE or ABANDON, not {default}")
    if spec["LifecycleTransition"] not in (
        "autoscaling:EC2_INSTANCE_LAUNCHING",
        "autoscaling:EC2_INSTANCE_TERMINATING",
    ):
        raise invalid(f"LifecycleTransition {spec['LifecycleTransition']} is unknown")
    hook = backend.create_lifecycle_hook(
        spec["LifecycleHookName"], group_name, spec["LifecycleTransition"], timeout, default
    )
    hook.role_arn, hook.notification_target_arn = spec.get("RoleARN"), spec.get("NotificationTargetARN")
    hook.notification_metadata = spec.get("NotificationMetadata")
    hook.global_timeout = min(172800, 100 * timeout)


def install(cloud) -> None:
    cloud.patches.set(FakeAutoScalingGroup, "instance_lifecycle_policy", None)
    cloud.patches.set(LifecycleHook, "notification_metadata", None)
    install_groups(cloud)
    install_hooks(cloud)
    install_members(cloud)


def install_groups(cloud) -> None:
    @cloud.patches.extend(AutoScalingResponse)
    def create_auto_scaling_group(base, response):
        name, backend = response._get_param("AutoScalingGroupName"), response.autoscaling_backend
        if name in backend.autoscaling_groups:
            raise AutoscalingClientError("AlreadyExists", "AutoScalingGroup by this name already exists")
        for spec in response._get_param("LifecycleHookSpecificationList", []):
            add_hook(backend, name, spec)
        result = base()
        group = backend.autoscaling_groups[name]
        group.instance_lifecycle_policy = response._get_param("InstanceLifecyclePolicy")
        group.health_check_grace_period = int(response._get_param("HealthCheckGracePeriod") or 0)
        return result

    @cloud.patches.extend(AutoScalingResponse)
    def delete_auto_scaling_group(_, response):
        known, name = response.autoscaling_backend.autoscaling_groups, response._get_param("AutoScalingGroupName")
        if name not in known:
            raise invalid(f"AutoScalingGroup name not found - no such group: {name}")
        if known[name].instance_states and not response._get_bool_param("ForceDelete", False):
            raise AutoscalingClientError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances "
                "or pending Spot instance request(s) still in the group.",
            )
        for member in known.pop(name).instance_states:
            member.instance.ec2_backend.terminate_instances([member.instance_id])
        return EmptyResult()

    @cloud.patches.extend(AutoScalingResponse)
    def describe_scaling_activities(_, response):
        name = response._get_param("AutoScalingGroupName")
        return ActionResult({"Activities": [a for a in cloud.activities if name in (None, a["AutoScalingGroupName"])]})

    @cloud.patches.extend(FakeAutoScalingGroup)
    def replace_autoscaling_group_instances(base, group, count, tags):
        cloud.launching, before = group, len(group.instance_states)
        try:
            base(count, tags)
        finally:
            cloud.launching = None
        for member in group.instance_states[before:]:
            member.lifecycle_state = "Pending"

    @cloud.patches.extend(FakeAutoScalingGroup)
    def set_desired_capacity(_, group, capacity):
        wanted = group.min_size if capacity is None else capacity
        if not group.min_size <= wanted <= group.max_size:
            raise invalid(f"New SetDesiredCapacity value {wanted} is outside of [{group.min_size}, {group.max_size}].")
        group.desired_capacity = wanted
        reconcile(cloud, group)


def install_hooks(cloud) -> None:
    def find_action(response):
        group = response.autoscaling_backend.autoscaling_groups.get(response._get_param("AutoScalingGroupName"))
        token, instance = response._get_param("LifecycleActionToken"), response._get_param("InstanceId")
        if not token and not instance:
            raise invalid("Either LifecycleActionToken or InstanceId must be given")
        for member in group.instance_states if group else []:
            action = getattr(member, "actions", {}).get(response._get_param("LifecycleHookName"))
            if (
                action
                and not action.result
                and token in (None, action.token)
                and instance in (None, member.instance_id)
            ):
                return group, member, action
        raise invalid(
            f"No active Lifecycle Action found with {'token' if token else 'instance ID'} {token or instance}"
        )

    @cloud.patches.extend(AutoScalingResponse)
    def put_lifecycle_hook(_, response):
        if response._get_param("AutoScalingGroupName") not in response.autoscaling_backend.autoscaling_groups:
            raise invalid("AutoScalingGroup name not found")
        add_hook(response.autoscaling_backend, response._get_param("AutoScalingGroupName"), response._get_params())
        return EmptyResult()

    @cloud.patches.extend(AutoScalingResponse)
    def complete_lifecycle_action(_, response):
        result = response._get_param("LifecycleActionResult")
        if result not in ("CONTINUE", "ABANDON"):
            raise invalid(f"LifecycleActionResult must be CONTINUE or ABANDON, not {result}")
        finish(cloud, *find_action(response), result)
        return EmptyResult()

    @cloud.patches.extend(AutoScalingResponse)
    def record_lifecycle_action_heartbeat(_, response):
        find_action(response)[2].heartbeat()
        return EmptyResult()


def install_members(cloud) -> None:
    def find_member(backend, instance_id):
        for group in backend.autoscaling_groups.values():
            for member in group.instance_states:
                if member.instance_id == instance_id:
                    return group, member
        raise invalid(f"Instance Id not found - No managed instance found for instance ID {instance_id}")

    @cloud.patches.extend(AutoScalingBackend)
    def terminate_instance(_, backend, instance_id, should_decrement):
        group, member = find_member(backend, instance_id)
        before = group.desired_capacity
        group.desired_capacity -= int(bool(should_decrement))
        if member.lifecycle_state == "Terminating:Retained":
            proceed(cloud, group, member, abandoned=False)
        elif not member.lifecycle_state.startswith("Terminating"):
            enter(cloud, group, member, "Terminating")
        return TerminateInstanceActivity(member.instance, before)

    @cloud.patches.extend(AutoScalingBackend)
    def notify_terminate_instances(_, backend, instance_ids):
        """After EC2 TerminateInstances: the next health check notices; moto would replace at once."""

    @cloud.patches.extend(AutoScalingResponse)
    def set_instance_health(base, response):
        group, member = find_member(response.autoscaling_backend, response._get_param("InstanceId"))
        since = getattr(member, "in_service_since", None)
        grace = group.health_check_grace_period / cloud.timing.clock_speed
        respected = str(response._get_param("ShouldRespectGracePeriod")).lower() != "false"
        if respected and grace and (since is None or time.monotonic() - since < grace):
            return EmptyResult()  # AWS accepts it and does nothing yet
        return base()
