# SPDX-License-Identifier: Apache-2.0
"""A model server that does what a request's `x-do` header says, and otherwise answers at once. A program of its own:

    pod.py --listen 127.0.0.1:0 [--listen ...] [--metrics ok|garbage|silent]

prints the ports it got, in order, on one line, and serves until it is ended.

    (none)       200 with ANSWER as soon as the body is here; HEAD: the same without the body
    echo         200, JSON of what arrived: method, path, headers, size and SHA-256 of the body, trailers
    sse N MS     N events, cut into HTTP chunks at odd places, MS milliseconds between them
    trailers     200, two chunks, then the trailer x-sum
    204, 500     that status
    reset        response headers, one chunk, then a TCP reset
    sleep MS     ANSWER after MS milliseconds
    hang         no answer at all
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import cast

import uvloop

# The answer of the tutorial, cut short: null members, odd blanks and an escape that a re-serialiser would change.
ANSWER = (
    b'{\n  "choices": [{"finish_reason": "stop", "index": 0, "logprobs": null, "message": {"content":'
    b' "In the sky, where the heavens stretch,\\nThe clouds dance with the wind\\u0027s soft hand.",'
    b' "reasoning_content": null, "role": "assistant", "tool_calls": []}, "stop_reason": null}],\n'
    b'  "created": 1758107110, "id": "chatcmpl-bb9bb4be", "kv_transfer_params": null,\n'
    b'  "model": "Qwen/Qwen2.5-0.5B-Instruct", "object": "chat.completion", "prompt_logprobs": null,\n'
    b'  "usage": {"completion_tokens": 178, "prompt_tokens": 24, "prompt_tokens_details": null, "total_tokens": 202}\n}'
)
SSE_USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "prompt_tokens_details": {"cached_tokens": 3}}
POD_HEADER = "x-inference-pod"

_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="4096"} 1.0
"""
_METRICS = {
    "ok": (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s")
    % (len(_PAGE), _PAGE.encode()),
    "garbage": b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + bytes(range(250)) * 20,
    "silent": b"",
}


def sse_body(events: int) -> bytes:
    """What a stream of `events` events consists of."""
    parts = [b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word%d"}}]}\n\n' % i for i in range(events)]
    parts.append(b'data: {"id":"c","choices":[],"usage":%s}\n\n' % json.dumps(SSE_USAGE).encode())
    return b"".join(parts) + b"data: [DONE]\n\n"


@dataclass
class Request:
    """One request, whole."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Pod(asyncio.Protocol):
    """One connection."""

    def __init__(self, address: str, metrics: str) -> None:
        self._metrics = _METRICS[metrics]
        self._name = f"{POD_HEADER}: {address}\r\n".encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + self._name
        self._head = head + b"content-length: %d\r\n\r\n" % len(ANSWER)
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._task is None:
            read = read_message(self._buffer)
            if read is None:
                return
            request, self._buffer = read
            self._answer(request)

    def _answer(self, request: Request) -> None:
        if request.path == "/metrics":
            self._transport.write(self._metrics)
            return
        do = request.get("x-do")
        if not do:
            self._transport.write(self._head + (b"" if request.method == "HEAD" else ANSWER))
            return
        self._task = asyncio.ensure_future(self._do(do.split(), request))
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.result()
            self.data_received(b"")

    async def _do(self, do: list[str], request: Request) -> None:
        write = self._transport.write
        what = do[0]
        if what == "echo":
            write(self._response("200 OK", "application/json", json.dumps(described(request)).encode()))
        elif what == "204":
            write(b"HTTP/1.1 204 No Content\r\n" + self._name + b"\r\n")
        elif what == "500":
            write(self._response("500 Internal Server Error", "application/json", b'{"error": {"message": "boom"}}'))
        elif what == "trailers":
            write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n" + self._name)
            write(b"\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx-sum: 6\r\n\r\n")
        elif what == "sleep":
            await asyncio.sleep(float(do[1]) / 1e3)
            write(self._head + ANSWER)
        elif what == "hang":
            await asyncio.Event().wait()
        else:
            await self._stream(what, do)

    async def _stream(self, what: str, do: list[str]) -> None:
        write = self._transport.write
        write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
        write(self._name + b"\r\n")
        if what == "reset":
            write(b"9\r\ndata: 1\n\n\r\n")
            await asyncio.sleep(0.05)
            # SO_LINGER of zero seconds turns the close into a reset.
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return
        events, pause_s = int(do[1]), float(do[2]) / 1e3
        body, rng, at = sse_body(events), random.Random(events), 0
        longest = 2 * len(body) // events
        while at < len(body):
            piece = body[at : at + rng.randint(1, longest)]
            at += len(piece)
            write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(pause_s)
        write(b"0\r\n\r\n")

    def _response(self, status: str, kind: str, body: bytes) -> bytes:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n".encode()
        return head + self._name + b"\r\n" + body


def described(request: Request) -> dict[str, object]:
    """What `echo` tells."""
    return {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body_bytes": len(request.body),
        "sha256": hashlib.sha256(request.body).hexdigest(),
        "trailers": request.trailers,
    }


def read_message(data: bytes) -> tuple[Request, bytes] | None:
    """The first request in `data` and what follows it; None when it is not whole yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    request = Request(method, path, _fields(lines))
    at = end + 4
    if request.get("transfer-encoding") == "chunked":
        return _read_chunks(request, data, at)
    length = int(request.get("content-length") or 0)
    if len(data) < at + length:
        return None
    request.body = data[at : at + length]
    return request, data[at + length :]


def _read_chunks(request: Request, data: bytes, at: int) -> tuple[Request, bytes] | None:
    # Cheap while a large body is on its way: the end is looked for before anything is cut.
    if b"\r\n0\r\n" not in data[at - 2 :]:
        return None
    pieces = []
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(data[at:line], 16)
        if size == 0:
            break
        pieces.append(data[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
        if at > len(data):
            return None
    end = data.find(b"\r\n\r\n", line)
    if end < 0:
        return None
    if end > line:
        request.trailers = _fields(data[line + 2 : end].decode("latin-1").split("\r\n"))
    request.body = b"".join(pieces)
    return request, data[end + 4 :]


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines if line)
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


async def _serve(places: list[str], metrics: str) -> None:
    loop = asyncio.get_running_loop()
    ports = []
    for place in places:
        host, _, port = place.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
        bound = sock.getsockname()[1]
        address = f"{host}:{bound}"
        await loop.create_server(lambda address=address: Pod(address, metrics), sock=sock, backlog=1024)
        ports.append(bound)
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--listen", action="append", required=True)
    arguments.add_argument("--metrics", choices=sorted(_METRICS), default="ok")
    given = arguments.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(given.listen, given.metrics))
