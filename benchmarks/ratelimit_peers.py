# SPDX-License-Identifier: Apache-2.0
"""Both sides of the row `ratelimit`.

    python -m benchmarks.ratelimit_peers serve PORT CONFIG      the same engine on grpc.aio, on uvloop
    python -m benchmarks.ratelimit_peers ask PORT SECONDS       a client with `IN_FLIGHT` calls at a time; prints JSON

The client is grpcio's for both servers, on one connection as a worker of Envoy has; each call is of one of `USERS`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop

from epp.protos.rls_pb2 import RateLimitDescriptor, RateLimitRequest, RateLimitResponse
from epp.ratelimit.engine import Engine
from epp.ratelimit.ledger import open_ledger
from epp.ratelimit.service import PATH
from epp.ratelimit.sources import Sources

IN_FLIGHT = 64
USERS = 100
DOMAIN = "bench/gateway/http"
RULES = f"""\
domain: {DOMAIN}
descriptors:
  - key: route
    descriptors:
      - key: rule-0-match-0
        descriptors:
          - {{key: rule-0-match-1, value: rule-0-match-1, rate_limit: {{unit: hour, requests_per_unit: 1000000}}}}
"""


def question(user: int) -> bytes:
    """What Envoy asks at the end of a request, as the tutorials' policy makes it."""
    entries = (("route", "bench/route/rule/0"), ("rule-0-match-0", f"user-{user}"), ("rule-0-match-1",) * 2)
    descriptor = RateLimitDescriptor(
        entries=[RateLimitDescriptor.Entry(key=key, value=value.encode()) for key, value in entries]
    )
    descriptor.hits_addend.value = 1
    return RateLimitRequest(domain=DOMAIN, descriptors=[descriptor]).SerializeToString()


async def serve(port: int, config: Path) -> None:
    """Until it is killed."""
    engine = Engine(open_ledger(None))
    engine.install(Sources([config]).load().book)

    async def answer(request: RateLimitRequest, _context: Any) -> RateLimitResponse:
        return await engine.should_rate_limit(request)

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=RateLimitRequest.FromString,
        response_serializer=RateLimitResponse.SerializeToString,
    )
    service, method = PATH.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def ask(port: int, seconds: float) -> dict[str, Any]:
    """Calls without a pause; how many, and how long they took."""
    questions = [question(user) for user in range(USERS)]
    taken_ms: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH)
        until_s = time.perf_counter() + seconds

        async def one(number: int) -> None:
            while (began_s := time.perf_counter()) < until_s:
                await call(questions[(number + len(taken_ms)) % USERS])
                taken_ms.append((time.perf_counter() - began_s) * 1000)

        await asyncio.gather(*[one(number) for number in range(IN_FLIGHT)])
    taken_ms.sort()
    return {
        "calls": len(taken_ms),
        "p50_ms": taken_ms[len(taken_ms) // 2],
        "p99_ms": taken_ms[len(taken_ms) * 99 // 100],
    }


def main() -> None:
    """See the module."""
    side, port, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if side == "serve":
        uvloop.run(serve(port, Path(what)))
    else:
        print(json.dumps(uvloop.run(ask(port, float(what)))))


if __name__ == "__main__":
    main()
