# SPDX-License-Identifier: Apache-2.0
"""Model servers that cost as little as possible: one process, many loopback addresses, one port.

    python -m benchmarks.upstream PORT ADDRESSES [PAGE_BYTES]

Answers on 127.0.1.1 and the ADDRESSES-1 addresses after it: GET /metrics with a vLLM page of about PAGE_BYTES; any
other request, once its body has arrived whole, with JSON that tells the usage, or, where the header `x-chunks: N` asks
for it, with N events of server-sent events, `x-pause-ms` apart.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import cast

import uvloop

from benchmarks.pages import vllm_page

_SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-7","object":"chat.completion.chunk","created":1764000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" cloud"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_CACHED = b'"prompt_tokens_details":{"cached_tokens":1376}'
_USAGE = b'{"prompt_tokens":2290,"completion_tokens":64,"total_tokens":2354,' + _CACHED + b"}"
_LAST_EVENT = b'data: {"id":"chatcmpl-7","choices":[],"usage":' + _USAGE + b"}\n\ndata: [DONE]\n\n"
_ANSWER = (
    b'{"id":"chatcmpl-7","object":"chat.completion","created":1764000000,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"Clouds drift. " * 20 + b'"},"finish_reason":"stop"}],"usage":'
    + _USAGE + b"}"
)  # fmt: skip


def address(number: int) -> str:
    """The loopback address of pod `number` (0..999), each one a machine of its own as far as the picker can see."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def whole_body(request: bytes | bytearray) -> bool:
    """Whether `request`, which starts with a head, has its whole body. Requests are not pipelined here, so a chunked
    body is over where the bytes end with the last chunk."""
    end = request.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = bytes(request[:end]).lower()
    if b"\r\ntransfer-encoding: chunked" in head:
        return request.endswith(b"0\r\n\r\n")
    return len(request) - end - 4 >= int(header(head, b"content-length") or 0)


def header(head: bytes, name: bytes) -> bytes:
    """A header's value in a lower-case head, b"" when it is not there."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


def sized(kind: bytes, body: bytes) -> bytes:
    """A complete answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pod(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, page: bytes) -> None:
        self._loop = loop
        self._page = page
        self._request = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if not whole_body(self._request):
            return
        head = bytes(self._request[: self._request.find(b"\r\n\r\n")]).lower()
        self._request.clear()
        chunks = header(head, b"x-chunks")
        if head.startswith(b"get /metrics"):
            self._transport.write(self._page)
        elif chunks:
            self._transport.write(_SSE_HEAD)
            self._stream(int(chunks), int(header(head, b"x-pause-ms") or 0) / 1000)
        else:
            self._transport.write(JSON)

    def _stream(self, left: int, pause_s: float) -> None:
        if left > 1:
            self._transport.write(EVENT)
            self._timer = self._loop.call_later(pause_s, self._stream, left - 1, pause_s)
        else:
            self._transport.write(LAST_EVENT)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


JSON = sized(b"application/json", _ANSWER)
EVENT = chunk(_EVENT)
LAST_EVENT = chunk(_LAST_EVENT) + b"0\r\n\r\n"


async def serve(port: int, addresses: int, page_bytes: int) -> None:
    """Until cancelled."""
    page = sized(b"text/plain; version=0.0.4; charset=utf-8", vllm_page(random.Random(7), page_bytes))
    loop = asyncio.get_running_loop()
    for number in range(addresses):
        await loop.create_server(lambda: Pod(loop, page), address(number), port, backlog=1024)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until a signal."""
    port, addresses, page_bytes = (*map(int, sys.argv[1:]), 4000)[:3]
    uvloop.run(serve(port, addresses, page_bytes))


if __name__ == "__main__":
    main()
