"""The S3 server of the benchmark: a bucket for each system, what is in it, what was asked of the server, and setting a
bucket back to what it was.

Requests are counted from the server's own access log. Uploaded bytes are those of the objects that an operation made or
replaced, as they lie in the bucket; so an object that it also deleted again is not counted. A bucket is kept as a folder
of hard links, which is safe because the server never writes into an object that exists.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
from botocore.config import Config

from local_cloud.s3_server import S3Server

from .measure import Command, Cost, run
from .tree import files, remove

REGION = "us-east-1"
# owner bucket [time] address requester request-id operation key uri status error sent size total turnaround
LINE = re.compile(rb"\] \S+ \S+ \S+ s3_(\w+) .*? /\S* \d{3} \S+ \d+ \d+ (\d+) \d+ ", re.MULTILINE)

Objects = dict[str, tuple[int, int, int]]  # path in the bucket -> inode, time, size


class Server:
    def __init__(self, program: Path, folder: Path, marker: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir()
        self._access_log = folder / "access.log"
        environment = {"PATH": os.environ["PATH"], **marker}
        self._server = S3Server(program, folder, folder / "server.log", environment, self._access_log)
        self.endpoint = f"http://127.0.0.1:{self._server.port}"
        self._client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self._server.access_key,
            aws_secret_access_key=self._server.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self._server.access_key,
            "AWS_SECRET_ACCESS_KEY": self._server.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        self._server.stop()

    # ---- measuring ----------------------------------------------------------------------------------------------------

    def measured(self, bucket: str, command: Command, runner: Callable[[Command], Cost] = run) -> Cost:
        """What the command cost, here and on the server."""
        before, log_from, worked = self.objects(bucket), self._access_log.stat().st_size, self._cpu_seconds()
        cost = runner(command)
        server = self._cpu_seconds() - worked
        requests, request_seconds = self._asked_since(log_from)
        after = self.objects(bucket)
        return replace(
            cost,
            server_cpu_seconds=server,
            others_cpu_seconds=max(0.0, cost.others_cpu_seconds - server),
            requests=requests,
            request_seconds=request_seconds,
            uploaded_bytes=sum(now[2] for path, now in after.items() if before.get(path) != now),
            stored_bytes=sum(size for _, _, size in after.values()),
        )

    def objects(self, bucket: str) -> Objects:
        root, found = self._bucket(bucket), {}
        for path in files(root):
            name, state = str(path.relative_to(root)), path.stat()
            if not name.startswith(".sgwtmp"):
                found[name] = (state.st_ino, state.st_mtime_ns, state.st_size)
        return found

    def _asked_since(self, offset: int) -> tuple[dict[str, int], float]:
        with self._access_log.open("rb") as file:
            file.seek(offset)
            asked = LINE.findall(file.read())
        counted = Counter(operation.decode() for operation, _ in asked)
        return dict(sorted(counted.items())), sum(int(milliseconds) for _, milliseconds in asked) / 1000

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # ---- buckets ------------------------------------------------------------------------------------------------------

    def new_bucket(self, bucket: str) -> None:
        self.drop_bucket(bucket)
        self._client.create_bucket(Bucket=bucket)

    def drop_bucket(self, bucket: str) -> None:
        for place in self._parts(bucket):
            remove(place)

    def keep(self, bucket: str, name: str) -> None:
        """As it is now, under a name."""
        for place, kept in zip(self._parts(bucket), self._kept(bucket, name), strict=True):
            remove(kept)
            if place.exists():
                shutil.copytree(place, kept, copy_function=os.link)

    def set_back(self, bucket: str, name: str) -> None:
        for place, kept in zip(self._parts(bucket), self._kept(bucket, name), strict=True):
            remove(place)
            if kept.exists():
                shutil.copytree(kept, place, copy_function=os.link)

    def forget(self, bucket: str, name: str) -> None:
        for kept in self._kept(bucket, name):
            remove(kept)

    def _bucket(self, bucket: str) -> Path:
        return self._server.folder / bucket

    def _parts(self, bucket: str) -> list[Path]:
        """Its objects, and their metadata where the file system has no extended attributes for it."""
        return [self._bucket(bucket), self.folder / "metadata" / bucket]

    def _kept(self, bucket: str, name: str) -> list[Path]:
        return [self.folder / "kept" / name / bucket / part for part in ("objects", "metadata")]
