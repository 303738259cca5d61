"""How long things take. AWS's own delays are short here; its long clocks run at a speed that the test chooses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds, unless a line says otherwise. On AWS most of the first group are tens of seconds."""

    boot: float = 0.3  # EC2 pending -> running
    shutdown: float = 0.3  # EC2 shutting-down -> terminated
    health_check: float = 0.3  # an unhealthy or stopped instance is noticed by its group
    launch_retry: float = 1.0  # a failed launch is tried again
    attach: float = 0.2  # an interface is attached, or detached
    guest_network: float = 0.2  # the guest configures a private address that came to it
    ssm_register: float = 0.5  # running -> the agent is Online
    ssm_visible: float = 0.1  # SendCommand -> GetCommandInvocation and ListCommandInvocations know it
    event: float = 0.0  # emitted -> delivered
    tick: float = 0.05

    # How many times faster than on AWS: hook time-outs, SSM delivery time-outs, retries of deliveries and of
    # asynchronous invocations, the return of failed messages. Never: time limits of commands and of functions.
    clock_speed: float = 1.0
    # The same for schedules with a rate. 0: schedules run only when a test says `cloud.fire(name)`.
    schedule_speed: float = 1.0

    def scaled(self, seconds: float) -> float:
        return seconds / self.clock_speed
