# SPDX-License-Identifier: Apache-2.0
"""Headers read by a search in a message's bytes are those that protobuf reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.headers import WireHeaders
from epp.extproc.reading import read_headers
from epp.protos.ext_proc_pb2 import ProcessingRequest

NAMES = (":path", ":status", "x", "x-request-id", "request-id", "id", "content-type", "n" * 127, "n" * 128, "a\tb")
# What HTTP allows in a value, as Envoy enforces it: no control characters but the tab.
VALUES = st.binary(max_size=300).map(lambda raw: bytes(b for b in raw if b >= 0x20 or b == 9))
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=12)


def message(pairs: list[tuple[str, bytes]], field: str = "request_headers", old: bool = False) -> ProcessingRequest:
    request = ProcessingRequest()
    request.protocol_config.request_body_mode = 4
    headers = getattr(request, field)
    headers.end_of_stream = True
    for name, value in pairs:
        header = headers.headers.headers.add()
        header.key = name
        if old:
            header.value = value.decode("latin-1")
        else:
            header.raw_value = value
    # What stands behind the headers must not be taken for one.
    request.metadata_context.filter_metadata["x-request-id"].update({"x-request-id": "no header"})
    return request


def read(request: ProcessingRequest, field: str = "request_headers") -> object:
    return read_headers(getattr(request, field), request.SerializeToString())


@given(PAIRS, st.sampled_from(["request_headers", "response_headers"]))
def test_each_header_is_what_the_message_says(pairs: list[tuple[str, bytes]], field: str) -> None:
    expected = {name: value.decode("utf-8", "surrogateescape") for name, value in pairs}
    found = read(message(pairs, field), field)
    assert isinstance(found, WireHeaders)
    for name in (*NAMES, "absent", ""):
        assert found.get(name) == expected.get(name)
        assert (name in found) == (name in expected)
    assert found.get("absent", "default") == "default"
    # And the same once all of them were asked for.
    assert dict(found) == expected
    for name in NAMES:
        assert found.get(name) == expected.get(name)


@given(PAIRS)
def test_values_in_the_older_field_are_read_too(pairs: list[tuple[str, bytes]]) -> None:
    expected = {name: value.decode("latin-1") for name, value in pairs}
    found = read(message(pairs, old=True))
    assert [found.get(name) for name in NAMES] == [expected.get(name) for name in NAMES]  # type: ignore[attr-defined]


def test_the_size_of_an_entry_must_fit_what_was_found() -> None:
    # The bytes of a header inside another one's value, as no HTTP peer can send them: the sizes around it do not fit.
    fake = b"\n\x05:path\x1a\x04/bad"
    found = read(message([(":path", b"/good"), ("x", fake)]))
    assert found.get(":path") == "/good"  # type: ignore[attr-defined]


def test_headers_of_several_sizes_of_message() -> None:
    for size in (0, 1, 40, 100, 127, 128, 200, 16_000, 16_384, 20_000):
        found = read(message([(":path", b"/v1"), ("cookie", b"c" * size), ("x-request-id", b"7")]))
        values = [found.get(name) for name in (":path", "cookie", "x-request-id", "x")]  # type: ignore[attr-defined]
        assert values == ["/v1", "c" * size, "7", None]


def test_an_absent_header_is_a_key_error() -> None:
    found = read(message([("x", b"1")]))
    assert found["x"] == "1"  # type: ignore[index]
    with pytest.raises(KeyError):
        found["y"]  # type: ignore[index]
    assert len(found) == 1  # type: ignore[arg-type]
