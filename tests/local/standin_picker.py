# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the endpoint picker, on grpcio: chooses in turn, tells its log. For tests of what is around it.

With `STANDIN_FAULT` in the environment it refuses its configuration, or dies at its third request.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from epp.protos.health_pb2 import HealthCheckResponse
from epp.transport.selfsigned import self_signed

FAULT = os.environ.get("STANDIN_FAULT", "")
HEADER = "x-gateway-destination-endpoint"


def flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def routed(headers: ProcessingRequest, address: str) -> ProcessingResponse:
    request_id = next(h.raw_value for h in headers.request_headers.headers.headers if h.key == "x-request-id").decode()
    name = address.replace(":", "-")
    entry = {
        "level": "info",
        "msg": "Request handled",
        "x-request-id": request_id,
        "endpoint": f"{{NamespacedName:default/{name} Address:{address.split(':')[0]} Labels:map[]}}",
        "decision": {"endpoint": f"default/{name}", "address": address},
        "why": f"{name} (its turn)",
    }
    print(json.dumps(entry), file=sys.stderr, flush=True)
    reply = ProcessingResponse()
    option = reply.request_headers.response.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = HEADER, address.encode()
    reply.request_headers.response.clear_route_cache = True
    return reply


class Picker:
    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints = endpoints
        self._count = 0

    def pick(self) -> str:
        self._count += 1
        if FAULT == "dies" and self._count == 3:
            print("epp: something broke", file=sys.stderr, flush=True)
            os._exit(7)
        return self._endpoints[self._count % len(self._endpoints)]

    async def process(self, messages: AsyncIterator[ProcessingRequest], _: Any) -> AsyncIterator[ProcessingResponse]:
        headers, body = ProcessingRequest(), b""
        async for message in messages:
            kind = message.WhichOneof("request")
            reply = ProcessingResponse()
            if kind == "request_headers":
                headers = message
                if message.request_headers.end_of_stream:
                    yield routed(headers, self.pick())
                continue
            if kind == "request_body":
                body += message.request_body.body
                if not message.request_body.end_of_stream:
                    continue
                yield routed(headers, self.pick())
                streamed = reply.request_body.response.body_mutation.streamed_response
                streamed.body, streamed.end_of_stream = body, True
            elif kind == "response_body":
                streamed = reply.response_body.response.body_mutation.streamed_response
                streamed.body, streamed.end_of_stream = message.response_body.body, message.response_body.end_of_stream
            else:
                getattr(reply, str(kind)).SetInParent()
            yield reply


async def main() -> None:
    if FAULT == "refuses":
        print('{"level":"info","msg":"starting"}', file=sys.stderr)
        sys.exit("epp: --configFile x.yaml line 3: no plugin is called 'prefix-cache-scorrer'")
    picker = Picker(flag("--endpoints").split(","))
    certificate, key = self_signed()
    server, health = grpc.aio.server(), grpc.aio.server()
    process = grpc.stream_stream_rpc_method_handler(
        picker.process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    name = "envoy.service.ext_proc.v3.ExternalProcessor"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Process": process}),))
    server.add_secure_port(f"127.0.0.1:{flag('--grpcPort')}", grpc.ssl_server_credentials([(key, certificate)]))

    async def check(_request: bytes, _context: Any) -> HealthCheckResponse:
        return HealthCheckResponse(status=1)

    check_handler = grpc.unary_unary_rpc_method_handler(check, None, HealthCheckResponse.SerializeToString)
    health.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check_handler}),)
    )
    health.add_insecure_port(f"127.0.0.1:{flag('--grpcHealthPort')}")
    await server.start()
    await health.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
