# SPDX-License-Identifier: Apache-2.0
"""Whole conversations: messages on a stream -> exchange -> director with the built-in configuration and four endpoints.

* Whatever Envoy says, the stream comes to one end: finished by us once, or cancelled; nothing escapes.
* Every reply is a `ProcessingResponse`; an immediate one has a status of the table and the error envelope in one line.
* Afterwards nothing is in flight on any endpoint, whichever way it ended; what goes on unwatched, a while later.
* Nothing is logged at error level; lines of the log are JSON; the metrics page can be made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from prometheus_client import generate_latest

from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.load import load_text
from epp.contract.discovery import EndpointSpec
from epp.contract.signals import Sample
from epp.director import Director, Settings
from epp.director.unwatched import Unwatched
from epp.endpoints.pool import Pool
from epp.extproc import service
from epp.observe.log.logs import open_log
from epp.observe.recorder import Recorder
from epp.protos.ext_proc_pb2 import ProcessingResponse
from epp.service.wiring import plan_of
from epp.testing import FakeClock
from tests.fuzz.harness import Input, Run, Target, no_error_logged
from tests.fuzz.targets.conversation import CANCEL, HALF_CLOSE, MESSAGE, TURN, WORDS, conversations

LIMIT_BYTES = 20_000
_STATUSES = {400, 404, 413, 415, 429, 500, 503}
_PAGE_EVERY = 200
_TICK_S = 60.0
_MOST_TICKS = 1000


class _Lines:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | bytearray) -> None:
        self.data += data


class _Outlet:
    """What the stream was told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends: list[tuple[int, str]] = []

    def at_once_bytes(self) -> int:
        return 1 << 20

    def send(self, message: bytes) -> None:
        assert not self.ends
        self.sent.append(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        self.ends.append((status, message))


class Picker:
    """A director with everything it needs, and streams to it. `echo`: with every setting that adds work switched on."""

    def __init__(self, *, echo: bool = False, limit_bytes: int = LIMIT_BYTES) -> None:
        self.clock = FakeClock()
        self.pool = Pool(self.clock)
        self.lines = _Lines()
        self.log = open_log(self.lines, delay_s=3600.0, verbosity=5)
        self.recorder = Recorder(
            self.log, lambda: self.pool.columns, self.clock, pool_name="p", staleness_s=2.0, version="0"
        )
        assembly = assemble(load_text("", collect(points=())), self.clock, 1)
        for hook in assembly.endpoint_hooks:
            self.pool.subscribe(hook.object)
        ips = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1")
        self.pool.apply([EndpointSpec("default", f"pod-{ip}", ip, 8000) for ip in ips])
        for position, endpoint in enumerate(self.pool):
            self.pool.record(
                endpoint, Sample(waiting=position, kv_utilization=0.1, block_size_tokens=16, num_blocks=100)
            )
        settings = Settings(body_limit_bytes=limit_bytes, echo_headers=echo)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        unwatched = Unwatched(
            self.pool, self.recorder, self.clock, lambda when_s, tell: self.timers.append((when_s, tell))
        )
        self.pool.subscribe(unwatched)
        self.director = Director(
            self.pool, plan_of(assembly, self.clock), self.recorder, unwatched, clock=self.clock,
            new_request_id=lambda: "made", settings=settings,
        )  # fmt: skip
        self.open = service(self.director.open, limit_bytes)

    def in_flight(self) -> float:
        """Requests and tokens booked anywhere."""
        columns = self.pool.columns
        return float(abs(columns.in_flight_requests).sum() + abs(columns.in_flight_tokens).sum())

    def let_go(self) -> None:
        """Let time pass until requests that went on without us are over, as far as anybody can know."""
        for _ in range(_MOST_TICKS):
            if not self.timers:
                return
            self.clock.advance(_TICK_S)
            waiting, self.timers = self.timers, []
            for _, tell in waiting:
                tell()

    def check_told(self) -> None:
        """Lines of the log are JSON and no errors."""
        self.recorder.flush()
        self.log.flush()
        told, self.lines.data = bytes(self.lines.data), bytearray()
        for line in told.splitlines():
            assert orjson.loads(line)["level"] != "error", line


async def converse(picker: Picker, said: list[tuple[int, bytes]]) -> _Outlet:
    """One stream, from its opening to its end."""
    outlet = _Outlet()
    driver: Any = picker.open(None, outlet)
    over = False
    for kind, message in said:
        if outlet.ends:
            break
        picker.clock.advance(0.01)
        if kind == MESSAGE:
            driver.message(message)
        elif kind == HALF_CLOSE:
            driver.half_closed()
        elif kind == CANCEL:
            driver.cancelled("reset")
            over = True
            break
        else:
            await asyncio.sleep(0)
    if not outlet.ends and not over:
        driver.cancelled("lost")
    task = driver._task
    if task is not None:
        await asyncio.gather(task, return_exceptions=True)
    assert len(outlet.ends) <= 1
    return outlet


def check_replies(outlet: _Outlet) -> None:
    """Replies are readable, immediate ones in the envelope."""
    for data in outlet.sent:
        reply = ProcessingResponse.FromString(data)
        kind = reply.WhichOneof("response")
        assert kind is not None
        if kind == "immediate_response":
            immediate = reply.immediate_response
            assert immediate.status.code in _STATUSES
            assert immediate.status.code != 500, immediate.body
            text = immediate.body.decode()
            assert text.startswith("inference error: ")
            assert "\n" not in text
    for status, message in outlet.ends:
        assert status in (0, 13)
        assert "\n" not in message
        assert message != "internal error"


def _make() -> Run:
    loop = asyncio.new_event_loop()
    pickers = [Picker(), Picker(echo=True)]
    runs = 0

    def run(data: bytes) -> None:
        nonlocal runs
        source = Input(data)
        echo = source.byte() & 1
        picker = pickers[echo]
        logging.getLogger("epp").setLevel(logging.WARNING)
        with no_error_logged():
            outlet = loop.run_until_complete(converse(picker, [(kind % 4, said) for kind, said in source.records()]))
        check_replies(outlet)
        if picker.in_flight():
            picker.let_go()
        if picker.in_flight():
            # What leaked must not be held against the inputs that follow.
            pickers[echo] = Picker(echo=bool(echo))
            raise AssertionError("something is still in flight")
        picker.check_told()
        runs += 1
        if runs % _PAGE_EVERY == 1:
            generate_latest(picker.recorder.registry).decode()

    return run


def _seeds() -> list[bytes]:
    return [bytes([echo]) + said for said in conversations() for echo in (0, 1)]


TARGET = Target("picker", _make, _seeds, (*WORDS, bytes([TURN])))
