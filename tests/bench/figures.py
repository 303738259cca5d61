"""Medians of what was measured, as the report and the wanted ratios read them."""

from __future__ import annotations

import statistics
from dataclasses import asdict

from .measure import Cost
from .rounds import Comparison

NUMBERS = (
    "seconds",
    "cpu_seconds",
    "peak_bytes",
    "server_cpu_seconds",
    "others_cpu_seconds",
    "request_seconds",
    "uploaded_bytes",
    "stored_bytes",
)

Figures = dict[str, dict[str, dict]]  # system -> job -> figures


def figures(comparison: Comparison) -> Figures:
    return {system: {job: summed_up(costs) for job, costs in jobs.items()} for system, jobs in comparison.costs.items()}


def summed_up(costs: list[Cost]) -> dict:
    every = [asdict(cost) for cost in costs]
    found: dict = {number: statistics.median(cost[number] for cost in every) for number in NUMBERS}
    found["over_requests_seconds"] = statistics.median(max(0.0, c["seconds"] - c["request_seconds"]) for c in every)
    found["requests"] = every[-1]["requests"]
    found["times"] = len(every)
    found["every_seconds"] = [round(cost["seconds"], 4) for cost in every]
    return found


def figure(found: Figures, system: str, job: str, number: str) -> float | None:
    return found.get(system, {}).get(job, {}).get(number)
