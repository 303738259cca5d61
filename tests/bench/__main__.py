"""Runs the benchmark. Exit code 0: all results were right, however long they took; 1: something that was restored differs from what
was backed up, a command of Perennial failed, or nothing could be measured; 130: interrupted.

The full run writes docs/benchmarks/latest.json and latest.md. A quick or partial one writes into the cache folder, so that
it does not replace what a full one found.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from datetime import datetime, timezone
from pathlib import Path

from local_cloud.cloud import CACHE, REPOSITORY

from . import report
from .console import say
from .data import MIB, Data
from .extras import extras
from .figures import figures
from .machine import machine, programs
from .rounds import Comparison
from .systems import Perennial, Pipe, Rclone, Restic, S5cmd, SeedsScript, System
from .tree import Differs
from .wanted import wishes
from .work import SERVER

SYSTEMS: tuple[type[System], ...] = (Perennial, S5cmd, Pipe, Restic, Rclone, SeedsScript)
FULL, QUICK = (512, 7), (128, 3)  # MiB, rounds


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parsed()
    if not SERVER.is_file():
        print(f"bench: {SERVER} is missing; run `make bench`, which installs it", file=sys.stderr)
        return 1
    try:
        return run(options)
    except Differs as problem:
        print(f"bench: a restored tree is not the original. {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything was stopped and removed", file=sys.stderr)
        return 130


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="128 MiB, 3 rounds, no seeds' script, no extras")
    arguments.add_argument("--size", type=int, help="MiB of data")
    arguments.add_argument("--rounds", type=int)
    names = ", ".join(kind.name for kind in SYSTEMS)
    arguments.add_argument("--only", help=f"systems, with commas between: {names}")
    arguments.add_argument("--no-extras", action="store_true", help="only the comparison")
    arguments.add_argument("--output", type=Path, help="folder of the report")
    options = arguments.parse_args()
    size, rounds = QUICK if options.quick else FULL
    changed = options.size or options.rounds or options.only or options.no_extras
    options.partial = bool(options.quick or changed)
    options.size, options.rounds = (options.size or size) * MIB, options.rounds or rounds
    wanted = options.only.split(",") if options.only else [k.name for k in SYSTEMS if not (options.quick and k.once)]
    if unknown := set(wanted) - {kind.name for kind in SYSTEMS}:
        arguments.error(f"no such system: {', '.join(sorted(unknown))}; there are {names}")
    options.systems = [kind for kind in SYSTEMS if kind.name in wanted]
    return options


def run(options: argparse.Namespace) -> int:
    missing = {kind.title: reason for kind in options.systems if (reason := kind.missing())}
    for title, reason in missing.items():
        say(f"without {title}: {reason}")
    present = [kind for kind in options.systems if kind.title not in missing]
    facts, data = machine(), Data(CACHE)
    comparison = Comparison(data, options.size, options.rounds, present)
    comparison.run()
    found = figures(comparison)
    more = {} if options.quick or options.no_extras else dict(extras(data, options.size))
    every = wishes(found, comparison.facts["changed_bytes"], more)
    document = {
        "made_at": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "partial": options.partial,
        "machine": facts,
        "programs": programs(present),
        "data": comparison.facts,
        "where": comparison.where,
        "rounds": options.rounds,
        "missing": missing,
        "failed": {kind.title: comparison.failed[kind.name] for kind in present if kind.name in comparison.failed},
        "others_cpus_busy": others_busy(comparison),
        "systems": found,
        "extras": more,
        "wanted": [{**vars(wish), "holds": wish.holds} for wish in every],
    }
    text = report.markdown(document, options.systems, every)
    folder = options.output or (CACHE / "bench-reports" if options.partial else REPOSITORY / "docs" / "benchmarks")
    paths = report.write(folder, "quick" if options.quick else "latest", document, text)
    print(text)
    say(f"written: {', '.join(map(str, paths))}")
    missed = [wish.what for wish in every if wish.binding and wish.holds is False]
    for what in missed:
        say(f"MISSED: {what}")
    return 1 if missed or not found or Perennial.name in comparison.failed else 0


def others_busy(comparison: Comparison) -> float:
    costs = [cost for jobs in comparison.costs.values() for each in jobs.values() for cost in each]
    return statistics.median(cost.others_cpu_seconds / cost.seconds for cost in costs) if costs else 0.0


if __name__ == "__main__":
    sys.exit(main())
