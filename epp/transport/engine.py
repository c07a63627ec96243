# SPDX-License-Identifier: Apache-2.0
"""The one place that touches libnghttp2 (package `ngh2`): its settings, its names, and what it does not do by itself.

libnghttp2 is a state machine without sockets: bytes in, events out, bytes to send out. It bounds headers and ignored
frames; windows, output queues and visible control frames are ours to bound (`connection`, `guard`).

* Windows are manual: every byte of a `DataReceived` must be acknowledged once, also for a stream that is gone by then,
  or the connection's window shrinks for good.
* Its limit on RST_STREAM is lifted: Envoy ends nearly every ext_proc stream with one. `connection` counts those that
  look like an attack.
* The stream over SETTINGS_MAX_CONCURRENT_STREAMS costs the connection there. The engine is given some more than the
  peer is told, so that `connection` can refuse that stream alone.
* Frames that make no event (PRIORITY, unknown types, frames of streams after GOAWAY) and empty DATA frames count as
  glitches there, `Limits.control_frames` of them at once and per second; over that it ends the connection itself.
"""

from __future__ import annotations

import contextlib

from ngh2 import (
    Configuration,
    ConnectionClosed,
    ConnectionStateError,
    DataReceived,
    DenialOfServiceError,
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
    pack_settings_payload,
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
    "last_words",
    "server_engine",
]

FRAME_BYTES = 16_384
"""The largest frame a peer may send (SETTINGS_MAX_FRAME_SIZE, left at the protocol's default)."""

_HEADER_COUNT = 256
_MORE_STREAMS = 1_000
_FRAME_HEADER_BYTES = 9
_UNLIMITED = (1 << 40, 1 << 40)


def server_engine(limits: Limits) -> tuple[Engine, bytes]:
    """A server's state machine, and what it says first: SETTINGS and the connection's window."""
    engine = Engine(
        Role.SERVER,
        Configuration(
            auto_window_update=False,
            max_outbound_ack=limits.control_frames,
            stream_reset_rate_limit=_UNLIMITED,
            glitch_rate_limit=(limits.control_frames, limits.control_frames),
            max_inbound_header_list_size=limits.header_list_bytes,
            max_inbound_header_count=_HEADER_COUNT,
        ),
    )
    settings = {
        Setting.MAX_CONCURRENT_STREAMS: limits.streams,
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        Setting.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
    }
    engine.initiate_connection(settings | {Setting.MAX_CONCURRENT_STREAMS: limits.streams + _MORE_STREAMS})
    engine.set_local_window_size(limits.connection_window_bytes)
    said = engine.data_to_send()
    told = pack_settings_payload(settings)
    after = _FRAME_HEADER_BYTES + len(told)
    return engine, said[:_FRAME_HEADER_BYTES] + told + said[after:]


def last_words(engine: Engine, error: EngineError, last_stream_id: int) -> bytes:
    """What to send when the engine raised `error`: its own GOAWAY, or else one made by hand.

    The layout is that of RFC 9113, 6.8.
    """
    if isinstance(error, ConnectionStateError):
        with contextlib.suppress(EngineError):
            return engine.data_to_send()  # It has ended the connection, and says so here if it did not before.
    code = ErrorCode.ENHANCE_YOUR_CALM if isinstance(error, DenialOfServiceError) else ErrorCode.PROTOCOL_ERROR
    return b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
