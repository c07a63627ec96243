# SPDX-License-Identifier: Apache-2.0
"""Decisions and streams to test with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from epp.contract.decision import Decision, ProfileResult, ScoreTrace
from epp.contract.endpoints import Columns, Endpoint, Endpoints
from epp.observe.log.logs import Log, open_log

SEED_LABELS = {
    # Out of order on purpose: Go prints maps sorted.
    "pod-template-hash": "6899dd5fb8",
    "app.kubernetes.io/component": "llminferenceservice-workload",
    "llm-d.ai/role": "both",
    "app.kubernetes.io/name": "qwen-instruct",
    "kserve.io/component": "workload",
    "app.kubernetes.io/part-of": "llminferenceservice",
}


def make_endpoints(count: int, names: Sequence[str] = ()) -> Endpoints:
    """`count` endpoints, the first one is the seed's pod."""
    columns = Columns(count)
    identities = [
        Endpoint("kserve-test", "qwen-instruct-kserve-6899dd5fb8-tqwn8", "10.244.1.234", 8000, SEED_LABELS, row=0)
    ]
    identities += [Endpoint("kserve-test", f"pod-{i}", f"10.244.2.{i}", 8000, row=i) for i in range(1, count)]
    columns.replace_endpoints(tuple(identities))
    return Endpoints(columns, np.arange(count), 0.0)


def make_decision(
    scores: dict[str, tuple[float, list[float]]] | None = None,
    *,
    count: int = 2,
    request_id: str = "4a3f6247-d02f-4a57-9a90-9b25b2daa18c",
    model: str = "Qwen/Qwen2.5-0.5B-Instruct",
    picked: int = 0,
    endpoints: Endpoints | None = None,
    **result: Any,
) -> Decision:
    """A decision of one profile; `scores` maps a scorer to its weight and raw values."""
    endpoints = endpoints or make_endpoints(count)
    traces = tuple(ScoreTrace(name, weight, np.array(raw)) for name, (weight, raw) in (scores or {}).items())
    total = sum((trace.weighted for trace in traces), np.zeros(len(endpoints)))
    profile = ProfileResult("default", endpoints, result.pop("filters", ()), traces, total, (picked,))
    return Decision(request_id, model, model, "default", {"default": profile}, len(endpoints), 1.0)


@pytest.fixture(scope="session")
def decide() -> Callable[..., Decision]:
    """`make_decision`."""
    return make_decision


@pytest.fixture(scope="session")
def endpoints() -> Callable[..., Endpoints]:
    """`make_endpoints`."""
    return make_endpoints


class Memory:
    """A stream that keeps what was written, and can be made to block."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def write(self, data: bytes | bytearray, /) -> None:
        """Keep `data` once `open` is set."""
        self.entered.set()
        assert self.open.wait(20)
        self.writes.append(bytes(data))

    @property
    def text(self) -> str:
        """Everything written."""
        return b"".join(self.writes).decode()

    def records(self) -> list[dict[str, Any]]:
        """Everything written, as JSON objects."""
        return [orjson.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def stream() -> Memory:
    """A stream in memory."""
    return Memory()


@pytest.fixture
def make_log(stream: Memory) -> Iterator[Callable[..., Log]]:
    """Makes logs on `stream` and closes them afterwards."""
    logs: list[Log] = []

    def make(**options: Any) -> Log:
        log = open_log(stream, **{"wall": lambda: 1758271973.9, **options})
        logs.append(log)
        return log

    yield make
    stream.open.set()
    for log in logs:
        log.close()
