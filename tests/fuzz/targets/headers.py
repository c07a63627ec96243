# SPDX-License-Identifier: Apache-2.0
"""Headers read out of a message's bytes against the parsed message.

* Asking raises nothing, whatever bytes protobuf takes for a message.
* Where names are in lower case and neither names nor values hold control characters, as HTTP demands, every name that
  is there, and some that are not, have the value that the parsed message has.
* Walking through all headers gives what the parsed message gives.
"""

from __future__ import annotations

import re

from google.protobuf.message import DecodeError

from epp.extproc.reading import _parsed_headers, read_headers
from epp.protos.ext_proc_pb2 import ProcessingRequest
from tests.fuzz.harness import Run, Target
from tests.fuzz.targets.conversation import request_headers, response_headers

_ABSENT = ("", "x", ":path", ":status", "content-encoding", "x-request-id", "a" * 127, "a" * 128, "\udcff", "é")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _make() -> Run:
    def run(data: bytes) -> None:
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError:
            return
        kind = message.WhichOneof("request")
        if kind not in ("request_headers", "response_headers"):
            return
        member = getattr(message, kind)
        expected = _parsed_headers(member)
        names = {*_ABSENT, *expected, *(header.key for header in member.headers.headers)}
        plain = all(_is_http(header) for header in member.headers.headers) and _is_plain(message, data, kind)
        headers = read_headers(member, data)
        for name in names:
            found = headers.get(name)
            assert (name in headers) == (found is not None)
            assert found is None or isinstance(found, str)
            if plain and name and name.isascii():
                assert found == expected.get(name), name
        assert dict(headers) == expected
        assert len(headers) == len(expected)
        for name in names:
            assert headers.get(name, "none") == expected.get(name, "none")

    return run


def _is_http(header: object) -> bool:
    key, value = header.key, header.raw_value.decode("latin-1") + header.value  # type: ignore[attr-defined]
    return key == key.lower() and not _CONTROL.search(key) and not _CONTROL.search(value)


def _is_plain(message: ProcessingRequest, data: bytes, kind: str) -> bool:
    """Whether the headers stand at the front and nowhere else, as protobuf writes them."""
    alone = ProcessingRequest()
    getattr(alone, kind).CopyFrom(getattr(message, kind))
    alone.DiscardUnknownFields()
    return data.startswith(alone.SerializeToString())


def _seeds() -> list[bytes]:
    pairs = [
        (":path", b"/v1/completions"),
        (":method", b"POST"),
        ("x-request-id", b"id-1"),
        ("x", b""),
        ("x", b"y" * 200),
    ]
    pairs += [
        ("é", b"\xff\xfe"),
        ("x-request-id", b"a\tb"),
        ("n" * 126, b"v" * 130),
        ("n" * 127, b"1"),
        ("n" * 128, b"2"),
    ]
    older = ProcessingRequest()
    header = older.request_headers.headers.headers.add()
    header.key, header.value = "x-request-id", "older"
    return [
        request_headers(pairs), request_headers(pairs[:3], end=True, subset=["10.0.0.1"]), response_headers(pairs),
        response_headers([(":status", b"200")]), older.SerializeToString(), request_headers([("x", b"z" * 20_000), *pairs]),
    ]  # fmt: skip


_WORDS = (
    b"\n",
    b"\x12",
    b"\x1a",
    b"\n\x05:path",
    b"\x1a\x01",
    b"\n\x0cx-request-id",
    b"\x80\x01",
    b"\n\x00",
    b"\x12\x00",
    b"x",
)
TARGET = Target("headers", _make, _seeds, _WORDS)
