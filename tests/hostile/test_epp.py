# SPDX-License-Identifier: Apache-2.0
"""The whole picker under attack on its ext_proc port, while its health service on the same port is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from epp.extproc import PATH
from epp.protos import ext_proc_pb2 as pb
from tests.e2e.stack import Epp, serving
from tests.hostile.server import MIB, Bystander
from tests.hostile.wire import PING, Peer, Seen, data, frame, headers, message, request, rst_stream

HEALTH_PATH = "/grpc.health.v1.Health/Check"
EXT_PROC = request((":path", PATH))


def first_message() -> bytes:
    """What Envoy says first of a request."""
    said = pb.ProcessingRequest()
    for key, value in ((":method", "POST"), (":path", "/v1/completions"), ("content-type", "application/json")):
        header = said.request_headers.headers.headers.add()
        header.key, header.raw_value = key, value.encode()
    packed: bytes = said.SerializeToString()
    return message(packed)


class HealthAsker(Bystander):
    """Asks whether the process is alive."""

    def ask(self, stream_id: int) -> Seen:
        self.peer.say(headers(stream_id, request((":path", HEALTH_PATH))), data(stream_id, message(b""), end=True))
        seen = self.peer.seen(stream_id)
        self.peer.until(lambda: seen.ended)
        return seen


def resident(epp: Epp) -> tuple[int, int]:
    """Bytes: now, and at the peak since the last question."""
    found = {}
    for line in Path(f"/proc/{epp.process.pid}/status").read_text().splitlines():
        if line.startswith(("VmRSS", "VmHWM")):
            found[line[:5]] = int(line.split()[1]) * 1024
    Path(f"/proc/{epp.process.pid}/clear_refs").write_text("5")
    return found["VmRSS"], found["VmHWM"]


@pytest.fixture(scope="module")
def epp() -> Iterator[Epp]:
    with serving("--secure-serving=false", "--endpoints=127.0.0.1:9", "--v=2") as running:
        yield running


FIRST = first_message()
ATTACKS = {
    "requests opened and reset": lambda number: headers(number, EXT_PROC) + data(number, FIRST) + rst_stream(number),
    "streams opened and reset": lambda number: headers(number, EXT_PROC) + rst_stream(number),
    "messages of noise": lambda number: headers(number, EXT_PROC) + data(number, message(b"\xff" * 9)),
    "empty messages": lambda number: headers(number, EXT_PROC) + data(number, message(b"") * 50),
    "requests left open": lambda number: headers(number, EXT_PROC) + data(number, FIRST),
    "pings": lambda number: frame(PING, payload=b"12345678") * 20,
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_picker_answers_others_under_attack(epp: Epp, kind: str) -> None:
    before, _ = resident(epp)
    with HealthAsker(epp.port), Peer(epp.port) as peer:
        assert peer.sync()
        numbers = itertools.count(1, 2)
        for _ in range(3):
            if not peer.say(*[ATTACKS[kind](next(numbers)) for _ in range(1_000)]):
                break
        peer.sync()
    _, peak = resident(epp)
    grown = peak - before
    print(f"memory +{grown / MIB:.1f} MiB at its peak")
    assert grown < 128 * MIB
    assert epp.process.poll() is None
    assert not any("Traceback" in line for line in epp.lines)
