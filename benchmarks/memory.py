# SPDX-License-Identifier: Apache-2.0
"""Row `memory`: resident memory of the picker with 100 endpoints, idle, and with a full prefix index.

The index is filled as Envoy would: one ext_proc stream per request, each with blocks nobody sent before, and a hint
that names the endpoint it must go to. Blocks are the seed era's 64 bytes, 31,250 of them per endpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks import proc
from benchmarks.rows import BenchmarkError, Row
from benchmarks.stack import ECHO, OURS_PLAIN, SEED_CONFIG, Stack, open_stack, wait_for_port, wait_for_serving
from epp.extproc import PATH
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

ENDPOINTS = 100
CAPACITY_BLOCKS = 31_250
BLOCK_BYTES = 64
BLOCKS_PER_REQUEST = 2_048
PAGE_BYTES = 80_000
IDLE_S = 3.0
IDLE_BUDGET_MB = 100.0
FULL_BUDGET_MB = 300.0
IN_PARALLEL = 4
DUPLEX = 4
SUBSET_NAMESPACE, SUBSET_KEY = "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset"
_PARAMETERS = f"""
    parameters:
      hashBlockSize: {BLOCK_BYTES}
      maxPrefixBlocksToMatch: {BLOCKS_PER_REQUEST}
      lruCapacityPerServer: {CAPACITY_BLOCKS}"""


async def measure(folder: Path) -> list[Row]:
    """Idle, and full."""
    config = folder / "memory.yaml"
    plugin = "- type: prefix-cache-scorer"
    config.write_text(SEED_CONFIG.read_text().replace(plugin, plugin + _PARAMETERS))
    async with open_stack(folder) as stack:
        pods = await stack.pods(ENDPOINTS, PAGE_BYTES)
        echo_mb = await _echo_mb(stack, pods)
        port, health_port = stack.port(), stack.port()
        child = await stack.children.start("ours", stack.epp_argv(OURS_PLAIN, pods, port, health_port, config=config))
        await wait_for_serving(child, health_port)
        await asyncio.sleep(IDLE_S)
        idle_mb = _megabytes(child.pid)
        requests = await fill(port, pods)
        full_mb = _megabytes(child.pid)
    return [
        Row("memory", f"{ENDPOINTS} endpoints, idle", idle_mb, "MB", echo_mb, ECHO.name, IDLE_BUDGET_MB),
        Row(
            "memory", f"full index, {ENDPOINTS} x {CAPACITY_BLOCKS:,} blocks", full_mb, "MB", echo_mb, ECHO.name,
            FULL_BUDGET_MB, details={"requests": requests, "index_mb": round(full_mb - idle_mb, 1)},
        ),
    ]  # fmt: skip


async def _echo_mb(stack: Stack, pods: Sequence[str]) -> float:
    port = stack.port()
    child = await stack.children.start(ECHO.name, stack.echo_argv(pods, port))
    await wait_for_port(child, port)
    megabytes = _megabytes(child.pid)
    await child.stop(1.0)
    return megabytes


def _megabytes(pid: int) -> float:
    return proc.resident_bytes(pid) / 1e6


async def fill(port: int, pods: Sequence[str]) -> int:
    """Give every endpoint as many blocks as it can hold; returns the number of requests."""
    per_pod = -(-CAPACITY_BLOCKS // BLOCKS_PER_REQUEST)
    waiting = [pod for _ in range(per_pod) for pod in pods]
    requests = len(waiting)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        process = channel.stream_stream(
            PATH,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )

        async def worker() -> None:
            while waiting:
                await _request(process, waiting.pop())

        await asyncio.gather(*(worker() for _ in range(IN_PARALLEL)))
    return requests


async def _request(process: Any, pod: str) -> None:
    """One request that must be routed to `pod`, and its answer."""
    stream = process(messages(pod, random_prompt()))
    chosen = ""
    async for reply in stream:
        if reply.WhichOneof("response") == "request_headers":
            chosen = reply.request_headers.response.header_mutation.set_headers[0].header.raw_value.decode()
        elif reply.WhichOneof("response") == "immediate_response":
            raise BenchmarkError(f"memory: a request was refused: {reply.immediate_response.body.decode()}")
    if chosen != pod:
        raise BenchmarkError(f"memory: a request went to {chosen or 'nobody'}, not to {pod}")


def random_prompt() -> str:
    """Text that no other request has, of `BLOCKS_PER_REQUEST` blocks."""
    return os.urandom(BLOCKS_PER_REQUEST * BLOCK_BYTES // 2).hex()


async def messages(pod: str, prompt: str) -> AsyncIterator[ProcessingRequest]:
    """What Envoy sends for a completion that `pod` answers with headers alone."""
    first = ProcessingRequest()
    first.protocol_config.request_body_mode = first.protocol_config.response_body_mode = DUPLEX
    for key, value in ((":method", "POST"), (":path", "/v1/completions"), ("content-type", "application/json")):
        first.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    hint = first.metadata_context.filter_metadata[SUBSET_NAMESPACE].fields[SUBSET_KEY]
    hint.list_value.values.add().string_value = pod
    yield first
    body = ProcessingRequest()
    body.request_body.body = f'{{"model":"bench","prompt":"{prompt}"}}'.encode()
    body.request_body.end_of_stream = True
    yield body
    answer = ProcessingRequest()
    answer.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    answer.response_headers.end_of_stream = True
    yield answer
