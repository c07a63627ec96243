# SPDX-License-Identifier: Apache-2.0
"""What stands around Envoy in these tests, in the test's own loop: processors, a rate limit service, model servers.

The processors do only what a test can see from outside. The rate limit service writes down every call.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from aiohttp import web
from envoy_data_plane.envoy.service.ratelimit import v3 as rls

from epp.local.gateway.bootstrap import write
from epp.local.gateway.places import Address, Places, PoolPlace
from epp.local.gateway.start import envoy_argv
from epp.local.process import Child, Children
from epp.manifests.topology import HeaderMatch, Listener, Route, Rule, Target, Topology
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

HOST = "127.0.0.1"
MODEL = "x-ai-eg-model"
NAMESPACE = "io.envoy.ai_gateway"
TOKENS = 42


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def rule(name: str, model: str, *targets: Target, **more: Any) -> Rule:
    return Rule(name, ((HeaderMatch(MODEL, model),),), targets, **more)


def one_listener(*routes: Route, **more: Any) -> Topology:
    return Topology(listeners=(Listener("d/gw", "http", 80),), routes=routes, **more)


@dataclass
class Server:
    """A model server: `seen` are method, path and headers of its requests."""

    address: Address
    name: str
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@asynccontextmanager
async def model_server(name: str, context: ssl.SSLContext | None = None, delay_s: float = 0.0) -> AsyncIterator[Server]:
    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        server.seen.append((request.method, request.path_qs, headers))
        await asyncio.sleep(delay_s)
        return web.json_response({"served_by": name, "usage": {"total_tokens": TOKENS}})

    listening = await asyncio.get_running_loop().create_server(
        web.Server(handle, max_field_size=100_000), HOST, 0, ssl=context
    )
    server = Server(Address(HOST, listening.sockets[0].getsockname()[1]), name)
    try:
        yield server
    finally:
        listening.close()


def _set_header(reply: ProcessingResponse, name: str, value: str) -> None:
    common = reply.request_headers.response
    option = common.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = name, value.encode()
    common.clear_route_cache = True


def _refusal(status: int) -> ProcessingResponse:
    reply = ProcessingResponse()
    reply.immediate_response.status.code = status
    reply.immediate_response.body = b"refused by the gateway"
    return reply


class Processor:
    """Answers ext_proc in FULL_DUPLEX_STREAMED. `choose(headers, body)` gives the header to set, or a status to refuse
    with; `watches(body)`: stay until the end of the response, and tell its cost there."""

    def __init__(
        self,
        choose: Callable[[dict[str, str], bytes], tuple[str, str] | int],
        watches: Callable[[bytes], bool],
        *,
        echo_response: bool,
    ) -> None:
        self.choose, self.watches, self.echo_response = choose, watches, echo_response
        self.requests: list[dict[str, str]] = []
        self.metadata_key = "llm_total_token"

    async def process(self, messages: AsyncIterator[ProcessingRequest], _: Any) -> AsyncIterator[ProcessingResponse]:
        headers: dict[str, str] = {}
        body = b""
        async for message in messages:
            kind = message.WhichOneof("request")
            if kind == "request_headers":
                listed = message.request_headers.headers.headers
                headers = {one.key: (one.raw_value.decode() or one.value) for one in listed}
                self.requests.append(headers)
            elif kind == "request_body":
                body += message.request_body.body
            if kind in ("request_headers", "request_body"):
                if not getattr(message, kind).end_of_stream:
                    continue
                for reply in self._route(headers, body, kind == "request_body"):
                    yield reply
                    if reply.HasField("immediate_response"):
                        return
                if not self.watches(body):
                    return
                continue
            yield self._answer(message, str(kind))

    def _route(self, headers: dict[str, str], body: bytes, with_body: bool) -> list[ProcessingResponse]:
        chosen = self.choose(headers, body)
        if isinstance(chosen, int):
            return [_refusal(chosen)]
        first = ProcessingResponse()
        _set_header(first, *chosen)
        if not with_body:
            return [first]
        second = ProcessingResponse()
        streamed = second.request_body.response.body_mutation.streamed_response
        streamed.body, streamed.end_of_stream = body, True
        return [first, second]

    def _answer(self, message: ProcessingRequest, kind: str) -> ProcessingResponse:
        reply = ProcessingResponse()
        getattr(reply, kind).SetInParent()
        if kind == "response_body":
            piece = message.response_body
            if self.echo_response:
                streamed = reply.response_body.response.body_mutation.streamed_response
                streamed.body, streamed.end_of_stream = piece.body, piece.end_of_stream
            if piece.end_of_stream and self.metadata_key:
                reply.dynamic_metadata.update({NAMESPACE: {self.metadata_key: TOKENS}})
        return reply


def _gateway_choice(headers: dict[str, str], body: bytes) -> tuple[str, str] | int:
    if headers[":path"].startswith("/unknown"):
        return 404
    try:
        return MODEL, json.loads(body)["model"]
    except ValueError:
        return 400


@dataclass
class Call:
    """One call of the rate limit service: descriptors are lists of (key, value); `hits` as sent, None if not."""

    domain: str
    descriptors: list[list[tuple[str, str]]]
    hits: list[int | None]


class RateLimits:
    """Writes down what it is asked; over the limit for the domains in `over`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.over = False
        self._called = asyncio.Event()

    async def should_rate_limit(self, request: rls.RateLimitRequest, _: Any) -> rls.RateLimitResponse:
        self.calls.append(
            Call(
                request.domain,
                [[(entry.key, entry.value) for entry in one.entries] for one in request.descriptors],
                [one.hits_addend for one in request.descriptors],
            )
        )
        self._called.set()
        code = rls.RateLimitResponseCode.OVER_LIMIT if self.over else rls.RateLimitResponseCode.OK
        limit = rls.RateLimitResponseRateLimit(requests_per_unit=1000, unit=rls.RateLimitResponseRateLimitUnit.HOUR)
        status = rls.RateLimitResponseDescriptorStatus(code=code, current_limit=limit, limit_remaining=7)
        return rls.RateLimitResponse(overall_code=code, statuses=[status for _ in request.descriptors])

    async def calls_become(self, count: int) -> list[Call]:
        """Wait until there were `count` calls: bookings come after the answer."""
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                self._called.clear()
                await self._called.wait()
        return self.calls


@dataclass
class Chain:
    """A running gateway."""

    url: str
    admin: str
    session: aiohttp.ClientSession
    gateway: Processor
    pickers: dict[str, Processor]
    limits: RateLimits
    directory: Path
    envoy: Child
    servers: dict[str, grpc.aio.Server]

    async def post(
        self, model: str, path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of an answer; `_` in a header's name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url + path, json={"model": model}, headers=named) as response:
            answer = {name.lower(): value for name, value in response.headers.items()}
            return response.status, await response.text(), answer


class Servers:
    """gRPC servers of one chain, by name."""

    def __init__(self) -> None:
        self.started: dict[str, grpc.aio.Server] = {}

    async def serve(self, name: str, service: str, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Address:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        self.started[name] = server
        return Address(HOST, port)

    async def processor(self, name: str, processor: Processor) -> Address:
        handler = grpc.stream_stream_rpc_method_handler(
            processor.process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
        )
        return await self.serve(name, "envoy.service.ext_proc.v3.ExternalProcessor", "Process", handler)

    async def stop(self) -> None:
        for server in self.started.values():
            await server.stop(None)


@asynccontextmanager
async def chain(
    envoy: Path,
    directory: Path,
    topology: Topology,
    *,
    pods: dict[str, Address] | None = None,
    backends: dict[str, Sequence[Address]] | None = None,
    access_log: Path | None = None,
    roots: Path | None = None,
) -> AsyncIterator[Chain]:
    """The gateway of `topology`: `pods` says which pod each pool's picker chooses."""
    async with AsyncExitStack() as stack:
        pool_models = {model for pool in topology.pools for model in pool.models}
        gateway = Processor(
            _gateway_choice, lambda body: json.loads(body)["model"] not in pool_models, echo_response=False
        )
        servers, pickers, pools = Servers(), {}, {}
        stack.push_async_callback(servers.stop)
        for name, pod in (pods or {}).items():
            choice = ("x-gateway-destination-endpoint", str(pod))
            pickers[name] = Processor(lambda *_, choice=choice: choice, lambda _: True, echo_response=True)
            pools[name] = PoolPlace(await servers.processor(name, pickers[name]), (pod,))
        limits = RateLimits()
        unary = grpc.unary_unary_rpc_method_handler(
            limits.should_rate_limit, rls.RateLimitRequest.parse, rls.RateLimitResponse.__bytes__
        )
        ports = sorted({listener.port for listener in topology.listeners})
        free = free_ports(len(ports) + 1)
        places = Places(
            listeners={port: Address(HOST, served) for port, served in zip(ports, free[1:], strict=True)},
            admin=Address(HOST, free[0]),
            gateway=await servers.processor("gateway", gateway),
            ratelimit=await servers.serve(
                "ratelimit", "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit", unary
            ),
            pools=pools,
            backends={name: tuple(found) for name, found in (backends or {}).items()},
            picker_tls=False,
        )
        bootstrap = write(directory, topology, places, access_log=access_log, roots=roots)
        children = Children()
        stack.push_async_callback(children.stop, 2.0)
        child = await children.start("envoy", envoy_argv(envoy, bootstrap))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        admin = f"http://{places.admin}"
        await _ready(session, admin, child)
        url = f"http://{places.listeners[ports[0]]}"
        yield Chain(url, admin, session, gateway, pickers, limits, directory, child, servers.started)


async def _ready(session: aiohttp.ClientSession, admin: str, child: Child) -> None:
    async with asyncio.timeout(20):
        while True:
            assert child.alive, list(child.tail)
            try:
                async with session.get(f"{admin}/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
