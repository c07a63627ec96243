# SPDX-License-Identifier: Apache-2.0
"""Which received bytes are acknowledged, and when: what lets the peer send more.

A byte is acknowledged when it was handled, unless its stream has more than `limit_bytes` of output queued, or all
streams together more than `total_bytes`: a peer that does not take answers may not ask on. It is acknowledged when the
output has drained, or when the stream is gone. Every byte is acknowledged once, or the connection's window would
shrink for good.
"""

from __future__ import annotations

from epp.transport.engine import Engine


class Credit:
    """The input of one connection. `withheld`: bytes not acknowledged, by stream; mostly there are none."""

    __slots__ = ("_acknowledge", "_limit_bytes", "_queued", "_total_bytes", "withheld")

    def __init__(self, engine: Engine, limit_bytes: int, total_bytes: int) -> None:
        self._acknowledge = engine.acknowledge_received_data
        self._queued = engine.queued_body_size
        self._limit_bytes = limit_bytes
        self._total_bytes = total_bytes
        self.withheld: dict[int, int] = {}

    def handled(self, size: int, stream_id: int) -> None:
        """`size` bytes of the stream were handled."""
        if self._queued(stream_id) > self._limit_bytes or self._queued() > self._total_bytes:
            self.withheld[stream_id] = self.withheld.get(stream_id, 0) + size
        else:
            self._acknowledge(size, stream_id)

    def drained(self) -> bool:
        """Output was sent: acknowledge what was withheld for it. True when there is now something to send."""
        if self._queued() > self._total_bytes:
            return False
        drained = [stream_id for stream_id in self.withheld if self._queued(stream_id) <= self._limit_bytes]
        for stream_id in drained:
            self._acknowledge(self.withheld.pop(stream_id), stream_id)
        return bool(drained)

    def closed(self, stream_id: int) -> None:
        """The stream is gone, and with it its output."""
        size = self.withheld.pop(stream_id, 0)
        if size:
            self._acknowledge(size, stream_id)
