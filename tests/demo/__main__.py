"""Runs the demo. Exit code 0: all was as promised; 1: something differs, or never came; 130: interrupted.

Everything it starts and writes is gone when it ends, however it ends; after a failure the logs of instances and
functions are kept in the cache folder.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients import CLIENTS, Refused
from local_cloud import LocalCloud, Timing
from local_cloud.cloud import CACHE, built
from local_cloud.engines import ENGINES

from .console import Console
from .corpus import Document, documents
from .embed import Embedder
from .questions import Question, by_meaning, by_name
from .story import FUNCTIONS, Story

LOGS = CACHE / "demo" / "logs"
ENDPOINTS = ["elastic_ip", "network_interface", "private_ip"]
TICKS_PER_MINUTE = 20  # of the lifecycle function's schedule; one on AWS


# What is real of the engine, and what is not.
REAL = {"weaviate": "Weaviate", "qdrant": "Qdrant's storage engine", "redis": "Redis"}
STANDS_IN = {"qdrant": ["A small REST server around Qdrant's engine stands in for Qdrant's own."]}


def main() -> int:
    arguments = argparse.ArgumentParser(prog="demo")
    arguments.add_argument("--engine", choices=[*ENGINES], default="redis", help="the database")
    arguments.add_argument("--endpoint", choices=ENDPOINTS, help="the kind of stable address; default: the engine's")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if missing := [p for p in needed(options.engine) if not p.is_file()]:
        print(
            f"demo: {', '.join(map(str, missing))} missing; run `make demo ENGINE={options.engine}`, which builds and "
            "installs them",
            file=sys.stderr,
        )
        return 1
    console = Console()
    try:
        return run(console, options.engine, options.endpoint)
    except KeyboardInterrupt:
        console.bad("Interrupted; everything was stopped and removed.")
        return 130


def needed(engine: str) -> list[Path]:
    ours = [built(program) for program in ("perennial", *FUNCTIONS.values())]
    return [*ours, *(CACHE / "bin" / program for program in ENGINES[engine].programs)]


def run(console: Console, engine: str, endpoint: str | None) -> int:
    console.plain(
        f"Perennial: a dead {engine.title()} instance comes back with its data, then its address.",
        f"Real: {REAL[engine]}, an S3 server, the Lambda functions, the agent, the templates. Simulated: EC2 and the rest",
        "of AWS; an instance is a folder and its processes, the stable address one of this machine.",
        *STANDS_IN.get(engine, []),
        "It takes about a minute.",
    )
    timing = Timing(schedule_speed=TICKS_PER_MINUTE)
    with ThreadPoolExecutor(1) as background, LocalCloud(engine=engine, timing=timing) as cloud:
        quieten(cloud)
        texts, questions = data(engine)
        story = Story(cloud, console, background.submit(texts), questions, endpoint)
        try:
            story.tell()
        except (AssertionError, Refused) as problem:
            story.differences.append(str(problem))
        except KeyboardInterrupt:
            raise
        except BaseException:
            keep_logs(cloud)
            raise
        if story.differences:
            keep_logs(cloud)
    return verdict(console, story.differences)


def data(engine: str) -> tuple[Callable[[], list[tuple[Document, Sequence[float]]]], list[Question]]:
    """What is loaded, which takes a while, and what is asked."""
    if not CLIENTS[engine].searches:
        return lambda: [(document, ()) for document in documents()], by_name()
    embedder = Embedder(CACHE / "demo" / "embeddings")
    return lambda: embedded(embedder), by_meaning(embedder)


def embedded(embedder: Embedder) -> list[tuple[Document, Sequence[float]]]:
    found = documents()
    return list(zip(found, embedder.cached([f"{d.name}\n{d.text}" for d in found]), strict=True))


def quieten(cloud: LocalCloud) -> None:
    """What the local cloud has to say goes to its logs."""
    log = logging.getLogger("local_cloud")
    log.addHandler(logging.FileHandler(cloud.logs / "local-cloud.log", delay=True))
    log.propagate = False


def keep_logs(cloud: LocalCloud) -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    shutil.copytree(cloud.logs, LOGS)


def verdict(console: Console, differences: list[str]) -> int:
    if differences:
        console.bad("Not as promised:")
        console.plain(*(f"  - {difference}" for difference in differences), f"  Logs: {LOGS}")
        return 1
    console.good("Everything is as promised, and everything was stopped and removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
