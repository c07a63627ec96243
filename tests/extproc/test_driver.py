# SPDX-License-Identifier: Apache-2.0
"""What ties an exchange to a stream: tasks that end with it, errors that stay in it, what is said once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from epp.extproc import BodyMode, Driver, End, Immediate, Outcome, service
from epp.protos.ext_proc_pb2 import ProcessingRequest
from tests.extproc.messages import Recorder, body, headers, kinds, response_body, response_headers


class Stream:
    """What a transport is told."""

    def at_once_bytes(self) -> int:
        return 65_536

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.finished: list[tuple[int, str]] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        self.finished.append((status, message))


def driven(handler: Recorder) -> tuple[Driver, Stream]:
    stream = Stream()
    return service(lambda: handler)(None, stream), stream


async def test_a_decision_that_envoy_did_not_wait_for_is_cancelled() -> None:
    cancelled: list[bool] = []

    async def decide() -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError

    handler = Recorder(decide())
    driver, stream = driven(handler)
    driver.message(headers(response=BodyMode.BUFFERED))
    driver.message(body(b"{}", True))
    await asyncio.sleep(0)
    driver.message(response_headers(status="504"))
    driver.message(response_body(b"timeout", True))
    await asyncio.sleep(0)
    assert cancelled == [True]
    assert kinds(stream.sent) == ["response_headers", "response_body"]
    assert (handler.ends, stream.finished) == ([End.GONE], [])


async def test_a_decision_that_came_late_is_sent_and_ends_the_stream() -> None:
    async def decide() -> Outcome:
        await asyncio.sleep(0)
        return Immediate(429)

    handler = Recorder(decide())
    driver, stream = driven(handler)
    driver.message(headers(end=True))
    assert stream.sent == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert kinds(stream.sent) == ["immediate_response"]
    assert (handler.ends, stream.finished) == ([End.COMPLETE], [(0, "")])


def test_an_exception_ends_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    handler = Recorder(ValueError("a defect"))
    driver, stream = driven(handler)
    with caplog.at_level(logging.ERROR, "epp.extproc"):
        driver.message(headers(end=True))
    assert (handler.ends, stream.finished) == ([End.FAILED], [(13, "internal error")])
    assert "a defect" in caplog.text


def test_observed_streams_end_at_once_and_are_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    message = ProcessingRequest.FromString(headers())
    message.observability_mode = True
    handlers = [Recorder(), Recorder()]
    waiting = iter(handlers)
    opened = service(lambda: next(waiting))
    with caplog.at_level(logging.WARNING, "epp.extproc"):
        for handler in handlers:
            stream = Stream()
            opened(None, stream).message(message.SerializeToString())
            assert (handler.requests, handler.ends) == ([], [End.UNWATCHED])
            assert (stream.sent, stream.finished) == ([], [(0, "")])
    assert len(caplog.records) == 1
    assert "observability_mode" in caplog.records[0].getMessage()
