# SPDX-License-Identifier: Apache-2.0
"""From protobuf messages to plain values: headers, metadata, modes. Header names come out in lower case."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from epp.contract.errors import ProtocolError
from epp.extproc.handler import BodyMode
from epp.extproc.headers import WireHeaders

_HEADER_TAGS = (0x12, 0x1A)
"""What a `ProcessingRequest` with request or response headers begins with."""


def read_headers(message: Any, data: bytes) -> Mapping[str, str]:
    """The headers of `message`, an `HttpHeaders`; `data` is the `ProcessingRequest` it was parsed from."""
    if len(data) > 4 and data[0] in _HEADER_TAGS:
        size, start = data[1], 2
        if size >= 0x80:
            size, start = size & 0x7F | data[2] << 7, 3
        if data[start - 1] < 0x80 and start + size <= len(data):
            return WireHeaders(data, start, start + size, partial(_parsed_headers, message))
    return _parsed_headers(message)


def _parsed_headers(message: Any) -> dict[str, str]:
    """Bytes that are no UTF-8 come out as surrogate escapes."""
    try:
        headers = {header.key.lower(): header.raw_value.decode() for header in message.headers.headers}
    except UnicodeDecodeError:
        headers = {h.key.lower(): h.raw_value.decode("utf-8", "surrogateescape") for h in message.headers.headers}
    if "" in headers.values():
        # Envoy fills raw_value; older data planes fill value.
        headers = {h.key.lower(): headers[h.key.lower()] or h.value for h in message.headers.headers}
    return headers


def read_metadata(message: Any) -> dict[str, dict[str, Any]]:
    """The filter metadata that came with a `ProcessingRequest`, by namespace."""
    return {name: plain_struct(struct) for name, struct in message.metadata_context.filter_metadata.items()}


def plain_struct(struct: Any) -> dict[str, Any]:
    """A protobuf Struct as a dict."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)


def body_mode(side: str, number: int) -> BodyMode:
    """The mode of `side`, request or response. Raises `ProtocolError` for a number that is none."""
    try:
        return BodyMode(number)
    except ValueError:
        raise ProtocolError(
            f"ext_proc: {side} body mode {number} is unknown; "
            f"set processing_mode.{side}_body_mode to FULL_DUPLEX_STREAMED or BUFFERED"
        ) from None
