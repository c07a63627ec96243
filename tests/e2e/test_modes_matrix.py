# SPDX-License-Identifier: Apache-2.0
"""Every request body mode with every response body mode on real Envoy, against the table of `matrix_table`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator

import aiohttp
import pytest

from epp.extproc import End
from tests.e2e.matrix_bench import MODES, Bench, Run, Seen, running
from tests.e2e.matrix_parts import BIG, EVENTS, PLAIN, Answer, half
from tests.e2e.matrix_table import UNWATCHED, Cell, cells

pytestmark = pytest.mark.envoy

SMALL = b'{"pod": 1, "x": "' + b"a" * 1000 + b'"}'
FIVE_MB = b'{"pod": 1, "x": "' + b"b" * 5_000_000 + b'"}'
SENT = {"get": b"", "head": b"", "five-mb": FIVE_MB, "early-401": FIVE_MB}
DO = {"no-content": "204", "sse": "sse", "five-mb-sse": "big", "reset": "reset", "early-401": "early"}
TRAILED = json.dumps({"trailers": {"x-t": "1"}}).encode()
BODIES = {"plain": PLAIN, "empty": b"", "events": b"".join(EVENTS), "big": BIG, "trailed": TRAILED, "first": EVENTS[0]}
FITS = 256 * 1024
"""A body of at most this is seen whole in BUFFERED_PARTIAL."""


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[Bench, Run]]:
    with running() as both:
        yield both


@pytest.mark.parametrize("response", MODES)
@pytest.mark.parametrize("request_mode", MODES)
def test_every_pair_of_modes(bench: tuple[Bench, Run], request_mode: str, response: str) -> None:
    it, run = bench
    wrong: list[str] = []
    for cell in cells(request_mode, response):
        answer, seen = run(_ask(it, cell, request_mode, response))
        wrong += [f"{cell.case}: {what}" for what in differences(cell, answer, seen, response)]
    assert wrong == []
    run(it.healthy())


@pytest.mark.parametrize("watch", ["NOTHING", "HEADERS"])
@pytest.mark.parametrize("response", MODES)
@pytest.mark.parametrize("request_mode", ["STREAMED", "BUFFERED", "FULL_DUPLEX_STREAMED"])
def test_a_response_that_is_not_watched(bench: tuple[Bench, Run], request_mode: str, response: str, watch: str) -> None:
    it, run = bench
    wrong: list[str] = []
    for cell in cells(request_mode, response):
        if cell.case not in UNWATCHED:
            continue
        answer, seen = run(_ask(it, cell, request_mode, response, watch=watch))
        wrong += [f"{cell.case}: {what}" for what in answer_differences(cell, answer)]
        shown = (len(seen.response_headers), seen.body, seen.end)
        if shown != (int(watch == "HEADERS"), b"", End.UNWATCHED):
            wrong.append(f"{cell.case}: the handler saw {shown}")
    assert wrong == []
    run(it.healthy())


async def _ask(
    bench: Bench, cell: Cell, request: str, response: str, variant: str = "all", watch: str = "BODY"
) -> tuple[Answer, Seen]:
    modes, case = (request, response, variant), cell.case
    headers = {"watch": watch, "removed": "by the picker"}
    if case in DO:
        headers["do"] = DO[case]
    if case == "http2":
        return await bench.ask_h2(modes, SMALL, [("x-t", "1")], **headers)
    if case == "gone-up":
        return await _leave_upload(bench, modes)
    if case == "gone-down":
        return await _leave_stream(bench, modes)
    method = {"get": "GET", "head": "HEAD"}.get(case, "POST")
    return await bench.ask(method, modes, SENT.get(case, SMALL) or None, **headers)


async def _leave_upload(bench: Bench, modes: tuple[str, ...]) -> tuple[Answer, Seen]:
    """Half of the body is sent, Envoy has begun to ask, and the client goes."""
    headers: dict[str, str] = {}
    cell, halfway = bench.cell(headers), asyncio.Event()
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(bench.url(*modes), headers=headers, data=half(SMALL, halfway)))
        await halfway.wait()
        await bench.until(lambda: bench.open)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    return Answer(), await bench.ended(cell)


async def _leave_stream(bench: Bench, modes: tuple[str, ...]) -> tuple[Answer, Seen]:
    """The pod is within its answer, as far as that mode lets one see it, and the client goes."""
    headers = {"x-do": "endless"}
    cell = bench.cell(headers)
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.post(bench.url(*modes), headers=headers, data=SMALL))
        if "BUFFERED" in modes[1]:
            await bench.until(lambda: cell in bench.seen and bench.seen[cell].response_headers)
            asking.cancel()
        else:
            response = await asking
            await response.content.readany()
            response.close()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    return Answer(), await bench.ended(cell)


def differences(cell: Cell, answer: Answer, seen: Seen, response: str) -> list[str]:
    """In what way the client or the handler got something else than the table says."""
    found = answer_differences(cell, answer)
    if seen.end is not cell.end:
        found.append(f"ended as {seen.end}, not {cell.end}")
    if cell.status == 0:
        asked = len(seen.requests)
        return found if asked == bool(cell.pod) else [*found, f"the handler was asked {asked} times"]
    if [headers[":status"] for headers, _ in seen.response_headers] != [
        "200" if cell.status == 502 else str(cell.status)
    ]:
        found.append(f"the handler saw the headers {seen.response_headers}")
    if response == "NONE" or cell.status == 502:
        expected = b""
    else:
        expected = answer.body
    whole = response != "BUFFERED_PARTIAL" or len(expected) <= FITS
    if seen.body != expected and (whole or not seen.body or not expected.startswith(seen.body)):
        found.append(f"the handler saw {len(seen.body)} bytes of {len(expected)}")
    return found


def answer_differences(cell: Cell, answer: Answer) -> list[str]:
    """In what way the client, or the pod, got something else than the table says."""
    if cell.status == 0:
        return []
    found = []
    if (answer.status, answer.complete) != (cell.status, not cell.cut):
        found.append(f"answered {answer.status}, complete {answer.complete}")
    if cell.status == 502:
        # Envoy's own words: nothing of the pod's answer had been passed on.
        return found
    if answer.body != BODIES[cell.body]:
        found.append(f"{len(answer.body)} bytes of answer")
    if answer.headers.get("x-pod") != cell.pod:
        found.append(f"went to pod {answer.headers.get('x-pod')}")
    sent = hashlib.sha256(SENT.get(cell.case, SMALL)).hexdigest()
    if cell.case != "early-401" and answer.headers.get("x-sha") != sent:
        found.append("another body arrived at the pod")
    if cell.case == "http2" and answer.trailers != {"grpc-status": "0", "x-sum": "6"}:
        found.append(f"the trailers {answer.trailers}")
    return found
