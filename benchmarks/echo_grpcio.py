# SPDX-License-Identifier: Apache-2.0
"""The reference endpoint picker: the least an ext_proc server on grpc.aio and uvloop can do.

    python -m benchmarks.echo_grpcio PORT ENDPOINT

Reads the model out of the JSON body, names ENDPOINT, and echoes bodies (FULL_DUPLEX_STREAMED both ways, plaintext).
No scheduling, no metrics, no log.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import uvloop

from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

DESTINATION = "x-gateway-destination-endpoint"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


def choice(endpoint: str) -> ProcessingResponse:
    """The answer to the request's headers that names `endpoint`."""
    reply = ProcessingResponse()
    common = reply.request_headers.response
    common.clear_route_cache = True
    header = common.header_mutation.set_headers.add().header
    header.key, header.raw_value = DESTINATION, endpoint.encode()
    reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields[DESTINATION].string_value = endpoint
    return reply


def piece(kind: str, body: bytes, ends: bool) -> ProcessingResponse:
    """`body` handed back; `kind` is request_body or response_body."""
    reply = ProcessingResponse()
    streamed = getattr(reply, kind).response.body_mutation.streamed_response
    streamed.body, streamed.end_of_stream = body, ends
    return reply


def empty(kind: str) -> ProcessingResponse:
    """An answer of this kind that changes nothing."""
    reply = ProcessingResponse()
    member = getattr(reply, kind)
    (member if kind.endswith("trailers") else member.response).SetInParent()
    return reply


class Echo:
    """The service's one method."""

    def __init__(self, endpoint: str) -> None:
        self._choice = choice(endpoint)
        self._response_headers = empty("response_headers")
        self.models: dict[str, int] = {}

    async def process(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[ProcessingResponse]:
        """One HTTP request."""
        body = b""
        async for message in requests:
            kind = message.WhichOneof("request")
            if kind == "request_headers":
                if message.request_headers.end_of_stream:
                    yield self._choice
            elif kind == "request_body":
                body += message.request_body.body
                if message.request_body.end_of_stream:
                    model = orjson.loads(body)["model"]
                    self.models[model] = self.models.get(model, 0) + 1
                    yield self._choice
                    yield piece(kind, body, True)
            elif kind == "response_headers":
                yield self._response_headers
            elif kind == "response_body":
                yield piece(kind, message.response_body.body, message.response_body.end_of_stream)
            elif kind is not None:
                yield empty(kind)


async def serve(port: int, endpoint: str) -> None:
    """Until cancelled."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 10_000)])
    method = grpc.stream_stream_rpc_method_handler(
        Echo(endpoint).process,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve until a signal."""
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
