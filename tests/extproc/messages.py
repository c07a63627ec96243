# SPDX-License-Identifier: Apache-2.0
"""Messages of a data plane, a handler that writes down what it is told, and how replies read."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from epp.extproc import BodyMode, End, Exchange, HeaderList, HttpRequest, Outcome, Route
from epp.extproc.replies import Replies
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
ROUTE = Route(
    set_headers=[("x-gateway-destination-endpoint", b"10.0.0.1:8000")],
    remove_headers=["x-prefiller-host-port"],
    metadata={"envoy.lb": {"x-gateway-destination-endpoint": "10.0.0.1:8000"}},
)


class Recorder:
    """A handler that answers with a fixed outcome and writes down what it was told."""

    def __init__(self, outcome: Outcome | Awaitable[Outcome] | Exception = ROUTE) -> None:
        self.outcome = outcome
        self.requests: list[HttpRequest] = []
        self.response: list[object] = []
        self.ends: list[End] = []
        self.tells: Mapping[str, Mapping[str, Any]] = {}
        self.told_at = b"DONE"

    def request(self, request: HttpRequest) -> Outcome | Awaitable[Outcome]:
        self.requests.append(request)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        self.response.append((dict(headers), end))
        return [("x-went-into-resp-headers", b"true")]

    def response_body(self, chunk: bytes, end: bool) -> None:
        self.response.append((chunk, end))

    def response_told(self) -> bool:
        return (self.told_at, False) in self.response

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        self.response.append("end")
        return self.tells

    def closed(self, end: End) -> None:
        self.ends.append(end)


def exchange(handler: Recorder, limit: int = 1 << 20) -> Exchange:
    return Exchange(handler, Replies(), limit)


def headers(
    *pairs: tuple[str, str], end: bool = False, mode: BodyMode | None = DUPLEX, response: BodyMode = DUPLEX
) -> bytes:
    message = ProcessingRequest()
    message.request_headers.end_of_stream = end
    for key, value in pairs:
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    if mode is not None:
        message.protocol_config.request_body_mode = mode
        message.protocol_config.response_body_mode = response
    return message.SerializeToString()


def body(data: bytes, end: bool) -> bytes:
    message = ProcessingRequest()
    message.request_body.body = data
    message.request_body.end_of_stream = end
    return message.SerializeToString()


def trailers() -> bytes:
    message = ProcessingRequest()
    message.request_trailers.trailers.headers.add(key="x", raw_value=b"y")
    return message.SerializeToString()


def response_headers(end: bool = False, status: str = "200") -> bytes:
    message = ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=status.encode())
    message.response_headers.end_of_stream = end
    return message.SerializeToString()


def response_body(data: bytes, end: bool) -> bytes:
    message = ProcessingRequest()
    message.response_body.body = data
    message.response_body.end_of_stream = end
    return message.SerializeToString()


def response_trailers() -> bytes:
    message = ProcessingRequest()
    message.response_trailers.trailers.headers.add(key="grpc-status", raw_value=b"0")
    return message.SerializeToString()


def decoded(replies: list[bytes]) -> list[ProcessingResponse]:
    return [ProcessingResponse.FromString(reply) for reply in replies]


def kinds(replies: list[bytes]) -> list[str | None]:
    return [reply.WhichOneof("response") for reply in decoded(replies)]
