# SPDX-License-Identifier: Apache-2.0
"""The one place that touches libnghttp2 (package `ngh2`): its settings, its names, and what it does not do by itself.

libnghttp2 is a state machine without sockets: bytes in, events out, bytes to send out. It bounds headers and ignored
frames; windows, output queues and visible control frames are ours to bound (`connection`, `guard`).

* Windows are manual: every byte of a `DataReceived` must be acknowledged once, also for a stream that is gone by then,
  or the connection's window shrinks for good.
* Its limit on RST_STREAM is lifted: Envoy ends nearly every ext_proc stream with one. `connection` counts those that
  look like an attack.
* Frames that make no event (PRIORITY, unknown types, frames of streams after GOAWAY) and empty DATA frames count as
  glitches there, `Limits.control_frames` of them at once and per second; over that it ends the connection itself.
"""

from __future__ import annotations

from ngh2 import (
    Configuration,
    ConnectionClosed,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    Role,
    Setting,
    SettingsAcknowledged,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from ngh2 import Connection as Engine
from ngh2 import NGH2Error as EngineError

from epp.transport.call import Limits

__all__ = [
    "FRAME_BYTES",
    "ConnectionClosed",
    "DataReceived",
    "Engine",
    "EngineError",
    "ErrorCode",
    "Event",
    "GoAwayReceived",
    "PingAcknowledged",
    "PingReceived",
    "PriorityUpdateReceived",
    "RequestReceived",
    "SettingsAcknowledged",
    "SettingsReceived",
    "StreamClosed",
    "StreamReset",
    "TrailersReceived",
    "WindowUpdated",
    "goaway_frame",
    "server_engine",
]

FRAME_BYTES = 16_384
"""The largest frame a peer may send (SETTINGS_MAX_FRAME_SIZE, left at the protocol's default)."""

_HEADER_LIST_BYTES = 65_536
_HEADER_COUNT = 512
_UNLIMITED = (1 << 40, 1 << 40)


def server_engine(limits: Limits) -> Engine:
    """A server's state machine with its SETTINGS and connection window queued for sending."""
    engine = Engine(
        Role.SERVER,
        Configuration(
            auto_window_update=False,
            max_outbound_ack=limits.control_frames,
            stream_reset_rate_limit=_UNLIMITED,
            glitch_rate_limit=(limits.control_frames, limits.control_frames),
            max_inbound_header_list_size=_HEADER_LIST_BYTES,
            max_inbound_header_count=_HEADER_COUNT,
        ),
    )
    engine.initiate_connection(
        {
            Setting.MAX_CONCURRENT_STREAMS: limits.streams,
            Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: _HEADER_LIST_BYTES,
        }
    )
    engine.set_local_window_size(limits.connection_window_bytes)
    return engine


def goaway_frame(last_stream_id: int, error: ErrorCode) -> bytes:
    """A GOAWAY made by hand (RFC 9113, 6.8), for an engine that failed and sends nothing any more."""
    return b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last_stream_id.to_bytes(4, "big") + error.to_bytes(4, "big")
