# SPDX-License-Identifier: Apache-2.0
"""A gateway's handler behind an `Exchange`, in the modes of its filter: requests whole, answers as a copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from epp.extproc import BodyMode, Exchange
from epp.extproc.replies import Replies
from epp.gateway.config import GatewayConfig, read_config
from epp.gateway.counts import Counts
from epp.gateway.handler import Gate, Passage
from epp.gateway.models import Served
from epp.gateway.refusallog import RefusalLog
from epp.observe.metrics.meter import CountingMeter
from epp.observe.metrics.page import MetricsRegistry, page
from epp.protos.ext_proc_pb2 import ProcessingResponse
from epp.testing import FakeClock
from tests.extproc import messages

COSTS = [
    {"metadataKey": "llm_input_token", "type": "InputToken"},
    {"metadataKey": "llm_output_token", "type": "OutputToken"},
    {"metadataKey": "llm_total_token", "type": "TotalToken"},
]
DOCUMENT = {
    "listeners": {
        "80": {
            "models": {
                "pooled": {"target": "pool", "name": "test/pool"},
                "plain": {"target": "backend", "name": "test/b", "counts": True, "costs": COSTS},
                "asks": {"target": "backend", "counts": True, "costs": COSTS, "includeUsage": "on"},
                "hides/it": {"target": "backend", "counts": True, "costs": COSTS, "includeUsage": "hidden"},
            }
        },
        "8080": {
            "models": {"pooled": {"target": "backend", "counts": True}},
            "others": {"target": "backend", "counts": True, "costs": COSTS},
        },
    },
    "bodyLimitBytes": 100_000,
}


def config(**changes: Any) -> GatewayConfig:
    return read_config(json.dumps({**DOCUMENT, **changes}), "test.json")


class Bench:
    """A gateway without sockets."""

    def __init__(self, **changes: Any) -> None:
        self.meter, self.counts = CountingMeter(), Counts()
        self.clock = FakeClock()
        self.gate = Gate(Served(config(**changes), self.meter), self.counts, RefusalLog(self.clock))
        self.replies = Replies()

    def stream(self, listener: str | None = "80") -> Stream:
        """A request that begins."""
        handler = Passage(self.gate, listener)
        return Stream(Exchange(handler, self.replies, self.gate.served.body_limit_bytes), handler)

    def page(self) -> str:
        """The metrics page."""
        return page(MetricsRegistry(self.counts, self.meter))[0].decode()

    def ask(self, body: bytes, path: str = "/v1/chat/completions", listener: str | None = "80", **more: str) -> Stream:
        """A whole POST, and the replies to it."""
        stream = self.stream(listener)
        stream.request(body, path, **more)
        return stream


class Stream:
    """One ext_proc stream: what was sent to it, and what it replied."""

    def __init__(self, exchange: Exchange, handler: Passage) -> None:
        self.exchange, self.handler = exchange, handler
        self.replied: list[ProcessingResponse] = []

    def send(self, data: bytes) -> list[ProcessingResponse]:
        """One message."""
        replies = messages.decoded(self.exchange.receive(data))
        self.replied += replies
        return replies

    def head(self, path: str, method: str = "POST", end: bool = False, **headers: str) -> list[ProcessingResponse]:
        """The request's headers. Names have _ for -."""
        pairs = [
            (":method", method),
            (":path", path),
            *[(name.replace("_", "-"), value) for name, value in headers.items()],
        ]
        return self.send(messages.headers(*pairs, end=end, response=BodyMode.STREAMED))

    def request(self, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> list[ProcessingResponse]:
        """A POST."""
        self.head(path, **headers)
        return self.send(messages.body(body, True))

    def answer(self, *pieces: bytes, status: str = "200", kind: str = "application/json", **headers: str) -> bytes:
        """The backend's answer; what the client gets of it."""
        message = messages.ProcessingRequest()
        for key, value in ((":status", status), ("content-type", kind), *headers.items()):
            message.response_headers.headers.headers.add(key=key.replace("_", "-"), raw_value=value.encode())
        self.send(message.SerializeToString())
        sent = b""
        for number, piece in enumerate(pieces):
            [reply] = self.send(messages.response_body(piece, number == len(pieces) - 1))
            mutation = reply.response_body.response.body_mutation
            sent += mutation.body if mutation.WhichOneof("mutation") == "body" else piece
        return sent

    @property
    def set_headers(self) -> dict[str, str]:
        """What the request's headers are set to."""
        [reply] = [one for one in self.replied if one.WhichOneof("response") == "request_headers"]
        common = reply.request_headers.response
        assert common.clear_route_cache
        return {option.header.key: option.header.raw_value.decode() for option in common.header_mutation.set_headers}

    @property
    def removed(self) -> list[str]:
        """Request headers that are removed."""
        [reply] = [one for one in self.replied if one.WhichOneof("response") == "request_headers"]
        return list(reply.request_headers.response.header_mutation.remove_headers)

    @property
    def body(self) -> bytes:
        """The body as it goes on."""
        return b"".join(
            one.request_body.response.body_mutation.streamed_response.body
            for one in self.replied
            if one.WhichOneof("response") == "request_body"
        )

    @property
    def immediate(self) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Our own answer: status, document, headers."""
        [reply] = [one for one in self.replied if one.WhichOneof("response") == "immediate_response"]
        answer = reply.immediate_response
        assert b"\n" not in answer.body
        headers = {option.header.key: option.header.raw_value.decode() for option in answer.headers.set_headers}
        return answer.status.code, json.loads(answer.body), headers

    @property
    def metadata(self) -> dict[str, Any]:
        """Dynamic metadata of all replies, by namespace."""
        found: dict[str, Any] = {}
        for reply in self.replied:
            for name, value in reply.dynamic_metadata.fields.items():
                found[name] = {key: one.number_value for key, one in value.struct_value.fields.items()}
        return found
