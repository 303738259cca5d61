"""Schedules: EventBridge Scheduler's, and rules with a ScheduleExpression. By the clock, or now when a test says so."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone

from moto.events.models import Rule, events_backends
from moto.scheduler.models import Schedule, scheduler_backends

from .account import ACCOUNT, REGION
from .events import now

UNITS = {"minute": 60, "hour": 3600, "day": 86400}
WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}


class Schedules:
    def __init__(self, cloud) -> None:
        self.cloud = cloud
        self._last: dict[str, float] = {}  # arn -> when it fired, or was first seen
        self._lock = threading.Lock()

    def all(self) -> Iterator[Schedule | Rule]:
        for group in scheduler_backends[ACCOUNT][REGION].schedule_groups.values():
            yield from list(group.schedules.values())
        yield from [
            r
            for r in list(events_backends[ACCOUNT][REGION].event_buses["default"].rules.values())
            if r.scheduled_expression
        ]

    def fire(self, name: str) -> None:
        """Now, whatever its expression and even if it is disabled."""
        found = [s for s in self.all() if s.name == name]
        if not found:
            raise KeyError(f"there is no schedule {name}; there are {sorted(s.name for s in self.all())}")
        self._fire(found[0])

    def tick(self) -> None:
        speed = self.cloud.timing.schedule_speed
        for schedule in self.all() if speed else ():
            with self._lock:
                last, present = self._last.setdefault(schedule.arn, time.time()), time.time()
                due = schedule.state == "ENABLED" and is_due(expression(schedule), last, present, speed)
                if due:
                    self._last[schedule.arn] = present
            if due:
                self._fire(schedule)

    def _fire(self, schedule: Schedule | Rule) -> None:
        if isinstance(schedule, Rule):
            event = self._event(schedule, "aws.events", {})
            self.cloud.bus.seen.append(event)
            self.cloud.bus.to_targets(schedule, event)
            return
        target = schedule.target
        payload = self._event(schedule, "aws.scheduler", "{}")
        if "Input" in target:
            payload = json.loads(
                target["Input"]
                .replace("<aws.scheduler.schedule-arn>", schedule.arn)
                .replace("<aws.scheduler.scheduled-time>", now())
                .replace("<aws.scheduler.execution-id>", str(uuid.uuid4()))
                .replace("<aws.scheduler.attempt-number>", "1")
            )
        # The Scheduler assumes the role that the schedule names: the target's own policy is not asked.
        self.cloud.delivery.send(
            target["Arn"],
            payload,
            service=None,
            source_arn=schedule.arn,
            retry=target.get("RetryPolicy"),
            dead_letters=target.get("DeadLetterConfig", {}).get("Arn"),
        )

    @staticmethod
    def _event(schedule: Schedule | Rule, source: str, detail: object) -> dict:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": source,
            "account": ACCOUNT,
            "time": now(),
            "region": REGION,
            "resources": [schedule.arn],
            "detail": detail,
        }


def expression(schedule: Schedule | Rule) -> str:
    return schedule.scheduled_expression if isinstance(schedule, Rule) else schedule.schedule_expression


def is_due(text: str, last: float, present: float, speed: float) -> bool:
    """Rates run `speed` times faster than real time; cron and at keep to the calendar."""
    kind, _, inside = text.rstrip(")").partition("(")
    if kind == "rate":
        number, unit = inside.split()
        return present - last >= int(number) * UNITS[unit.removesuffix("s")] / speed
    if kind == "at":
        moment = datetime.fromisoformat(inside).replace(tzinfo=timezone.utc).timestamp()
        return last < moment <= present
    if kind == "cron":
        return int(present // 60) > int(last // 60) and cron_matches(
            inside, datetime.fromtimestamp(present, timezone.utc)
        )
    raise ValueError(f"{text!r} is neither rate(...), cron(...) nor at(...)")


def cron_matches(text: str, moment: datetime) -> bool:
    """AWS's six fields: minute hour day-of-month month day-of-week year; one of the days is `?`; days of the week are 1
    (Sunday) to 7.
    """
    minute, hour, day, month, weekday, year = text.split()
    if (day == "?") == (weekday == "?"):
        raise ValueError(f"cron({text}): one of day-of-month and day-of-week must be `?`, the other not")
    wanted = [
        (minute, moment.minute),
        (hour, moment.hour),
        (day, moment.day),
        (month, moment.month),
        (weekday, moment.isoweekday() % 7 + 1),
        (year, moment.year),
    ]
    return all(field_matches(field, value) for field, value in wanted)


def field_matches(field: str, value: int) -> bool:
    return any(part_matches(part, value) for part in field.split(","))


def part_matches(part: str, value: int) -> bool:
    if part in ("*", "?"):
        return True
    found = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", part)
    if not found:
        raise ValueError(f"the local cloud does not know the cron field {part!r}")
    first = 0 if found[1] == "*" else number(found[1])
    last = number(found[2]) if found[2] else (9999 if found[3] else first)
    return first <= value <= last and (value - first) % int(found[3] or 1) == 0


def number(text: str) -> int:
    return WEEKDAYS[text.upper()] if text.upper() in WEEKDAYS else int(text)
