"""The S3 endpoint that clients use: passes every request to the real server as it is, and does what the test's faults
say.

Clients sign for this host and port, and the server checks the signature against the Host header it receives, so headers
pass unchanged. Also here, because only this place sees every request: "Object Created" events of buckets whose
EventBridge notifications are on, the check of x-amz-expected-bucket-owner, and the record of calls.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from .account import ACCOUNT
from .patching import caller_of
from .s3_faults import MESSAGES, S3Fault
from .web import Server

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
CHUNK = 1 << 18
OBJECT_CREATED = {
    "PutObject": "PutObject",
    "CopyObject": "CopyObject",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}


def operation_of(method: str, key: str, query: dict[str, list[str]], headers) -> str:
    """The API's name of a request; for what is not worth a name, method and subresource."""
    if key:
        if "uploads" in query and method == "POST":
            return "CreateMultipartUpload"
        if "uploadId" in query:
            copied = "UploadPartCopy" if "x-amz-copy-source" in headers else "UploadPart"
            return {
                "PUT": copied,
                "POST": "CompleteMultipartUpload",
                "DELETE": "AbortMultipartUpload",
                "GET": "ListParts",
            }[method]
        if sub := subresource(query):
            return f"{method} {sub}"
        if method == "PUT":
            return "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
        return {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(method, method)
    if "delete" in query and method == "POST":
        return "DeleteObjects"
    if "list-type" in query:
        return "ListObjectsV2"
    if sub := subresource(query):
        return f"{method} {sub}"
    return {"PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket", "GET": "ListObjects"}.get(
        method, method
    )


def subresource(query: dict[str, list[str]]) -> str:
    known = (
        "notification",
        "versioning",
        "versions",
        "policy",
        "acl",
        "tagging",
        "attributes",
        "lifecycle",
        "encryption",
        "uploads",
        "location",
        "object-lock",
        "retention",
        "legal-hold",
        "cors",
        "publicAccessBlock",
        "ownershipControls",
    )
    return next((name for name in known if name in query), "")


class S3Proxy:
    def __init__(self, cloud) -> None:
        self.cloud, self.notifying = cloud, set()
        self._server = Server(type("Handler", (ProxyHandler,), {"proxy": self}))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="local-cloud-s3", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def created(self, operation: str, bucket: str, key: str, etag: str, version: str) -> None:
        if bucket in self.notifying:
            self.cloud.bus.emit(
                "aws.s3",
                "Object Created",
                {
                    "version": "0",
                    "bucket": {"name": bucket},
                    "reason": OBJECT_CREATED[operation],
                    "requester": ACCOUNT,
                    "request-id": "LOCAL",
                    "source-ip-address": "127.0.0.1",
                    "object": {
                        "key": key,
                        "size": self.cloud.s3.size_of(bucket, key),
                        "etag": etag.strip('"'),
                        "sequencer": f"{time.time_ns():016X}",
                        **({"version-id": version} if version else {}),
                    },
                },
                [f"arn:aws:s3:::{bucket}"],
            )


class ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Proxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: head and body are written apart

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query, keep_blank_values=True)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        self.operation, self.bucket, self.key = operation_of(self.command, key, self.query, self.headers), bucket, key
        self.body_read = False
        cloud = self.proxy.cloud
        caller = caller_of(self.headers.get("User-Agent", ""))
        cloud.calls.append({"call": f"s3:{self.operation}", "caller": caller, "key": key, "at": time.time()})
        cloud.permissions.check_s3(self.operation, bucket, key, self.query.get("prefix", [None])[0], caller)
        fault = cloud.s3_faults.take(self.operation, key, bucket)
        if fault:
            fault.pause()
            time.sleep(fault.delay)
            if fault.error:
                return self.refuse(fault.error)
        if self.headers.get("x-amz-expected-bucket-owner", ACCOUNT) != ACCOUNT:
            return self.refuse("AccessDenied")
        if self.operation.endswith(" notification"):
            return self.notification()
        self.forward(fault)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    # ---- passing on --------------------------------------------------------------------------------------------------

    def forward(self, fault: S3Fault | None) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.cloud.s3.port, timeout=600)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP - {"transfer-encoding"} and name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders()
            for chunk in self.request_body(raw=True):
                upstream.send(chunk)
            answer = upstream.getresponse()
            body = None if self.operation == "GetObject" and answer.status < 300 else answer.read()
            self.note(answer, body or b"")
            if fault and fault.lose_reply:
                self.cut()
            else:
                self.answer(answer, body, fault)
        finally:
            upstream.close()

    def request_body(self, *, raw: bool):
        """The request's body in pieces; raw: with its chunk framing, as it came."""
        self.body_read = True
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while True:
                line = self.rfile.readline(1024)
                size = int(line.split(b";")[0], 16)
                data = self.rfile.read(size) if size else b""
                tail = self.rfile.readline(1024)  # ends a chunk; after the last one, trailers until an empty line
                while not size and tail.strip():
                    line, tail = line + tail, self.rfile.readline(1024)
                yield line + data + tail if raw else data
                if not size:
                    return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                raise ConnectionResetError("the client went away")
            left -= len(chunk)
            yield chunk

    def note(self, answer: http.client.HTTPResponse, body: bytes) -> None:
        """CompleteMultipartUpload may answer 200 with an error inside."""
        if self.operation in OBJECT_CREATED and answer.status == 200 and b"<Error>" not in body:
            found = re.search(rb"<ETag>(?:&quot;|&#34;|\")?([^<&\"]+)", body)
            etag = answer.headers.get("ETag") or (found[1].decode() if found else "")
            self.proxy.created(self.operation, self.bucket, self.key, etag, answer.headers.get("x-amz-version-id", ""))

    def answer(self, answer: http.client.HTTPResponse, body: bytes | None, fault: S3Fault | None) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP and not (
                body is not None and name.lower() == "content-length" and self.command != "HEAD"
            ):
                self.send_header(name, value)
        if body is not None:
            if self.command != "HEAD" and answer.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.end_headers()
        self.stream(answer, fault)

    def stream(self, answer: http.client.HTTPResponse, fault: S3Fault | None) -> None:
        total, sent = int(answer.headers["Content-Length"]), 0
        while chunk := answer.read(CHUNK):
            if fault and fault.corrupt and sent == 0:
                chunk = bytes([chunk[0] ^ 0x01]) + chunk[1:]
            if fault and fault.truncate and sent + len(chunk) > total // 2:
                self.wfile.write(chunk[: total // 2 - sent])
                return self.cut()
            self.wfile.write(chunk)
            sent += len(chunk)
        if sent < total:  # the server broke off: so do we
            self.cut()
        return None

    # ---- answers of its own ------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def refuse(self, code: str) -> None:
        status, message = MESSAGES[code]
        self.reply(
            status,
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message>'
            f"<Resource>{escape(self.path)}</Resource><RequestId>LOCAL</RequestId></Error>".encode(),
        )

    def notification(self) -> None:
        """Put or get a bucket's notification configuration: only EventBridge, which the server does not know."""
        on = b"<EventBridgeConfiguration"
        if self.command == "PUT":
            body = b"".join(self.request_body(raw=False))
            if any(
                word in body for word in (b"QueueConfiguration", b"TopicConfiguration", b"CloudFunctionConfiguration")
            ):
                return self.refuse("InternalError")
            (self.proxy.notifying.add if on in body else self.proxy.notifying.discard)(self.bucket)
            return self.reply(200, b"")
        enabled = on + b"/>" if self.bucket in self.proxy.notifying else b""
        return self.reply(200, b"<NotificationConfiguration>" + enabled + b"</NotificationConfiguration>")

    def reply(self, status: int, body: bytes) -> None:
        if not self.body_read:
            for _ in self.request_body(raw=True):
                pass
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-request-id", "LOCAL")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
