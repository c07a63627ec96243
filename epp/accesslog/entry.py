# SPDX-License-Identifier: Apache-2.0
"""One message of Envoy's access log as the ends of requests that it tells of. Times are seconds, sizes bytes.

An entry costs about six microseconds; what Envoy logs beyond the fields below is skipped by the parser.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from epp.contract.endpoints import format_address
from epp.contract.errors import ProtocolError
from epp.contract.requests import Cause
from epp.protos.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage

parse = StreamAccessLogsMessage.FromString
MOST_BYTES = 1024 * 1024
"""A longer message is refused: Envoy sends one whenever 16 KiB have come together, unless it is told otherwise."""
_DOWNSTREAM_END = (0, 6)
_CLIENT_FLAGS = ("downstream_connection_termination", "downstream_remote_reset", "downstream_protocol_error")


class Ended(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request as Envoy saw it end.

    * request_id: `x-request-id` as the endpoint got it; address: `ip:port` of the endpoint, "" when there was none
    * cause: COMPLETE, CLIENT_GONE, or ERROR when the way to the endpoint or the response broke
    * reached: something of the response came from the endpoint; unreachable: no connection could be made to it
    * status: None when no response was sent; response_bytes: of its body
    * duration_s: the whole request, None when the entry does not say; first_byte_s: until the response began
    """

    request_id: str
    address: str
    cause: Cause
    reached: bool
    unreachable: bool
    status: int | None
    duration_s: float | None
    first_byte_s: float | None
    response_bytes: int


def ends(data: bytes) -> Iterator[Ended | None]:
    """The entries of one message: what ended, None for an entry that is no end of a request.

    Raises `ProtocolError` for what is too long or no message.
    """
    if len(data) > MOST_BYTES:
        raise ProtocolError(
            f"access log: a message of {len(data)} bytes, at most {MOST_BYTES} are read; lower buffer_size_bytes"
        )
    try:
        message = parse(data)
    except DecodeError:
        raise ProtocolError("access log: the message is no StreamAccessLogsMessage; is the peer Envoy?") from None
    return map(_ended, message.http_logs.log_entry)


def _ended(entry: HTTPAccessLogEntry) -> Ended | None:
    common, response = entry.common_properties, entry.response
    if common.intermediate_log_entry or common.access_log_type not in _DOWNSTREAM_END:
        return None
    cause, unreachable = Cause.COMPLETE, False
    if common.HasField("response_flags"):
        # Only flags that are set are listed; all of those we read say that something broke.
        set_flags = {field.name for field, _ in common.response_flags.ListFields()}
        unreachable = "upstream_connection_failure" in set_flags
        if not set_flags.isdisjoint(_CLIENT_FLAGS):
            cause = Cause.CLIENT_GONE
        elif set_flags:
            cause = Cause.ERROR
    socket = common.upstream_remote_address.socket_address
    reached = common.HasField("time_to_first_upstream_rx_byte")
    return Ended(
        request_id=entry.request.request_id.decode("utf-8", "surrogateescape"),
        address=format_address(socket.address, socket.port_value) if socket.address else "",
        cause=cause,
        reached=reached,
        unreachable=unreachable,
        status=response.response_code.value or None,
        duration_s=_seconds(common.duration) if common.HasField("duration") else None,
        first_byte_s=_seconds(common.time_to_first_upstream_rx_byte) if reached else None,
        response_bytes=response.response_body_bytes,
    )


def _seconds(duration: Duration) -> float:
    return max(0.0, duration.seconds + duration.nanos * 1e-9)
