# SPDX-License-Identifier: Apache-2.0
"""Clients that are not Envoy: grpcio's and grpclib's talk ext_proc and health with both transports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.protos.ext_proc_pb2 import ProcessingRequest
from epp.transport.selfsigned import self_signed
from tests.e2e.client import chat
from tests.e2e.dialogue import CLIENTS, PATH, Dialogue, Grpcio, by_grpcio, grpcio_channel, set_headers
from tests.e2e.stack import Epp, serving

BUFFERED, DUPLEX = 2, 4
DESTINATION = "x-gateway-destination-endpoint"
ADDRESSES = ["127.0.0.1:9", "127.0.0.2:9"]
# Needs no metrics page: nothing is at the addresses.
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: active-request-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: active-request-scorer}]}]
"""
REQUEST = {":path": "/v1/chat/completions", ":method": "POST", "content-type": "application/json"}
RESPONSE = {":status": "200", "content-type": "application/json"}
USAGE = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}'
Open = Callable[..., Any]


@pytest.fixture(scope="module", params=["ngh2-tls", "ngh2", "grpcio-tls", "grpcio"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Epp, bytes | None]]:
    transport, _, tls = request.param.partition("-")
    certificate, key = self_signed()
    folder = tmp_path_factory.mktemp("certs")
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    secure = [f"--cert-path={folder}"] if tls else ["--secure-serving=false"]
    flags = ["--endpoints", ",".join(ADDRESSES), "--config-text", CONFIG, "--grpc-max-recv-msg-size=1MiB"]
    with serving(*flags, *secure, f"--transport={transport}") as epp:
        yield epp, certificate if tls else None


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS)
def open_by(request: pytest.FixtureRequest, served: tuple[Epp, bytes | None]) -> Open:
    epp, certificate = served
    return lambda **more: request.param(epp.port, certificate, **more)


@pytest.fixture(autouse=True)
def nothing_is_left(served: tuple[Epp, bytes | None]) -> Iterator[None]:
    since = len(served[0].lines)
    yield
    served[0].settled()
    assert [line for line in served[0].complaints(since) if "ext_proc:" not in line] == []


async def response_phase(talk: Dialogue) -> None:
    """The response's headers and a body that is cut in two."""
    await talk.say(talk.headers(RESPONSE, response=True))
    common = await talk.expect("response_headers")
    assert set_headers(common.header_mutation) == {"x-went-into-resp-headers": "true"}


async def test_full_duplex(open_by: Open, served: tuple[Epp, bytes | None]) -> None:
    before = served[0].metrics()
    body = chat("x" * 150_000)
    async with open_by() as talk:
        await talk.say(talk.headers({**REQUEST, "x-request-id": "duplex"}))
        await talk.say(talk.body(body[:100_000], end=False))
        await talk.say(talk.body(body[100_000:], end=False))
        await talk.say(talk.body(b"", end=True))
        common = await talk.expect("request_headers")
        chosen = set_headers(common.header_mutation)[DESTINATION]
        assert chosen in ADDRESSES
        assert common.clear_route_cache
        lb = talk.last.dynamic_metadata.fields["envoy.lb"].struct_value
        assert lb.fields[DESTINATION].string_value == chosen
        # 150,079 bytes or so: in pieces of at most 62,000.
        pieces = [(await talk.expect("request_body")).body_mutation.streamed_response for _ in range(3)]
        assert b"".join(piece.body for piece in pieces) == body
        assert [len(piece.body) for piece in pieces[:2]] == [62_000, 62_000]
        assert [piece.end_of_stream for piece in pieces] == [False, False, True]
        await response_phase(talk)
        for part, end in ((USAGE[:30], False), (USAGE[30:], False), (b"", True)):
            await talk.say(talk.body(part, end=end, response=True))
            piece = (await talk.expect("response_body")).body_mutation.streamed_response
            assert (piece.body, piece.end_of_stream) == (part, end)
        await talk.finish()
        assert await talk.hear() is None
    page = served[0].settled()
    assert page.sum("inference_model_output_tokens_sum") - before.sum("inference_model_output_tokens_sum") == 4


async def test_full_duplex_with_trailers(open_by: Open) -> None:
    async with open_by() as talk:
        await talk.say(talk.headers(REQUEST))
        await talk.say(talk.body(chat("trailers"), end=False))
        await talk.say(talk.trailers())
        assert set_headers((await talk.expect("request_headers")).header_mutation)[DESTINATION] in ADDRESSES
        piece = (await talk.expect("request_body")).body_mutation.streamed_response
        assert (piece.body, piece.end_of_stream) == (chat("trailers"), False)
        await talk.expect("request_trailers")
        await response_phase(talk)
        await talk.say(talk.trailers(response=True))
        await talk.expect("response_trailers")


async def test_buffered(open_by: Open) -> None:
    async with open_by() as talk:
        await talk.say(talk.headers(REQUEST, mode=BUFFERED))
        common = await talk.expect("request_headers")
        assert talk.is_empty(common.header_mutation)
        await talk.say(talk.body(chat("buffered"), end=True))
        common = await talk.expect("request_body")
        assert set_headers(common.header_mutation)[DESTINATION] in ADDRESSES
        assert talk.is_empty(common.body_mutation)
        await response_phase(talk)
        await talk.say(talk.body(USAGE, end=True, response=True))
        await talk.expect("response_body")


async def test_a_get_is_scheduled_at_its_headers(open_by: Open) -> None:
    async with open_by() as talk:
        await talk.say(talk.headers({":path": "/v1/models", ":method": "GET"}, end=True))
        assert set_headers((await talk.expect("request_headers")).header_mutation)[DESTINATION] in ADDRESSES


async def test_a_refused_request(served: tuple[Epp, bytes | None]) -> None:
    # grpclib takes a stream that the server ends first for a fault, and loses what was said before.
    async with by_grpcio(served[0].port, served[1]) as talk:
        await talk.say(talk.headers(REQUEST))
        await talk.say(talk.body(b"not JSON", end=True))
        await talk.expect("immediate_response")
        answer = talk.last.immediate_response
        assert int(answer.status.code) == 400
        body = answer.body if isinstance(answer.body, bytes) else answer.body.encode()
        assert body.startswith(b"inference error: BadRequest - ")
        assert await talk.hear() is None


async def test_a_deadline(open_by: Open, served: tuple[Epp, bytes | None]) -> None:
    async with open_by(timeout_s=1.0) as talk:
        await talk.say(talk.headers({**REQUEST, "x-request-id": "late"}))
        await talk.say(talk.body(chat("late"), end=True))
        await talk.expect("request_headers")
        await talk.expect("request_body")
        assert served[0].metrics().sum("llm_d_epp_request_running") == 1
        with pytest.raises((grpc.aio.AioRpcError, TimeoutError)) as failure:
            await talk.hear()
        if isinstance(failure.value, grpc.aio.AioRpcError):
            assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_stream(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    async with by_grpcio(epp.port, certificate) as talk:
        await talk.say(talk.headers(REQUEST))
        await talk.say(talk.body(chat("cancel me"), end=True))
        await talk.expect("request_headers")
        assert epp.metrics().sum("llm_d_epp_request_running") == 1
        talk.call.cancel()


async def test_a_peer_that_breaks_the_protocol(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    broken = {
        b"\xff\xff\xff": "the message is no ProcessingRequest; is the peer really Envoy?",
        ProcessingRequest(request_body={"body": b"x"}).SerializeToString(): "a request body before the request headers",
    }
    async with grpcio_channel(epp.port, certificate) as channel:
        for message, text in broken.items():
            since = len(epp.lines)
            call = channel.stream_stream(PATH)(timeout=10)
            await call.write(message)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                assert await call.read() is None
            assert failure.value.code() == grpc.StatusCode.INTERNAL
            assert text in failure.value.details()
            assert epp.say(text, since)["level"] == "warn"


async def test_an_unknown_method(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    async with grpcio_channel(epp.port, certificate) as channel:
        for path in ("/envoy.service.ext_proc.v3.ExternalProcessor/Nothing", "/no.such.Service/Process"):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await channel.unary_unary(path)(b"", timeout=10)
            assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    async with by_grpcio(epp.port, certificate) as talk:
        await talk.say(talk.headers(REQUEST))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await talk.ask(talk.body(b"x" * (1024 * 1024 + 1), end=True))
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_many_streams_at_once(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    all_chosen = asyncio.Barrier(200)
    async with grpcio_channel(epp.port, certificate) as channel:

        async def one(number: int) -> str:
            call = channel.stream_stream(PATH)(timeout=20)
            talk = Grpcio(call)
            await talk.say(talk.headers(REQUEST))
            await talk.say(talk.body(chat(f"stream {number}"), end=True))
            chosen = set_headers((await talk.expect("request_headers")).header_mutation)[DESTINATION]
            await all_chosen.wait()
            call.cancel()
            return chosen

        chosen = await asyncio.gather(*(one(number) for number in range(200)))
    # All 200 were in flight together, and each was charged before the next was chosen.
    assert {chosen.count(address) for address in ADDRESSES} == {100}


NAMES = {
    "": "SERVING",
    "liveness": "SERVING",
    "readiness": "SERVING",
    "envoy.service.ext_proc.v3.ExternalProcessor": "SERVING",
    "inference-extension": "SERVING",
}


async def test_health_on_both_ports(served: tuple[Epp, bytes | None]) -> None:
    epp, certificate = served
    for port, trusted in ((epp.health_port, None), (epp.port, certificate)):
        async with grpcio_channel(port, trusted) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name, status in NAMES.items():
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=10)
                first = await watch.read()
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(first.status) == status
                watch.cancel()
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stub.Check(health_pb2.HealthCheckRequest(service="no-such-thing"), timeout=10)
            assert failure.value.code() == grpc.StatusCode.NOT_FOUND
            assert "no-such-thing" in failure.value.details()
            unknown = await stub.Watch(health_pb2.HealthCheckRequest(service="no-such-thing"), timeout=10).read()
            assert unknown.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            listed = (await stub.List(health_pb2.HealthListRequest(), timeout=10)).statuses
            assert {
                name: health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                for name, answer in listed.items()
            } == NAMES
