# SPDX-License-Identifier: Apache-2.0
"""A director behind real Envoy, in front of a pod that answers in the name of whatever model it is asked for.

The path says the body modes: `/REQUEST/RESPONSE/v1/chat/completions`. Everything but Envoy lives in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from epp.contract.discovery import EndpointSpec
from epp.extproc import PATH, service
from epp.transport import h2 as transport
from tests.director.test_life import Bench
from tests.e2e.matrix_bench import MODES
from tests.e2e.stack import Envoy, connection_manager, envoy

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
Run = Callable[..., Any]


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def events_of(model: str) -> bytes:
    """A stream of events in the name of `model`."""
    events = [
        {"id": f"c-{n}", "model": model, "choices": [{"delta": {"content": f'"model":"{model}" {n}'}}]}
        for n in range(40)
    ]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def with_usage(events: bytes) -> bytes:
    """`events` with the one that tells the tokens before their end."""
    told = b'data: {"id": "c", "choices": [], "usage": {"prompt_tokens": 24, "completion_tokens": 178, "total_tokens": 202}}'
    return events.replace(b"data: [DONE]", told + b"\n\ndata: [DONE]")


def answer_of(model: str) -> bytes:
    """An answer in the name of `model`."""
    return b'{"id": "c",\n "model": %s, "choices": [], "usage": {"prompt_tokens": 1}}' % json.dumps(model).encode()


async def pod(request: web.Request) -> web.StreamResponse:
    """Answer, and say what arrived."""
    body = await request.read()
    plain = zlib.decompress(body, 31) if request.headers.get("content-encoding") == "gzip" else body
    asked = json.loads(plain)
    headers = {"x-sha": hashlib.sha256(body).hexdigest(), "x-length": request.headers.get("content-length", "none")}
    if not asked.get("stream"):
        made = answer_of(asked["model"]) + b" " * asked.get("blanks", 0)
        return web.Response(body=made, content_type="application/json", headers=headers)
    response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream"})
    await response.prepare(request)
    data, rng, at = events_of(asked["model"]), random.Random(5), 0
    if (asked.get("stream_options") or {}).get("include_usage"):
        data = with_usage(data)
    while at < len(data):
        size = rng.randint(1, 300)
        await response.write(data[at : at + size])
        at += size
        await asyncio.sleep(0.0005)
    return response


class Gateway:
    """Asks through Envoy. `bench.director` may be given other models and another plan at any time."""

    def __init__(self) -> None:
        self.bench = Bench(endpoints=0)
        self.port = 0
        self.proxy: Envoy | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve the pod and the picker; the picker's port."""
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", pod)
        # The body must reach the handler as it came.
        runner = web.AppRunner(app, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        self.bench.pool.apply([EndpointSpec("default", "pod", address[0], address[1])])
        listener = await transport.listen({PATH: service(self.bench.director.open)}, "127.0.0.1", 0)
        yield listener.port
        await listener.close(0.0)
        await runner.cleanup()

    async def ask(self, request: str, response: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """POST `body` in these modes."""
        url = f"http://127.0.0.1:{self.port}/{request}/{response}/v1/chat/completions"
        sent = {"content-type": "application/json", **(headers or {})}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.post(url, data=body, headers=sent) as got,
        ):
            return Answer(got.status, {k.lower(): v for k, v in got.headers.items()}, await got.read())

    async def logged(self, cell: str) -> str:
        """The total that Envoy's access log has of the request with this `x-cell`."""
        assert self.proxy is not None
        start = f"told {cell} "
        async with asyncio.timeout(20):
            while not (found := [line for line in list(self.proxy.lines) if line.startswith(start)]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return found[0].removeprefix(start)


def _adapt(document: dict[str, Any]) -> None:
    manager = connection_manager(document)
    [ext_proc] = [f["typed_config"] for f in manager["http_filters"] if f["name"] == "envoy.filters.http.ext_proc"]
    ext_proc["metadata_options"]["receiving_namespaces"]["untyped"].append("io.envoy.ai_gateway")
    manager["access_log"] = [{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": "told %REQ(x-cell)% %DYNAMIC_METADATA(io.envoy.ai_gateway:total)%\n"}},
        },
    }]  # fmt: skip
    # A client may name the model to ask for; this gateway lets it.
    del manager["early_header_mutation_extensions"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {
            "match": {"prefix": f"/{request}/{response}/"},
            "route": {"cluster": "pool", "timeout": "0s"},
            "typed_per_filter_config": {
                "envoy.filters.http.ext_proc": {
                    "@type": f"{_FILTERS}.ext_proc.v3.ExtProcPerRoute",
                    "overrides": {
                        "processing_mode": {
                            "request_header_mode": "SEND", "response_header_mode": "SEND",
                            "request_body_mode": request, "response_body_mode": response,
                            "request_trailer_mode": "SEND", "response_trailer_mode": "SEND",
                        }
                    },
                }
            },
        }
        for request in MODES
        for response in MODES
    ]  # fmt: skip


@contextlib.contextmanager
def gateway() -> Iterator[tuple[Gateway, Run]]:
    """The gateway, and what runs a coroutine in its loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        it, parts = Gateway(), contextlib.AsyncExitStack()

        async def enter() -> int:
            return await parts.enter_async_context(it.serving())

        with envoy(runner.run(enter()), adapt=_adapt, epp_tls=False) as proxy:
            it.port, it.proxy = proxy.port, proxy
            yield it, runner.run
        runner.run(parts.aclose())
