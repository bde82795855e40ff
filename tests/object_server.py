"""A real S3 server on loopback, and a proxy before it that injects faults.

The server is moto's, in a separate process: s3fs sends its requests over TCP. The
proxy forwards requests and changes the answers that its faults choose: by a count, or at random by a seed. It is a
thread of the tests' process, so that a test can choose faults and see the requests.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import quote, unquote

SERVER_ERROR, SLOW_DOWN, DENIED = "500", "503", "403"
TRUNCATED, CORRUPTED, DROPPED, HANGING = "truncated", "corrupted", "drop", "hang"
# The server handles the request, and the answer is lost.
UNANSWERED = "unanswered"
_START_S = 60.0
# The server requires signed requests, and checks no signature.
_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
_MOTO = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class ObjectServer:
    """Where an S3 server, or the proxy before one, listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables by which boto and s3fs find this server, with keys that are none."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self) -> str:
        """Make an empty bucket and return its URL, ``s3://...``."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.request("PUT", f"/{name}")
        return f"s3://{name}"

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a plain request past all client libraries."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, quote(path, safe="/?&="), body, _SIGNED)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 300, (answer.status, content)
            return content
        finally:
            connection.close()

    def read(self, url: str) -> bytes:
        """Bytes of an object, as the server holds them."""
        return self.request("GET", "/" + url.removeprefix("s3://"))

    def write(self, url: str, content: bytes) -> None:
        """Put an object there."""
        self.request("PUT", "/" + url.removeprefix("s3://"), content)

    def remove(self, url: str) -> None:
        """Remove an object."""
        self.request("DELETE", "/" + url.removeprefix("s3://"))

    def names(self, url: str) -> list[str]:
        """Keys of all objects in a bucket, below the URL's folder; as many as one page of a listing has."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        listing = self.request("GET", f"/{bucket}?list-type=2&prefix={prefix}").decode()
        return re.findall(r"<Key>([^<]*)</Key>", listing)


@contextmanager
def running_server() -> Iterator[ObjectServer]:
    """An S3 server in a process of its own, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield ObjectServer(int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.kill()
        process.wait(_START_S)
        process.stdout.close()


@dataclass
class Fault:
    """What goes wrong with some requests.

    Attributes
    ----------
    kind
        One of the constants above; ``hang`` holds the answer back for `seconds`.
    match
        Regular expression that is looked for in ``METHOD /bucket/key``.
    times
        How many of the matching requests; None for all of them.
    share
        Probability that a matching request is hit, drawn by the proxy's seed.
    """

    kind: str
    match: str = ""
    times: int | None = None
    share: float = 1.0
    seconds: float = 0.0


@dataclass
class FaultyProxy:
    """Faults to inject, and the requests so far: one ``METHOD /bucket/key`` each, with its range."""

    server: ObjectServer
    upstream_port: int
    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    num_failed: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._choosing = threading.Lock()

    def choose_fault(self, line: str, asked_range: str | None) -> Fault | None:
        with self._choosing:
            self.requests.append(line if asked_range is None else f"{line} {asked_range}")
            for fault in self.faults:
                if fault.times == 0 or not re.search(fault.match, line) or self._random.random() >= fault.share:
                    continue
                fault.times = None if fault.times is None else fault.times - 1
                self.num_failed += 1
                return fault
        return None

    def seen(self, pattern: str) -> list[str]:
        """Requests so far in which the pattern is found."""
        return [line for line in self.requests if re.search(pattern, line)]


@contextmanager
def faulty_proxy(upstream: ObjectServer, seed: int = 0) -> Iterator[FaultyProxy]:
    """A proxy before `upstream`, which ends with the block."""
    listener = _Listener(("127.0.0.1", 0), _Handler)
    proxy = FaultyProxy(ObjectServer(listener.server_address[1]), upstream.port, seed)
    listener.proxy = proxy
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""

    def handle_any(self) -> None:
        body = self._body()
        fault = self.server.proxy.choose_fault(f"{self.command} {unquote(self.path)}", self.headers.get("Range"))
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == HANGING:
            time.sleep(fault.seconds)
        if kind in (DROPPED, HANGING):
            self.close_connection = True
        elif kind == SERVER_ERROR:
            self._answer(500, {}, _error("InternalError"))
        elif kind == DENIED:
            self._answer(403, {}, _error("AccessDenied"))
        elif kind == SLOW_DOWN:
            self._answer(503, {}, _error("SlowDown"))
        else:
            self._hand_on(body, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def _body(self) -> bytes | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length == 0 and "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunks()
        return self.rfile.read(length) if length else None

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _hand_on(self, body: bytes | None, kind: str | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream_port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        finally:
            connection.close()
        if kind == UNANSWERED:
            self.close_connection = True
            return
        if kind == CORRUPTED and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        self._answer(answer.status, kept, content, is_truncated=kind == TRUNCATED)

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, *, is_truncated: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", length if is_head else str(len(content)))
        self.end_headers()
        if is_truncated:
            # A truncated body.
            content = content[: len(content) // 2]
            self.close_connection = True
        if not is_head:
            self.wfile.write(content)


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
