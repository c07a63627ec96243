# SPDX-License-Identifier: Apache-2.0
"""HTTP clients of our own: one that shows every byte of one exchange, and one that makes load.

`ask` is blocking, over a fresh connection, and can be cut off in the middle. `Load` keeps connections busy on uvloop
and counts what came back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

JSON = {"content-type": "application/json"}
TIMEOUT_S = 20.0


@dataclass
class Answer:
    """A response as it came. `complete`: its end was seen; `error`: why not."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def json(self) -> Any:
        return json.loads(self.body)


def chat(content: str, **more: Any) -> bytes:
    """A chat request's body."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more}).encode()


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunked(pieces: Iterable[bytes], trailers: Mapping[str, str] | None = None) -> bytes:
    """A body in chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    return body + b"0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in (trailers or {}).items()).encode() + b"\r\n"


def post(
    port: int, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions"
) -> Answer:
    """POST `body`, JSON unless `headers` says otherwise."""
    fields = {**JSON, **(headers or {}), "content-length": str(len(body))}
    return ask(port, head("POST", path, fields) + body)


def get(port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """A request without a body."""
    return ask(port, head(method, path, headers or {}), bodiless=method == "HEAD")


def ask(port: int, request: bytes, *, bodiless: bool = False, timeout_s: float = TIMEOUT_S) -> Answer:
    """Send `request` and read the answer to its end, or to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # When it is answered before it was read to its end, the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
        return receive(sock, bodiless=bodiless)


def receive(sock: socket.socket, *, bodiless: bool = False, until: Callable[[Answer], bool] | None = None) -> Answer:
    """Read one answer; with `until`, stop as soon as it is true of what has come."""
    data, answer = b"", Answer()
    while not answer.complete and not (until is not None and answer.status and until(answer)):
        try:
            more = sock.recv(1 << 18)
        except ConnectionResetError:
            more = b""
        if not more:
            # Without a length the end of the connection is the end of the body.
            answer.complete = bool(answer.status) and not _framed(answer)
            return answer
        data += more
        answer = parse(data, bodiless)
    return answer


def _framed(answer: Answer) -> bool:
    return bool(answer.get("content-length") or answer.get("transfer-encoding"))


def parse(data: bytes, bodiless: bool = False) -> Answer:
    """As much of an answer as `data` holds."""
    answer = Answer()
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return answer
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    answer.status = int(first.split(" ")[1])
    answer.headers = _fields(lines)
    at = end + 4
    if bodiless or answer.status in (204, 304):
        answer.complete = True
    elif answer.get("transfer-encoding") == "chunked":
        _read_chunks(answer, data, at)
    else:
        length = int(answer.get("content-length") or -1)
        answer.body = data[at:]
        answer.complete = 0 <= length <= len(answer.body)
    return answer


def _read_chunks(answer: Answer, data: bytes, at: int) -> None:
    pieces = []
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            break
        size = int(data[at:line], 16)
        if size == 0:
            end = data.find(b"\r\n\r\n", line)
            answer.complete = end >= 0
            answer.trailers = _fields(data[line + 2 : end].decode("latin-1").split("\r\n"))
            break
        pieces.append(data[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    answer.body = b"".join(pieces)


def _fields(lines: Iterable[str]) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines if line)
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


@dataclass
class Load:
    """Keeps `connections` keep-alive connections busy with `request(number)` until `total` answers, or `stop`.

    `answers` counts by status; `failed` says what happened to each request that got no whole answer or another status
    than 200, by its number; `by_pod` counts by the pod that answered. Run it with `uvloop.run`.
    """

    port: int
    request: Callable[[int], bytes]
    connections: int = 32
    total: int | None = None
    timeout_s: float = TIMEOUT_S
    answers: Counter[int] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    by_pod: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    stopped: bool = False

    def stop(self) -> None:
        """Finish what is under way, and no more."""
        self.stopped = True

    async def run(self) -> None:
        """Until `total` is reached or `stop` was called."""
        await asyncio.gather(*(self._connection() for _ in range(self.connections)))

    async def run_for(self, seconds: float) -> None:
        """Run for `seconds`, then finish what is under way."""
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self.stop)
        await self.run()

    async def _connection(self) -> None:
        loop = asyncio.get_running_loop()
        protocol: _Asker | None = None
        while not self.stopped and (self.total is None or self.sent < self.total):
            number, self.sent = self.sent, self.sent + 1
            try:
                async with asyncio.timeout(self.timeout_s):
                    if protocol is None or protocol.closed:
                        _, protocol = await loop.create_connection(_Asker, "127.0.0.1", self.port)
                    answer = await protocol.ask(self.request(number))
            except (OSError, TimeoutError) as error:
                self.failed[number] = f"{type(error).__name__}: {error}"
                if protocol is not None:
                    protocol.transport.abort()
                    protocol = None
                continue
            self.answers[answer.status] += 1
            if answer.status != 200:
                self.failed[number] = f"{answer.status} {answer.body[:200]!r}"
            self.by_pod[answer.get("x-inference-pod")] += 1
        if protocol is not None:
            protocol.transport.close()


class _Asker(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport
    closed = False
    _data = b""
    _waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError("the connection ended within an answer"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        # The end of a body is looked for cheaply: answers here are small.
        if self._waiter is None or self._waiter.done():
            return
        answer = parse(self._data)
        if answer.complete:
            self._data = b""
            self.closed = answer.get("connection") == "close"
            self._waiter.set_result(answer)

    async def ask(self, request: bytes) -> Answer:
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiter
