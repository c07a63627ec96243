# SPDX-License-Identifier: Apache-2.0
"""Messages of Envoy's access log, built with Envoy's own definitions, as the ends of requests they tell of."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

import pytest

from epp.accesslog import Ended, ends
from epp.accesslog.entry import MOST_BYTES
from epp.contract.errors import ProtocolError
from epp.contract.requests import Cause
from epp.protos.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage

pytestmark = pytest.mark.filterwarnings("ignore:Using .@model_validator:DeprecationWarning")


def entry(**common: Any) -> HTTPAccessLogEntry:
    made = HTTPAccessLogEntry()
    made.common_properties.access_log_type = 6
    for flag in common.pop("flags", ()):
        setattr(made.common_properties.response_flags, flag, True)
    for name, value in common.items():
        setattr(made.common_properties, name, value)
    return made


def told(*entries: HTTPAccessLogEntry) -> list[Ended | None]:
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    return list(ends(message.SerializeToString()))


def test_envoys_own_message_is_read() -> None:
    data = importlib.import_module("envoy_data_plane.envoy.data.accesslog.v3")
    core = importlib.import_module("envoy_data_plane.envoy.config.core.v3")
    service = importlib.import_module("envoy_data_plane.envoy.service.accesslog.v3")
    theirs = data.HttpAccessLogEntry(
        common_properties=data.AccessLogCommon(
            sample_rate=1.0,
            time_to_first_upstream_rx_byte=timedelta(milliseconds=250),
            upstream_remote_address=core.Address(socket_address=core.SocketAddress(address="fd00::1", port_value=8000)),
            response_flags=data.ResponseFlags(),
            upstream_cluster="pool",
            duration=timedelta(seconds=2, milliseconds=500),
            access_log_type=data.AccessLogType.DownstreamEnd,
        ),
        request=data.HttpRequestProperties(request_id="id-1", path="/v1/completions"),
        response=data.HttpResponseProperties(response_code=200, response_body_bytes=4321),
    )
    message = service.StreamAccessLogsMessage(
        identifier=service.StreamAccessLogsMessageIdentifier(log_name="epp"),
        http_logs=service.StreamAccessLogsMessageHttpAccessLogEntries(log_entry=[theirs]),
    )
    assert list(ends(bytes(message))) == [
        Ended("id-1", "[fd00::1]:8000", Cause.COMPLETE, True, False, 200, 2.5, 0.25, 4321)
    ]


@pytest.mark.parametrize(
    ("flags", "cause", "unreachable"),
    [
        ((), Cause.COMPLETE, False),
        (("downstream_connection_termination",), Cause.CLIENT_GONE, False),
        (("downstream_remote_reset",), Cause.CLIENT_GONE, False),
        (("downstream_remote_reset", "upstream_remote_reset"), Cause.CLIENT_GONE, False),
        (("upstream_connection_failure", "upstream_retry_limit_exceeded"), Cause.ERROR, True),
        (("upstream_connection_termination",), Cause.ERROR, False),
        (("upstream_remote_reset",), Cause.ERROR, False),
        (("no_healthy_upstream",), Cause.ERROR, False),
        (("duration_timeout",), Cause.ERROR, False),
    ],
)
def test_flags_say_why_it_ended(flags: tuple[str, ...], cause: Cause, unreachable: bool) -> None:
    [end] = told(entry(flags=flags))
    assert end is not None
    assert (end.cause, end.unreachable, end.reached, end.status) == (cause, unreachable, False, None)


def test_flags_that_say_nothing_of_the_way_are_no_error() -> None:
    """`response_from_cache_filter` (21) and others are not in our subset, and an empty set of flags is no fault."""
    made = entry()
    made.common_properties.response_flags.MergeFromString(bytes([21 << 3 & 0x7F | 0x80, 1, 1]))
    [end] = told(made)
    assert end is not None
    assert end.cause is Cause.COMPLETE


@pytest.mark.parametrize("changes", [{"intermediate_log_entry": True}, *({"access_log_type": n} for n in (1, 4, 5, 7, 8, 9, 14))])  # fmt: skip
def test_what_is_no_end_is_left(changes: dict[str, Any]) -> None:
    assert told(entry(**changes), entry(access_log_type=0))[0] is None
    assert told(entry(**changes), entry(access_log_type=0))[1] is not None


def test_an_id_that_is_no_utf8_is_kept_as_headers_keep_it() -> None:
    made = entry()
    made.request.request_id = b"caf\xe9"
    [end] = told(made)
    assert end is not None
    assert end.request_id == b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x05ab", bytes(MOST_BYTES + 1)])
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="access log: "):
        list(ends(data))


def test_tcp_entries_and_empty_messages_tell_nothing() -> None:
    assert list(ends(b"")) == []
    assert list(ends(b"\x1a\x02\x0a\x00")) == []
