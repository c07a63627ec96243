# SPDX-License-Identifier: Apache-2.0
"""Header blocks of gRPC over HTTP/2: what a request must say, and what an answer says.

Follows the gRPC document PROTOCOL-HTTP2: a request that is no gRPC at all is answered in HTTP (405, 415), everything
else is HTTP 200 with the outcome in `grpc-status` and a percent-encoded `grpc-message`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from epp.transport.call import INTERNAL, INVALID_ARGUMENT, OK, UNIMPLEMENTED

HeaderBlock = list[tuple[bytes, bytes]]

RESPONSE: HeaderBlock = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_OK_TRAILERS: HeaderBlock = [(b"grpc-status", b"0")]
_ACCEPT_ENCODING = (b"grpc-accept-encoding", b"identity")

_MESSAGE_CHARACTERS = 1_024
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""Printable ASCII that `quote` would encode though gRPC does not: everything but the percent sign."""

_TIMEOUT_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_MAX_S = 365 * 86_400.0


class HeaderValues(Mapping[str, str]):
    """A request's headers without pseudo headers, decoded when asked for: most calls never look."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, key: str) -> str:
        if key.startswith(":"):
            raise KeyError(key)
        try:
            return self._raw[key.encode("latin-1")].decode("latin-1")
        except UnicodeEncodeError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (key.decode("latin-1") for key in self._raw if not key.startswith(b":"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def trailers(status: int, message: str) -> HeaderBlock:
    """The trailers that end a stream."""
    if status == OK and not message:
        return _OK_TRAILERS
    block = [(b"grpc-status", b"%d" % status)]
    if status == UNIMPLEMENTED:
        block.append(_ACCEPT_ENCODING)
    if message:
        block.append((b"grpc-message", quote(message[:_MESSAGE_CHARACTERS].strip(), safe=_PLAIN).encode()))
    return block


def trailers_only(status: int, message: str) -> HeaderBlock:
    """The single header block of a stream that ends before any message."""
    return RESPONSE + trailers(status, message)


def refusal(headers: Mapping[bytes, bytes]) -> HeaderBlock | None:
    """The answer to a request that is not a well-formed gRPC call; None when it is one."""
    method = headers.get(b":method", b"")
    if method != b"POST":
        return _http(b"405", INTERNAL, f"gRPC calls are POST requests, not {_shown(method)}")
    content_type = headers.get(b"content-type", b"")
    if content_type != b"application/grpc" and not content_type.startswith(
        (b"application/grpc+", b"application/grpc;")
    ):
        return _http(b"415", INVALID_ARGUMENT, f"content-type must be application/grpc, not {_shown(content_type)}")
    timeout = headers.get(b"grpc-timeout")
    if timeout is not None and timeout_s(timeout) is None:
        return trailers_only(INTERNAL, f"malformed grpc-timeout {_shown(timeout)}")
    return None


def timeout_s(value: bytes) -> float | None:
    """Seconds of a `grpc-timeout` value (at most 8 digits and a unit), capped at a year; None when malformed."""
    digits, unit_s = value[:-1], _TIMEOUT_UNITS_S.get(value[-1:])
    if unit_s is None or not digits.isdigit() or len(digits) > 8:
        return None
    return min(int(digits) * unit_s, _TIMEOUT_MAX_S)


def _http(status: bytes, grpc_status: int, message: str) -> HeaderBlock:
    return [(b":status", status), RESPONSE[1], *trailers(grpc_status, message)]


def _shown(value: bytes) -> str:
    return repr(value[:200].decode("latin-1"))
