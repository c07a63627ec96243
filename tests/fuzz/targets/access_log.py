# SPDX-License-Identifier: Apache-2.0
"""Messages of Envoy's access log, to the service that receives them.

* A stream is answered by one empty message when its client has said everything, and by its end; a message that is none
  ends it with INVALID_ARGUMENT and one line.
* What is told of a request is in range, whatever the entry says; nothing escapes, nothing is logged as an error.
* When all streams are gone, the sink knows.
"""

from __future__ import annotations

import math

from epp.accesslog import AccessLogs, Ended
from epp.accesslog.service import INVALID_ARGUMENT
from epp.protos.access_log_pb2 import StreamAccessLogsMessage
from epp.transport.call import Metadata
from tests.fuzz.harness import Input, Run, Target, no_error_logged, record


class _Sink:
    def __init__(self) -> None:
        self.streams = 0
        self.told = 0

    def ended(self, end: Ended) -> bool:
        self.told += 1
        assert end.status is None or 0 < end.status < 2**32
        assert end.response_bytes >= 0
        for seconds in (end.duration_s, end.first_byte_s):
            assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
        end.address.encode()
        return bool(self.told & 1)

    def log_streams(self, count: int) -> None:
        assert count >= 0
        self.streams = count


class _Outlet:
    def __init__(self) -> None:
        self.ends: list[int] = []
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        assert not self.ends
        self.sent.append(message)

    def finish(self, status: int = 0, message: str = "") -> None:
        assert "\n" not in message
        self.ends.append(status)


def _make() -> Run:
    def run(data: bytes) -> None:
        sink = _Sink()
        logs = AccessLogs(sink)
        with no_error_logged():
            streams = [(outlet := _Outlet(), logs.open(Metadata("/x"), outlet)) for _ in range(2)]
            for kind, message in Input(data).records():
                outlet, call = streams[kind & 1]
                if outlet.ends:
                    continue
                if kind & 2:
                    call.half_closed()
                else:
                    call.message(message)
            for outlet, call in streams:
                if not outlet.ends:
                    call.cancelled("gone")
                assert len(outlet.ends) <= 1
                assert outlet.sent == ([b""] if 0 in outlet.ends else [])
                assert set(outlet.ends) <= {0, INVALID_ARGUMENT}
        assert sink.streams == 0

    return run


def _seeds() -> list[bytes]:
    message = StreamAccessLogsMessage()
    for flag in ("", "upstream_connection_failure", "downstream_connection_termination"):
        entry = message.http_logs.log_entry.add()
        entry.request.request_id = b"id-1"
        entry.response.response_code.value = 200
        entry.response.response_body_bytes = 10
        common = entry.common_properties
        common.duration.seconds, common.duration.nanos = 1, 500_000_000
        common.time_to_first_upstream_rx_byte.nanos = 1
        common.upstream_remote_address.socket_address.address = "fd00::1"
        common.upstream_remote_address.socket_address.port_value = 8000
        if flag:
            setattr(common.response_flags, flag, True)
    data = message.SerializeToString()
    return [record(0, data) + record(1, data) + record(2), record(0) + record(3), record(0, data * 2)]


_WORDS = (
    b"\x12",
    b"\x0a",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x08",
    b"\x10",
    record(2),
    record(3),
)
TARGET = Target("access_log", _make, _seeds, _WORDS)
