"""HTTP/1.1 on threads: one thread a connection, bodies with a length or chunked, replies as JSON, text, files, streams.

Every request's body is read to its end, also when it was refused, so that a connection can go on. A client that goes
away does not stop what it asked for, as on the real server.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from .errors import ApiError, bad_json

VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
PIECE = 1 << 20


# ---- requests -------------------------------------------------------------------------------------------------------


class Body:
    """A request's body, read piece by piece."""

    def __init__(self, source: BinaryIO, headers: Any) -> None:
        self.source = source
        self.chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        self.left = 0 if self.chunked else int(headers.get("Content-Length") or 0)
        self.ended = not self.chunked and not self.left

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all if negative; nothing at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE), b""))
        if self.chunked and not self.left and not self.ended:
            self.next_chunk()
        if self.ended:
            return b""
        piece = self.source.read(min(size, self.left))
        if not piece:
            raise ConnectionError("the client went away in the middle of its body")
        self.left -= len(piece)
        if not self.left and not self.chunked:
            self.ended = True
        elif not self.left:
            self.source.readline()
        return piece

    def next_chunk(self) -> None:
        self.left = int(self.source.readline().split(b";")[0], 16)
        if not self.left:
            while self.source.readline().strip():
                pass
            self.ended = True


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: Body
    data: bytes = b""

    def wait(self, default: bool) -> bool:
        return self.query.get("wait", str(default)).lower() == "true"

    def json(self) -> Any:
        """The body; an error in it says where, as the real server does."""
        self.data = self.body.read()
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError as error:
            what = "EOF while parsing a value" if error.pos >= len(self.data.decode(errors="replace")) else error.msg
            raise bad_json(f"{what.split(':')[0]} at line {error.lineno} column {error.colno - 1}") from error

    def fields(self, *needed: str) -> dict[str, Any]:
        body = self.json()
        if not isinstance(body, dict):
            raise bad_json(f"invalid type, expected a map at line 1 column {len(self.data)}")
        for name in needed:
            if body.get(name) is None:
                raise bad_json(f"missing field `{name}` at line 1 column {len(self.data)}")
        return body

    def store_upload(self, name: str, folder: Path) -> tuple[Path, str | None]:
        """The multipart field of that name as a file in the folder, and the name that the client gave it."""
        kind = re.search('boundary="?([^";]+)', self.headers.get("Content-Type") or "")
        if not kind:
            raise ApiError(400, "Multipart error: Boundary is not found", plain=True)
        parts = Parts(self.body, b"\r\n--" + kind[1].encode())
        while (described := parts.next()) is not None:
            given = dict(re.findall(r'\b(name|filename)="([^"]*)"', described))
            if given.get("name") == name:
                path = folder / "upload"
                with path.open("wb") as file:
                    parts.copy(file)
                return path, given.get("filename")
            parts.copy(None)
        raise ApiError(400, f'Multipart error: Field with name "{name}" is required', plain=True)


class Parts:
    """The parts of a multipart body, one after the other."""

    def __init__(self, body: Body, delimiter: bytes) -> None:
        self.body, self.delimiter, self.held = body, delimiter, b"\r\n"
        self.copy(None)  # what stands before the first part

    def fill(self) -> bool:
        piece = self.body.read(PIECE)
        self.held += piece
        return bool(piece)

    def next(self) -> str | None:
        """The headers of the next part; None after the last one."""
        while b"\r\n\r\n" not in self.held:
            if self.held.startswith(b"--") or not self.fill():
                return None
        described, self.held = self.held.split(b"\r\n\r\n", 1)
        return described.decode(errors="replace")

    def copy(self, file: BinaryIO | None) -> None:
        """This part's content, up to the delimiter."""
        keep = len(self.delimiter)
        while (at := self.held.find(self.delimiter)) < 0:
            done = max(0, len(self.held) - keep)
            if file:
                file.write(self.held[:done])
            self.held = self.held[done:]
            if not self.fill():
                raise ApiError(400, "Multipart error: Multipart stream is incomplete", plain=True)
        if file:
            file.write(self.held[:at])
        self.held = self.held[at + keep :]


# ---- replies --------------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FileReply:
    """A file that stays; ranges work."""

    path: Path


@dataclass
class StreamReply:
    """A temporary file, sent in chunks and then removed."""

    path: Path
    name: str


def json_reply(value: Any, status: int = 200) -> Reply:
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return Reply(status, orjson.dumps(value, option=option), "application/json")


def result(value: Any, began: float) -> Reply:
    return json_reply({"result": value, "status": "ok", "time": time.monotonic() - began})


def accepted(began: float) -> Reply:
    return json_reply({"status": "accepted", "time": time.monotonic() - began}, 202)


def error_reply(error: ApiError, began: float) -> Reply:
    if error.plain:
        return Reply(error.status, error.message.encode(), TEXT)
    return json_reply({"status": {"error": error.message}, "time": time.monotonic() - began}, error.status)


def in_background(what: str, action: Callable[[], Any]) -> None:
    """For wait=false: nobody is told how it ends but the log, as on the real server."""

    def run() -> None:
        try:
            action()
        except ApiError as error:
            print(f"{what}: {error.message}", file=sys.stderr, flush=True)
        except Exception:
            traceback.print_exc()

    threading.Thread(target=run, name=what).start()


# ---- the server -----------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], answer: Callable[[Request, float], Any]) -> None:
        self.answer = answer
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):  # clients go away
            traceback.print_exc()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    connection: socket.socket

    def do_GET(self) -> None:
        began = time.monotonic()
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, unquote(url.path), query, self.headers, Body(self.rfile, self.headers))
        reply = self.answer(request, began)
        while request.body.read(PIECE):
            pass
        if isinstance(reply, FileReply):
            self.send_file(reply)
        elif isinstance(reply, StreamReply):
            self.send_stream(reply)
        else:
            self.send_reply(reply)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def answer(self, request: Request, began: float) -> Any:
        try:
            return self.server.answer(request, began)
        except ApiError as error:
            return error_reply(error, began)
        except ConnectionError:
            raise
        except Exception as error:
            traceback.print_exc()
            return error_reply(ApiError(500, f"Service internal error: {error!r}"), began)

    def send_head(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"vary: {VARY}", f"date: {self.date_time_string()}"]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self.connection.sendall(head if self.command == "HEAD" else head + body)

    def send_reply(self, reply: Reply) -> None:
        headers = {} if reply.status == 304 else {"content-length": str(len(reply.body))}
        if reply.content_type:
            headers["content-type"] = reply.content_type
        self.send_head(reply.status, headers | reply.headers, reply.body)

    def send_file(self, reply: FileReply) -> None:
        with reply.path.open("rb") as file:
            status = os.fstat(file.fileno())
            size, modified = status.st_size, status.st_mtime_ns
            first, last = byte_range(self.headers.get("Range"), size)
            headers = {
                "content-length": str(last - first),
                "content-type": BYTES,
                "last-modified": self.date_time_string(int(status.st_mtime)),
                "accept-ranges": "bytes",
                "content-disposition": f'attachment; filename="{reply.path.name}"',
                "etag": f'"{status.st_ino:x}:{size:x}:{modified // 10**9:x}:{modified % 10**9:x}"',
            }
            if first > last:
                self.send_reply(Reply(416, headers={"content-range": f"bytes */{size}"}))
            elif (first, last) == (0, size) and not self.headers.get("Range"):
                self.send_head(200, headers)
                self.connection.sendfile(file, 0)
            else:
                headers |= {"content-range": f"bytes {first}-{last - 1}/{size}", "content-encoding": "identity"}
                self.send_head(206, headers)
                self.connection.sendfile(file, first, last - first)

    def send_stream(self, reply: StreamReply) -> None:
        try:
            disposition = f'attachment; filename="{reply.name}"'
            chunked = {"transfer-encoding": "chunked", "content-type": BYTES, "content-disposition": disposition}
            self.send_head(200, chunked)
            with reply.path.open("rb") as file:
                while piece := file.read(PIECE):
                    self.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.connection.sendall(b"0\r\n\r\n")
        finally:
            with contextlib.suppress(FileNotFoundError):
                reply.path.unlink()

    def log_message(self, *_: Any) -> None:
        """No access log."""


def byte_range(header: str | None, size: int) -> tuple[int, int]:
    """The bytes from first up to, not including, last. first > last: there are none such."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not found or found[1] == found[2] == "":
        return 0, size
    if not found[1]:
        return max(0, size - int(found[2])), size
    first = int(found[1])
    last = min(size, int(found[2]) + 1) if found[2] else size
    return (first, last) if first < size else (1, 0)
