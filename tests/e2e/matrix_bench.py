# SPDX-License-Identifier: Apache-2.0
"""One Envoy whose routes are the modes of ext_proc, and in front of what it asks a handler that writes down what it saw.

The path says the modes, `/REQUEST/RESPONSE/VARIANT/PROTOCOL`, by an override on the route. Everything but Envoy lives
in one event loop, which runs while a test asks for something.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop

from epp.extproc import PATH, End, HeaderList, HttpRequest, Outcome, Route, Watch, service
from epp.transport import h2 as transport
from tests.e2e.matrix_parts import Answer, h1, h2_ask, h2_pod, pod
from tests.e2e.stack import Envoy, connection_manager, envoy

MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
VARIANTS: dict[str, dict[str, str]] = {
    "all": {},
    "no-trailers": {"request_trailer_mode": "SKIP", "response_trailer_mode": "SKIP"},
    "no-response-headers": {"response_header_mode": "SKIP"},
    "request-only": {"response_header_mode": "SKIP", "response_trailer_mode": "SKIP"},
}
BUFFER_BYTES = 256 * 1024
"""The listener's limit: what BUFFERED_PARTIAL collects."""
BUFFERED_BYTES = 8 * 1024 * 1024
"""The limit on routes with BUFFERED."""
Run = Callable[..., Any]
TOLD_IN = "io.envoy.ai_gateway"
"""The namespace of what is told at a response's end; the access log has it."""
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


@dataclass
class Seen:
    """What the handler of one request was told."""

    requests: list[HttpRequest] = field(default_factory=list)
    response_headers: list[tuple[dict[str, str], bool]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    told: int = 0
    upper: bool = False
    end: End | None = None


class Picker:
    """A handler that goes where the body says (`"pod": 1`), and where `x-pod` says when it sees no body."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._seen = Seen()
        self._charged = False
        bench.open += 1
        bench.opened += 1

    def request(self, request: HttpRequest) -> Outcome | Awaitable[Outcome]:
        """Choose; after `x-wait` seconds, if it says so."""
        wait = request.headers.get("x-wait")
        return self._choose(request) if wait is None else self._choose_later(request, float(wait))

    async def _choose_later(self, request: HttpRequest, wait_s: float) -> Outcome:
        await asyncio.sleep(wait_s)
        return self._choose(request)

    def _choose(self, request: HttpRequest) -> Outcome:
        headers = request.headers
        self._bench.seen[headers["x-cell"]] = self._seen
        self._seen.requests.append(request)
        found = re.search(rb'"pod": (\d)', request.body or b"")
        number = int(found[1]) if found else int(headers.get("x-pod", 0))
        address = self._bench.addresses[headers[":path"].rpartition("/")[2]][number]
        self._charged = True
        self._bench.in_flight += 1
        watch = Watch[headers.get("x-watch", "BODY")]
        destination = [("x-gateway-destination-endpoint", address.encode())]
        self._seen.upper = "x-upper" in headers
        return Route(destination, ["x-removed"], watch=watch, tells="x-tells" in headers)

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        """Mark the response."""
        self._seen.response_headers.append((dict(headers), end))
        return [("x-seen", b"headers")]

    def response_body(self, chunk: bytes, end: bool) -> bytes | None:
        """Collect the body."""
        self._seen.body += chunk
        assert not self._seen.ended
        self._seen.ended = end
        return chunk.upper() if self._seen.upper else None

    def response_told(self) -> bool:
        """Only the end tells."""
        return False

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        """Tell of it."""
        self._seen.told += 1
        about = {"bytes": len(self._seen.body), "share": 0.5, "model": "model-m", "whole": True}
        return {TOLD_IN: about, "not-received": {"x": 1}}

    def closed(self, end: End) -> None:
        """Write down the end."""
        assert self._seen.end is None
        self._seen.end = end
        self._bench.last = self._seen
        self._bench.open -= 1
        self._bench.in_flight -= self._charged


class Bench:
    """What the handlers wrote down, and how to ask through Envoy."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.last = Seen()
        self.addresses: dict[str, list[str]] = {}
        self.open = self.in_flight = self.opened = 0
        self.port = self.admin_port = 0
        self.ports: dict[str, int] = {}
        self._number = 0
        self.gateway: Envoy | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[int, int]]:
        """Serve pods and picker; the picker's port, and that of another which only routes without response headers ask:
        a picker learns from one stream how to read the end of another."""
        async with pod("0") as a, pod("1") as b, h2_pod("0") as c, h2_pod("1") as d:
            self.addresses = {"h1": [a, b], "h2": [c, d]}
            listeners = [
                await transport.listen({PATH: service(lambda: Picker(self))}, "127.0.0.1", 0) for _ in range(2)
            ]
            yield listeners[0].port, listeners[1].port
            for listener in listeners:
                await listener.close(0.0)

    def cell(self, headers: dict[str, str]) -> str:
        """A name for one request; it is put into `headers`."""
        self.last = Seen()
        self._number += 1
        headers["x-cell"] = f"cell-{self._number}"
        return headers["x-cell"]

    def url(self, *modes: str) -> str:
        """The address that has these modes, over HTTP/1.1; after the modes and the variant, the listener if another."""
        port = self.ports[modes[3]] if len(modes) > 3 else self.port
        return f"http://127.0.0.1:{port}/{'/'.join(modes[:3])}/h1"

    async def ask(self, method: str, modes: tuple[str, ...], body: Any = None, **headers: str) -> tuple[Answer, Seen]:
        """One request over HTTP/1.1, and what the handler saw of it to its end."""
        fields = {f"x-{name}": value for name, value in headers.items()}
        cell = self.cell(fields)
        answer = await h1(self.url(*modes), method, fields, body)
        return answer, await self.ended(cell)

    async def ask_h2(
        self, modes: tuple[str, ...], body: bytes | None, trailers: list[tuple[str, str]], method: str = "POST",
        **headers: str,
    ) -> tuple[Answer, Seen]:  # fmt: skip
        """One request over HTTP/2, and what the handler saw of it to its end."""
        fields = {f"x-{name}": value for name, value in headers.items()}
        cell = self.cell(fields)
        answer = await h2_ask(self.port, f"/{'/'.join(modes)}/h2", fields, body, trailers, method)
        return answer, await self.ended(cell)

    async def ended(self, cell: str) -> Seen:
        """What the handler saw, once it is closed and nothing is left of the request; of one that was never asked,
        how it ended."""
        await self.until(lambda: not (self.open or self.in_flight))
        return self.seen.get(cell, self.last)

    async def logged(self, cell: str) -> str:
        """What Envoy's access log says was told at the end of one response."""
        assert self.gateway is not None
        lines, start = self.gateway.lines, f"told {cell} "
        await self.until(lambda: any(line.startswith(start) for line in list(lines)))
        return next(line.removeprefix(start) for line in list(lines) if line.startswith(start))

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait for what a message will bring about."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def healthy(self) -> None:
        """Envoy holds no stream, and never heard anything that it did not expect."""
        async with asyncio.timeout(20):
            while await self.stat("cluster.(epp|epp-alone).upstream_rq_active"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await self.stat("ext_proc.spurious_msgs_received") == 0

    async def admin(self, path: str) -> Any:
        """What Envoy's admin port says."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.admin_port}{path}") as got:
            return json.loads(await got.text())

    async def stat(self, name: str) -> int:
        """The sum of Envoy's counters or gauges of that name."""
        found = await self.admin(f"/stats?format=json&filter={name}$")
        return sum(int(one["value"]) for one in found["stats"] if "value" in one)

    async def find_ports(self) -> None:
        """Learn the ports of all listeners."""
        for one in (await self.admin("/listeners?format=json"))["listener_statuses"]:
            self.ports[one["name"]] = int(one["local_address"]["socket_address"]["port_value"])


LISTENERS: dict[str, dict[str, Any]] = {
    "observing": {"observability_mode": True},
    "eager": {"send_body_without_waiting_for_header_response": True},
    "overriding": {"allow_mode_override": True},
    "impatient": {"message_timeout": "0.2s"},
}
"""Listeners beside the first one, and what they say of ext_proc."""


def adapt(document: dict[str, Any], alone_port: int) -> None:
    """A route per combination, a cluster for HTTP/2, a filter that can answer before ext_proc, and more listeners."""
    clusters = document["static_resources"]["clusters"]
    over_h2 = copy.deepcopy(next(cluster for cluster in clusters if cluster["name"] == "pool"))
    over_h2["name"] = "pool-h2"
    for options in over_h2["typed_extension_protocol_options"].values():
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    clusters.append(over_h2)
    alone = copy.deepcopy(next(cluster for cluster in clusters if cluster["name"] == "epp"))
    alone["name"] = alone["load_assignment"]["cluster_name"] = "epp-alone"
    [place] = alone["load_assignment"]["endpoints"][0]["lb_endpoints"]
    place["endpoint"]["address"]["socket_address"]["port_value"] = alone_port
    clusters.append(alone)
    manager = connection_manager(document)
    ext_proc(document["static_resources"]["listeners"][0])["metadata_options"] = {
        "receiving_namespaces": {"untyped": ["envoy.lb", TOLD_IN]}
    }
    fields = " ".join(f"%DYNAMIC_METADATA({TOLD_IN}:{key})%" for key in ("bytes", "share", "model", "whole"))
    manager["access_log"] = [{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": f"told %REQ(x-cell)% {fields}\n"}},
        },
    }]  # fmt: skip
    manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    fault = {"@type": f"{_FILTERS}.fault.v3.HTTPFault", "abort": {"header_abort": {}, "percentage": {"numerator": 100}}}
    manager["http_filters"].insert(0, {"name": "envoy.filters.http.fault", "typed_config": fault})
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        _route(request, response, variant, protocol)
        for request in MODES
        for response in MODES
        for variant in VARIANTS
        for protocol in ("h1", "h2")
    ]
    listeners = document["static_resources"]["listeners"]
    for name, more in LISTENERS.items():
        listener = copy.deepcopy(listeners[0])
        listener["name"] = name
        ext_proc(listener).update(more)
        listeners.append(listener)


def ext_proc(listener: dict[str, Any]) -> dict[str, Any]:
    """The filter's configuration on a listener."""
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    found: dict[str, Any] = next(f["typed_config"] for f in filters if f["name"] == "envoy.filters.http.ext_proc")
    return found


def _route(request: str, response: str, variant: str, protocol: str) -> dict[str, Any]:
    mode = {
        "request_header_mode": "SEND", "response_header_mode": "SEND",
        "request_body_mode": request, "response_body_mode": response,
        "request_trailer_mode": "SEND", "response_trailer_mode": "SEND",
        **VARIANTS[variant],
    }  # fmt: skip
    overrides: dict[str, Any] = {"processing_mode": mode}
    if "response_header_mode" in VARIANTS[variant]:
        overrides["grpc_service"] = {"envoy_grpc": {"cluster_name": "epp-alone"}}
    override = {"@type": f"{_FILTERS}.ext_proc.v3.ExtProcPerRoute", "overrides": overrides}
    limit = {"request_body_buffer_limit": BUFFERED_BYTES} if "BUFFERED" in (request, response) else {}
    return {
        "match": {"path": f"/{request}/{response}/{variant}/{protocol}"},
        "route": {"cluster": "pool-h2" if protocol == "h2" else "pool", "timeout": "0s"},
        "typed_per_filter_config": {"envoy.filters.http.ext_proc": override},
        **limit,
    }


@contextlib.contextmanager
def running() -> Iterator[tuple[Bench, Run]]:
    """The bench with its Envoy, and what runs a coroutine in the loop of both."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bench, parts = Bench(), contextlib.AsyncExitStack()
        port, alone_port = runner.run(_enter(parts, bench))
        with envoy(port, adapt=lambda it: adapt(it, alone_port), epp_tls=False, buffer_bytes=BUFFER_BYTES) as gateway:
            bench.port, bench.admin_port, bench.gateway = gateway.port, gateway.admin_port, gateway
            runner.run(bench.find_ports())
            yield bench, runner.run
        runner.run(parts.aclose())


async def _enter(parts: contextlib.AsyncExitStack, bench: Bench) -> tuple[int, int]:
    return await parts.enter_async_context(bench.serving())
