"""One execution environment of a Lambda function: the runtime API on a port of its own, and the function's process."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from .web import Server

API = "/2018-06-01/runtime/"


@dataclass
class Invocation:
    function: str
    event: object
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    response: str = ""
    failed: bool = False
    logs: str = ""
    started: float = field(default_factory=time.time)
    duration: float = 0

    @property
    def result(self) -> object:
        return json.loads(self.response) if self.response else None


class Sandbox:
    """Warm between invocations; a function that ran out of time or died gets a fresh process next time, as on AWS."""

    def __init__(self, program: Path, environment: dict[str, str], log: Path) -> None:
        self.program, self.environment, self.log = program, environment, log
        self.process: subprocess.Popen | None = None
        self.inbox, self.replies = queue.Queue(), queue.Queue()
        self.server = Server(type("Handler", (RuntimeApi,), {"sandbox": self}))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def invoke(self, invocation: Invocation, arn: str, timeout: float) -> None:
        """Fills in the invocation."""
        if not self.process or self.process.poll() is not None:
            self._start_process()
        log_from, began = self.log.stat().st_size, time.monotonic()
        self.inbox.put((invocation, arn, int((time.time() + timeout) * 1000)))
        reply = self._reply(invocation.request_id, began + timeout)
        if reply is None:
            out_of_time = self.process.poll() is None
            self.kill()
            what = f"Task timed out after {timeout:.2f} seconds" if out_of_time else "Runtime exited"
            reply = (
                False,
                json.dumps(
                    {
                        "errorType": "Sandbox.Timedout" if out_of_time else "Runtime.ExitError",
                        "errorMessage": f"RequestId: {invocation.request_id} Error: {what}",
                    }
                ),
            )
        invocation.failed, invocation.response = not reply[0], reply[1]
        invocation.duration = time.monotonic() - began
        time.sleep(0.01)  # what it printed last
        invocation.logs = self.log.read_bytes()[log_from:].decode("utf-8", "replace")

    def _reply(self, request_id: str, deadline: float) -> tuple[bool, str] | None:
        while time.monotonic() < deadline:
            try:
                of, succeeded, body = self.replies.get(timeout=0.05)
            except queue.Empty:
                if self.process.poll() is not None and self.replies.empty():
                    return None
                continue
            if of in (request_id, None):  # None: the runtime could not start
                return succeeded, body
        return None

    def _start_process(self) -> None:
        # A request that is still parked for the previous process must not take the next event.
        self.inbox, self.replies = queue.Queue(), queue.Queue()
        api = f"127.0.0.1:{self.server.server_address[1]}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.program)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**self.environment, "AWS_LAMBDA_RUNTIME_API": api},
                start_new_session=True,
            )

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        self.kill()
        self.server.shutdown()
        self.server.server_close()


class RuntimeApi(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sandbox: Sandbox

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"{}", headers: tuple = ()) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """The next event; waits for one."""
        invocation, arn, deadline = self.sandbox.inbox.get()
        try:
            self.reply(
                200,
                json.dumps(invocation.event).encode(),
                (
                    ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
                    ("Lambda-Runtime-Deadline-Ms", str(deadline)),
                    ("Lambda-Runtime-Invoked-Function-Arn", arn),
                    ("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"),
                ),
            )
        except OSError:  # the process died while it waited
            self.close_connection = True

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or -1)
        body = self.rfile.read(length) if length >= 0 else self._chunked()
        found = re.fullmatch(API + r"(?:invocation/([^/]+)/(response|error)|(init)/error)", self.path)
        if not found:
            return self.reply(404)
        self.sandbox.replies.put((found[1], found[2] == "response", body.decode()))
        return self.reply(202)

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body
