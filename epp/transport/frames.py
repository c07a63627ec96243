# SPDX-License-Identifier: Apache-2.0
"""gRPC's message framing: one flag byte, four bytes of length, the message.

Messages and DATA frames do not line up: a message may span many frames and a frame may hold many messages. What is
incomplete is held here, never more than one message and one read.
"""

from __future__ import annotations

import struct
from collections.abc import Generator

from epp.transport.call import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED

PREFIX_BYTES = 5

_prefix = struct.Struct(">BI")
pack_prefix = _prefix.pack
unpack_prefix = _prefix.unpack_from


class FrameError(Exception):
    """What a peer sent cannot be read as messages; the stream ends with `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Deframer:
    """Cuts one stream's bytes into messages of at most `limit_bytes`. `encoding` is the stream's grpc-encoding."""

    __slots__ = ("_encoding", "_held", "_limit_bytes", "_wanted_bytes", "unread")

    def __init__(self, limit_bytes: int, encoding: str) -> None:
        self._limit_bytes = limit_bytes
        self._encoding = encoding
        self._held = bytearray()
        self._wanted_bytes = PREFIX_BYTES
        self.unread = False
        """Whether something is held that was not looked at, because the reader stopped before it."""

    @property
    def held_bytes(self) -> int:
        """Bytes that are in no message yet."""
        return len(self._held)

    def hold(self, data: bytes) -> None:
        """Put `data` behind what is held, for a later `feed`."""
        self._held += data
        self._wanted_bytes = PREFIX_BYTES
        self.unread = True

    def feed(self, data: bytes) -> Generator[bytes, None, None]:
        """The messages that are complete with `data`. Raises FrameError after those before the bad one.

        Closed early, it keeps the rest for the next time.
        """
        held = self._held
        source: bytes | bytearray = data
        if held:
            held += data
            if len(held) < self._wanted_bytes:
                return
            source = held
            self._held = bytearray()
        self.unread = False
        size = len(source)
        start = 0
        with memoryview(source) as view:
            try:
                while size - start >= PREFIX_BYTES:
                    flag, length = unpack_prefix(view, start)
                    if flag or length > self._limit_bytes:
                        self._refuse(flag, length)
                    end = start + PREFIX_BYTES + length
                    if end > size:
                        break
                    message = bytes(view[start + PREFIX_BYTES : end])
                    start = end
                    yield message
            except GeneratorExit:
                if start < size:
                    self.hold(bytes(view[start:]))
                return
            self._keep(view[start:])

    def _keep(self, rest: memoryview) -> None:
        self._held += rest
        self._wanted_bytes = PREFIX_BYTES
        if len(rest) >= PREFIX_BYTES:
            self._wanted_bytes += unpack_prefix(rest)[1]

    def _refuse(self, flag: int, length: int) -> None:
        if flag > 1:
            raise FrameError(INTERNAL, f"gRPC frame with the unknown flag {flag}")
        if flag and self._encoding in ("", "identity"):
            raise FrameError(INTERNAL, "compressed gRPC message on a stream without grpc-encoding")
        if flag:
            raise FrameError(UNIMPLEMENTED, f"grpc-encoding {self._encoding!r} is not supported, send identity")
        raise FrameError(RESOURCE_EXHAUSTED, f"gRPC message of {length} bytes, at most {self._limit_bytes} are taken")
