# SPDX-License-Identifier: Apache-2.0
"""The metadata that comes with a response's headers: given to whoever asked for it, and otherwise not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from epp.extproc import HeaderList, Route, Watch
from epp.extproc import exchange as module
from epp.protos.ext_proc_pb2 import ProcessingRequest
from tests.extproc.messages import Recorder, exchange, headers


class Curious(Recorder):
    """Asks for the metadata."""

    def __init__(self, watch: Watch = Watch.BODY) -> None:
        super().__init__(Route(watch=watch, take_metadata=self.take))
        self.order: list[Any] = []

    def take(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        self.order.append({name: dict(values) for name, values in metadata.items()})

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        self.order.append("headers")
        return super().response_headers(headers, end)


def response(**metadata: str) -> bytes:
    message = ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    for key, value in metadata.items():
        message.metadata_context.filter_metadata["envoy.lb"].fields[key].string_value = value
    return message.SerializeToString()


@pytest.mark.parametrize("watch", [Watch.HEADERS, Watch.BODY])
def test_it_comes_just_before_the_headers(watch: Watch) -> None:
    handler = Curious(watch)
    stream = exchange(handler)
    stream.receive(headers((":path", "/"), end=True))
    assert handler.order == []
    [reply] = stream.receive(response(served="10.0.0.1:3000"))
    assert handler.order == [{"envoy.lb": {"served": "10.0.0.1:3000"}}, "headers"]
    assert b"x-went-into-resp-headers" in reply


def test_a_response_without_metadata_has_none_even_if_the_request_had() -> None:
    handler = Curious()
    stream = exchange(handler)
    message = ProcessingRequest.FromString(headers((":path", "/"), end=True))
    message.metadata_context.filter_metadata["envoy.lb"].fields["asked"].string_value = "x"
    stream.receive(message.SerializeToString())
    assert handler.requests[0].metadata == {"envoy.lb": {"asked": "x"}}
    stream.receive(response())
    assert handler.order == [{}, "headers"]


def test_who_watches_nothing_is_told_nothing() -> None:
    handler = Curious(Watch.NOTHING)
    stream = exchange(handler)
    stream.receive(headers((":path", "/"), end=True))
    stream.receive(response(served="10.0.0.1:3000"))
    assert handler.order == []


def test_what_nobody_asked_for_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_message: Any) -> Any:
        raise AssertionError("read though nobody asked")

    stream = exchange(Recorder())
    stream.receive(headers((":path", "/"), end=True))
    monkeypatch.setattr(module, "read_metadata", refuse)
    assert stream.receive(response(served="10.0.0.1:3000"))
