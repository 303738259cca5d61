"""Metrics that functions print in their logs (embedded metric format), as CloudWatch takes them from there."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    namespace: str
    name: str
    value: float
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    function: str


class Metrics(list):
    """All that were printed, oldest first."""

    def named(self, name: str, **dimensions: str) -> list[Metric]:
        return [m for m in self if m.name == name and set(dimensions.items()) <= set(m.dimensions)]

    def last(self, name: str, **dimensions: str) -> float | None:
        found = self.named(name, **dimensions)
        return found[-1].value if found else None

    def take_from(self, function: str, logs: str) -> None:
        for line in logs.splitlines():
            if '"_aws"' in line and line.startswith("{"):
                self.extend(parse(function, json.loads(line)))


def parse(function: str, record: dict) -> list[Metric]:
    """One line names metrics once for each set of dimensions."""
    found = []
    for directive in record["_aws"]["CloudWatchMetrics"]:
        for names in directive.get("Dimensions") or [[]]:
            dimensions = tuple((name, str(record[name])) for name in names)
            for metric in directive["Metrics"]:
                values = record[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    found.append(
                        Metric(
                            directive["Namespace"],
                            metric["Name"],
                            float(value),
                            metric.get("Unit", "None"),
                            dimensions,
                            function,
                        )
                    )
    return found
