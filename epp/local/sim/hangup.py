# SPDX-License-Identifier: Apache-2.0
"""Bad ends of a connection: reset it, or never say anything more."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import NoReturn, cast

_LINGER_RESET = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with RST instead of FIN."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    # uvloop's transports are of no class of asyncio's.
    cast(asyncio.WriteTransport, transport).abort()


async def never() -> NoReturn:
    """Wait until cancelled: the server does so when the connection is lost."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves this future")
