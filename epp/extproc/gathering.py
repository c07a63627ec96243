# SPDX-License-Identifier: Apache-2.0
"""Request bodies while they arrive. Each is bounded by the exchange's limit; all streams' together by one more, or ten
thousand clients that each begin a long body would take more memory than there is."""

from __future__ import annotations

ALL_BODIES_BYTES = 1 << 30


class Gathering:
    """What all bodies of one service take while they are gathered: `held_bytes`, and how much that may be."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int = ALL_BODIES_BYTES) -> None:
        self.held_bytes = 0
        self.limit_bytes = limit_bytes

    @property
    def crowded(self) -> bool:
        """Whether they take more than they may."""
        return self.held_bytes > self.limit_bytes


class Body:
    """One body, from its first piece on. Counted until it is dropped."""

    __slots__ = ("_gathering", "data", "size")

    def __init__(self, gathering: Gathering, piece: bytes) -> None:
        self._gathering = gathering
        self.data: bytes | bytearray = piece
        self.size = len(piece)
        gathering.held_bytes += self.size

    def add(self, piece: bytes) -> None:
        """The next piece. The only piece that is not empty, as most are, is not copied."""
        if piece:
            if not self.size:
                self.data = piece
            else:
                # A list of pieces would cost many times its bytes where they are small.
                if not isinstance(self.data, bytearray):
                    self.data = bytearray(self.data)
                self.data += piece
            self.size += len(piece)
            self._gathering.held_bytes += len(piece)

    def whole(self) -> bytes:
        """All pieces; no more will come."""
        self.data = bytes(self.data)
        return self.data

    def drop(self) -> None:
        """It is needed no more. Once only."""
        self._gathering.held_bytes -= self.size
        self.data = b""
