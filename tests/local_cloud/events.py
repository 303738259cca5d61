"""The event bus: what services say, the disorder that tests add, rules, and delivery to targets.

AWS delivers at least once, in any order, and service events on a best-effort basis. By default a cloud delivers once,
in order and at once; `hold`, `drop`, `duplicate`, `delay` and `shuffle` take that away.
"""

from __future__ import annotations

import functools
import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone

from moto.events.models import EventTemplateParser, Rule, events_backends

from .account import ACCOUNT, REGION

Match = str | Callable[[dict], bool]


@dataclass
class Disorder:
    match: Match
    kind: str
    times: float
    amount: float = 0
    held: list[dict] = field(default_factory=list)

    def catches(self, event: dict) -> bool:
        if self.times <= 0:
            return False
        hit = self.match(event) if callable(self.match) else bool(re.search(self.match, event["detail-type"]))
        self.times -= hit
        return hit


class EventBus:
    def __init__(self, cloud) -> None:
        self.cloud, self.seen, self.dropped = cloud, [], []
        self._disorders: list[Disorder] = []
        self._lock = threading.Lock()

    # ---- what happens to the next events; `match` is a regular expression on the detail-type, or a function of the eve

    def drop(self, match: Match, times: float = 1) -> None:
        self._add(Disorder(match, "drop", times))

    def duplicate(self, match: Match, times: float = 1, copies: int = 2) -> None:
        self._add(Disorder(match, "duplicate", times, copies))

    def delay(self, match: Match, seconds: float, times: float = 1) -> None:
        self._add(Disorder(match, "delay", times, seconds))

    @contextmanager
    def hold(self, match: Match = ".*") -> Iterator[list[dict]]:
        """Deliver matching events only when the block ends, in the order they were said. Gives the held events; may be
        reordered in place.
        """
        rule = Disorder(match, "hold", float("inf"))
        self._add(rule)
        try:
            yield rule.held
        finally:
            with self._lock:
                self._disorders = [d for d in self._disorders if d is not rule]
            for event in rule.held:
                self.cloud.clock.after(0, self._dispatch, event)

    @contextmanager
    def shuffle(self, match: Match = ".*", seed: int = 0) -> Iterator[list[dict]]:
        with self.hold(match) as held:
            yield held
            random.Random(seed).shuffle(held)

    def calm(self) -> None:
        """Forget every drop, duplicate and delay."""
        with self._lock:
            self._disorders = [d for d in self._disorders if d.kind == "hold"]

    def _add(self, disorder: Disorder) -> None:
        with self._lock:
            self._disorders.append(disorder)

    # ---- events ------------------------------------------------------------------------------------------------------

    def emit(self, source: str, detail_type: str, detail: dict, resources: list[str] | tuple = ()) -> dict:
        """A service says something. Also for tests, e.g. a spot warning."""
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT,
            "time": now(),
            "region": REGION,
            "resources": list(resources),
            "detail": detail,
        }
        self.publish(event)
        return event

    def publish(self, event: dict) -> None:
        with self._lock:
            self.seen.append(event)
            disorder = next((d for d in self._disorders if d.catches(event)), None)
            if disorder and disorder.kind == "hold":
                disorder.held.append(event)
                return
        kind = disorder.kind if disorder else ""
        if kind == "drop":
            self.dropped.append(event)
            return
        delay = disorder.amount if kind == "delay" else self.cloud.timing.event
        for _ in range(int(disorder.amount) if kind == "duplicate" else 1):
            self.cloud.clock.after(delay, self._dispatch, event)

    def _dispatch(self, event: dict) -> None:
        bus = events_backends[ACCOUNT][REGION].event_buses["default"]
        for rule in list(bus.rules.values()):
            pattern = rule.event_pattern
            if rule.state == "ENABLED" and pattern.get_pattern() and pattern.matches_event(event):
                self.to_targets(rule, event)

    def to_targets(self, rule: Rule, event: dict) -> None:
        for target in list(rule.targets):
            payload = shaped(target, event)
            self.cloud.delivery.send(
                target["Arn"],
                payload,
                service="events.amazonaws.com",
                source_arn=rule.arn,
                retry=target.get("RetryPolicy"),
                dead_letters=target.get("DeadLetterConfig", {}).get("Arn"),
                fifo_group=target.get("SqsParameters", {}).get("MessageGroupId"),
            )


def shaped(target: dict, event: dict) -> object:
    """What the target gets: the event, a constant, a part, or a template filled in."""
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputPath" in target:
        return functools.reduce(lambda node, key: node[key], target["InputPath"].split(".")[1:], event)
    if transform := target.get("InputTransformer"):
        return EventTemplateParser.parse(transform["InputTemplate"], transform.get("InputPathsMap", {}), event)
    return event


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def install(cloud) -> None:
    @cloud.patches.extend(Rule)
    def send_to_targets(_, rule, event, transform_input=True):
        """PutEvents: moto knows no Lambda or SNS target here and delivers for disabled rules."""
        event = {k: v for k, v in event.items() if k != "ingestion-time"} | {"account": ACCOUNT}
        if not isinstance(event["time"], str):
            event["time"] = datetime.fromtimestamp(event["time"], timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if event not in cloud.bus.seen:
            cloud.bus.seen.append(event)
        if rule.state == "ENABLED" and rule.event_pattern.matches_event(event):
            cloud.bus.to_targets(rule, event)
