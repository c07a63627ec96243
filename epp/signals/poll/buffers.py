# SPDX-License-Identifier: Apache-2.0
"""Buffers that readers borrow while an answer arrives.

Polls are spread in time, so that a few buffers serve hundreds of endpoints, and no page needs fresh memory.
"""

from __future__ import annotations

MIB = 1024 * 1024
_STEP_BYTES = 16384
_LARGEST_KEPT_BYTES = MIB


class BufferPool:
    """Keeps up to `keep` buffers that are not in use, none of them over 1 MiB."""

    def __init__(self, keep: int = 32) -> None:
        self._free: list[bytearray] = []
        self._keep = keep

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes; its content is left over from others."""
        for position in range(len(self._free) - 1, -1, -1):
            if len(self._free[position]) >= size:
                return self._free.pop(position)
        if self._free:
            # Pages have grown: let the pool follow instead of filling up with buffers that are too small.
            self._free.pop(0)
        # In steps of 16 KiB, so that pages that grow by a digit do not each need a new buffer.
        return bytearray(-(-size // _STEP_BYTES) * _STEP_BYTES)

    def give_back(self, buffer: bytearray) -> None:
        """`buffer` may be used by others."""
        if len(self._free) < self._keep and len(buffer) <= _LARGEST_KEPT_BYTES:
            self._free.append(buffer)
