"""The server as a process of a test or a demo, and a small client. It ends with the program that started it, also when
that is killed: it reads an input that closes then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

TESTS = Path(__file__).resolve().parent.parent


class QdrantServer:
    def __init__(self, folder: Path, api_key: str | None = None, read_only_key: str | None = None) -> None:
        self.storage, self.snapshots, self.log = folder / "storage", folder / "snapshots", folder / "log"
        self.api_key, self.read_only_key = api_key, read_only_key
        self.port = 0
        self.session = requests.Session()
        self.session.trust_env = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> QdrantServer:
        """On the port that it had before, if it had one; returns when everything is loaded."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "qdrant_server", "--until-stdin-closes", "--port", str(self.port)]
        command += ["--storage", str(self.storage), "--snapshots", str(self.snapshots)]
        environment = dict(os.environ)
        keys = {"FULL": ("--api-key-env", self.api_key), "READ": ("--read-only-api-key-env", self.read_only_key)}
        for name, (option, key) in keys.items():
            if key:
                environment[f"QDRANT_SERVER_{name}_KEY"] = key
                command += [option, f"QDRANT_SERVER_{name}_KEY"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=TESTS, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            raise RuntimeError(f"the server did not start; see {self.log}:\n{self.log.read_text()[-2000:]}")
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def stop(self) -> None:
        self.end(signal.SIGTERM)

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(timeout=30)
        self.process.stdin.close()
        self.process.stdout.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        headers = {"api-key": self.api_key} if self.api_key else {}
        return self.session.request(method, self.url + path, json=body, headers=headers, timeout=120, **options)

    def result(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The result, or an error with what the server said."""
        reply = self.ask(method, path, body, **options)
        if reply.status_code != 200:
            raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply.json()["result"]

    def count(self, collection: str) -> int:
        return self.result("POST", f"/collections/{collection}/points/count", {"exact": True})["count"]

    def points(self, collection: str) -> dict[Any, Any]:
        """{id: {payload, vector}} of the whole collection."""
        found, offset = {}, None
        while True:
            request = {"limit": 1000, "offset": offset, "with_vector": True}
            page = self.result("POST", f"/collections/{collection}/points/scroll", request)
            found |= {one["id"]: {"payload": one["payload"], "vector": one["vector"]} for one in page["points"]}
            offset = page["next_page_offset"]
            if offset is None:
                return found
