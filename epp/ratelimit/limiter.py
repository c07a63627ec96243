# SPDX-License-Identifier: Apache-2.0
"""The engine as the gRPC method drives it: with counters in memory nothing is awaited, and no call costs a task."""

from __future__ import annotations

from epp.protos.rls_pb2 import RateLimitRequest
from epp.ratelimit.engine import Engine
from epp.ratelimit.service import Answer


class Limiter:
    """`waits`: the engine's ledger has to wait for somebody; without, it must answer in one step of the loop."""

    def __init__(self, engine: Engine, *, waits: bool) -> None:
        self._engine = engine
        self._waits = waits

    def answer(self, request: RateLimitRequest) -> Answer:
        """The engine's answer, its errors too."""
        answering = self._engine.should_rate_limit(request)
        if self._waits:
            return answering
        try:
            answering.send(None)
        except StopIteration as done:
            response: Answer = done.value
            return response
        answering.close()
        raise RuntimeError("counters in memory made a call wait")
