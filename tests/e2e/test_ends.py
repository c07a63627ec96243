# SPDX-License-Identifier: Apache-2.0
"""What a handler tells at a response's end, through real Envoy: in every mode that shows bodies, for JSON and events,
with and without trailers, over HTTP/1 and HTTP/2, Envoy's access log has the metadata and the client every byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from epp.extproc import End
from tests.e2e.matrix_bench import Bench, Run, running
from tests.e2e.matrix_parts import EVENTS, H2Pod

pytestmark = pytest.mark.envoy

STREAMED, BUFFERED, PARTIAL, DUPLEX = "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"
SHOWN = (STREAMED, BUFFERED, PARTIAL, DUPLEX)
JSON = b'{"usage": {"total_tokens": 202}, "text": "' + b"z" * 100_000 + b'"}'
SSE = b"".join(EVENTS)
POD = "2"
"""The place of the pod below among the bench's."""


class H1TellingPod(asyncio.Protocol):
    """Answers as `x-do` says (json or sse, with `+t` trailers), chunked, over HTTP/1."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, _, body = self._data.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
        if not body.endswith(b"0\r\n\r\n") and len(body) != int(fields.get(b"content-length", -1)):
            return
        self._data = b""
        what = fields[b"x-do"].decode()
        kind = b"application/json" if what.startswith("json") else b"text/event-stream"
        write = self._transport.write
        write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
        for piece in _cut(what):
            write(b"%x\r\n%b\r\n" % (len(piece), piece))
        write(b"0\r\nx-sum: 6\r\n\r\n" if what.endswith("+t") else b"0\r\n\r\n")


class H2TellingPod(H2Pod):
    """The same over HTTP/2."""

    def _answer(self, stream: int, got: dict[str, Any]) -> None:
        what = got["headers"]["x-do"]
        kind = "application/json" if what.startswith("json") else "text/event-stream"
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", kind)])
        self._left = [piece[at : at + 8000] for piece in _cut(what) for at in range(0, len(piece), 8000)]
        self._stream, self._trailers = stream, what.endswith("+t")
        self._go_on()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if getattr(self, "_left", None):
            self._go_on()
            self._transport.write(self._h2.data_to_send())

    def _go_on(self) -> None:
        while self._left and self._h2.local_flow_control_window(self._stream) >= len(self._left[0]):
            piece = self._left.pop(0)
            self._h2.send_data(self._stream, piece, end_stream=not self._left and not self._trailers)
        if not self._left and self._trailers:
            self._h2.send_headers(self._stream, [("x-sum", "6")], end_stream=True)


def _cut(what: str) -> list[bytes]:
    return EVENTS if what.startswith("sse") else [JSON[at : at + 30_000] for at in range(0, len(JSON), 30_000)]


@contextlib.asynccontextmanager
async def pods() -> AsyncIterator[dict[str, str]]:
    """Serve both; their addresses by protocol."""
    loop = asyncio.get_running_loop()
    servers = {
        "h1": await loop.create_server(H1TellingPod, "127.0.0.1", 0),
        "h2": await loop.create_server(lambda: H2TellingPod(POD), "127.0.0.1", 0),
    }
    yield {name: f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for name, server in servers.items()}
    for server in servers.values():
        server.close()


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Bench, Run]]:
    with running() as (bench, run):
        parts = contextlib.AsyncExitStack()

        async def enter() -> None:
            for name, address in (await parts.enter_async_context(pods())).items():
                bench.addresses[name].append(address)

        run(enter())
        yield bench, run
        run(parts.aclose())


async def asked(bench: Bench, modes: tuple[str, ...], protocol: str, do: str, **headers: str) -> tuple[Any, Any, str]:
    """An answer, what the handler saw, and what Envoy's access log says of the metadata."""
    body = b'{"pod": %b, "x": "%b"}' % (POD.encode(), b"a" * 1000)
    if protocol == "h2":
        answer, seen = await bench.ask_h2(modes, body, [], do=do, pod=POD, **headers)
    else:
        answer, seen = await bench.ask("POST", modes, body, do=do, pod=POD, **headers)
    told = await bench.logged(seen.requests[0].headers["x-cell"])
    return answer, seen, told


@pytest.mark.parametrize("response", SHOWN)
@pytest.mark.parametrize("do", ["json", "sse", "json+t", "sse+t"])
@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_the_metadata_is_there_when_the_stream_ends(
    both: tuple[Bench, Run], protocol: str, do: str, response: str
) -> None:
    bench, run = both
    whole = JSON if do.startswith("json") else SSE
    for request in (STREAMED, BUFFERED, DUPLEX):
        answer, seen, told = run(asked(bench, (request, response, "all"), protocol, do, tells="1"))
        assert (answer.status, answer.body, answer.complete) == (200, whole, True)
        assert (seen.body, seen.told, seen.end) == (whole, 1, End.COMPLETE)
        assert told == f"{len(whole)} 0.5 model-m true"
        if protocol == "h2":
            assert answer.trailers == ({"x-sum": "6"} if do.endswith("+t") else {})
    run(bench.healthy())


@pytest.mark.parametrize("response", SHOWN)
@pytest.mark.parametrize("do", ["json", "sse+t"])
def test_with_another_body_in_its_place(both: tuple[Bench, Run], do: str, response: str) -> None:
    bench, run = both
    whole = (JSON if do == "json" else SSE).upper()
    answer, _, told = run(asked(bench, (DUPLEX, response, "all"), "h2", do, tells="1", upper="1"))
    assert (answer.status, answer.body, answer.complete) == (200, whole, True)
    assert told == f"{len(whole)} 0.5 model-m true"


@pytest.mark.parametrize("response", SHOWN)
def test_without_the_wish_nothing_is_told(both: tuple[Bench, Run], response: str) -> None:
    bench, run = both
    _, seen, told = run(asked(bench, (DUPLEX, response, "all"), "h1", "json"))
    assert (seen.told, told) == (0, "- - - -")


@pytest.mark.parametrize(("response", "told"), [(STREAMED, 0), (BUFFERED, 1), (PARTIAL, 0)])
def test_trailers_that_are_not_sent_to_us_hide_the_end(both: tuple[Bench, Run], response: str, told: int) -> None:
    bench, run = both
    answer, seen, _ = run(asked(bench, (STREAMED, response, "no-trailers"), "h2", "json+t", tells="1"))
    assert (answer.body, answer.complete, seen.told) == (JSON, True, told)
    # Without trailers there is an end to see.
    _, seen, _ = run(asked(bench, (STREAMED, response, "no-trailers"), "h2", "json", tells="1"))
    assert seen.told == 1


def test_a_body_over_the_limit_of_buffered_partial_tells_nothing(both: tuple[Bench, Run]) -> None:
    bench, run = both
    answer, seen = run(bench.ask("POST", (STREAMED, PARTIAL, "all"), b"{}", do="big", tells="1"))
    assert (answer.complete, len(answer.body), seen.told) == (True, 5_000_000, 0)


def test_an_answer_that_breaks_off_tells_nothing(both: tuple[Bench, Run]) -> None:
    bench, run = both
    _, seen = run(bench.ask("POST", (DUPLEX, DUPLEX, "all"), b"{}", do="reset", tells="1"))
    assert (seen.told, seen.end) == (0, End.GONE)
