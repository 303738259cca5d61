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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_cloud import LocalCloud, Timing
from local_cloud.cloud import CACHE, built

from .console import Console
from .corpus import Document, documents
from .embed import Embedder
from .story import FUNCTIONS, Story
from .weaviate_client import Refused

LOGS = CACHE / "demo" / "logs"
ENDPOINTS = ["elastic_ip", "network_interface", "private_ip"]
TICKS_PER_MINUTE = 20  # of the lifecycle function's schedule; one on AWS


def main() -> int:
    arguments = argparse.ArgumentParser(prog="demo")
    arguments.add_argument("--endpoint", choices=ENDPOINTS, default=ENDPOINTS[0], help="the kind of stable address")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if missing := [p for p in needed() if not p.is_file()]:
        print(
            f"demo: {', '.join(map(str, missing))} missing; run `make demo`, which builds and installs them",
            file=sys.stderr,
        )
        return 1
    console = Console()
    try:
        return run(console, options.endpoint)
    except KeyboardInterrupt:
        console.bad("Interrupted; everything was stopped and removed.")
        return 130


def needed() -> list[Path]:
    return [*(built(program) for program in ("perennial", *FUNCTIONS.values())), CACHE / "bin" / "weaviate-server"]


def run(console: Console, endpoint: str) -> int:
    console.plain(
        "Perennial: a dead Weaviate instance comes back with its data, then its address.",
        "Real: Weaviate, an S3 server, the Lambda functions, the agent, the templates. Simulated: EC2 and the rest of AWS;",
        "an instance is a folder and its processes, the stable address one of this machine. It takes about a minute.",
    )
    embedder = Embedder(CACHE / "demo" / "embeddings")
    with ThreadPoolExecutor(1) as background, LocalCloud(timing=Timing(schedule_speed=TICKS_PER_MINUTE)) as cloud:
        quieten(cloud)
        story = Story(cloud, console, background.submit(corpus, embedder), embedder, endpoint)
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


def corpus(embedder: Embedder) -> list[tuple[Document, Sequence[float]]]:
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
