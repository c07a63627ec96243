# SPDX-License-Identifier: Apache-2.0
"""One line for each refused request, at a limited rate: clients decide how many are refused. Never a body, never a
header but the request's id; what stands in a path after `?` is left out."""

from __future__ import annotations

import logging

from epp.contract.endpoints import Clock
from epp.gateway.refusal import Refused
from epp.observe.log.limited import limited

log = logging.getLogger("epp.gateway")

LINES_PER_S = 10


class RefusalLog:
    """`clock` gives monotonic seconds. Lines that were left out are said with the next one."""

    __slots__ = ("_clock", "_lines", "_missing", "_since_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s = clock()
        self._lines = self._missing = 0

    def refused(self, refused: Refused, path: str, request_id: str) -> None:
        """A request was refused."""
        now_s = self._clock()
        if now_s - self._since_s >= 1.0:
            self._since_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            self._missing += 1
            return
        fields: dict[str, object] = {
            "status": refused.status, "reason": refused.code, "path": limited(path), "x-request-id": limited(request_id)
        }  # fmt: skip
        if self._missing:
            fields["lines_left_out"], self._missing = self._missing, 0
        log.info("Request refused: %s", limited(str(refused)), extra={"fields": fields})
