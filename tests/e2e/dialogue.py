# SPDX-License-Identifier: Apache-2.0
"""Two clients of ext_proc that share no code with the service: grpcio with protobuf's messages, and grpclib with
betterproto's, which were generated from Envoy's own files.

Messages are built and read through a namespace of message classes, so that a test is written once. Both are async
context managers; `say` sends, `hear` gives the next reply, None at the end of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc

PATH = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


def protobuf_messages() -> SimpleNamespace:
    """The service's own wire subset."""
    from google.protobuf import struct_pb2

    from epp.protos import ext_proc_pb2 as pb

    return SimpleNamespace(
        **{name: getattr(pb, name) for name in dir(pb) if name[0].isupper()},
        mode=int,
        Struct=struct_pb2.Struct,
        Value=struct_pb2.Value,
        ListValue=struct_pb2.ListValue,
        encode=lambda message: message.SerializeToString(),
        which=lambda reply: reply.WhichOneof("response"),
    )


def betterproto_messages() -> SimpleNamespace:
    """Envoy's own messages."""
    with warnings.catch_warnings():
        # The generated code uses what pydantic calls deprecated.
        warnings.simplefilter("ignore")
        import betterproto2
        from envoy_data_plane.envoy.config.core import v3 as core
        from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as filter_
        from envoy_data_plane.envoy.service.ext_proc import v3
        from envoy_data_plane.google import protobuf

    return SimpleNamespace(
        **{name: getattr(v3, name) for name in dir(v3) if name[0].isupper()},
        HeaderMap=core.HeaderMap,
        HeaderValue=core.HeaderValue,
        Metadata=core.Metadata,
        mode=filter_.ProcessingModeBodySendMode,
        Struct=protobuf.Struct,
        Value=protobuf.Value,
        ListValue=protobuf.ListValue,
        encode=bytes,
        which=lambda reply: betterproto2.which_one_of(reply, "response")[0],
    )


class Dialogue:
    """One stream; what the two clients have in common. `modes` are the numbers of the body modes."""

    kinds: SimpleNamespace

    async def say(self, message: Any) -> None:
        raise NotImplementedError

    async def hear(self) -> Any:
        raise NotImplementedError

    async def finish(self) -> None:
        raise NotImplementedError

    def headers(
        self, pairs: dict[str, str], *, end: bool = False, mode: int = 4, hint: Any = None, response: bool = False
    ) -> Any:
        """A message with headers; those of the request carry the modes and, with `hint`, the subset's metadata."""
        k = self.kinds
        fields = [k.HeaderValue(key=name, raw_value=value.encode()) for name, value in pairs.items()]
        headers = k.HttpHeaders(headers=k.HeaderMap(headers=fields), end_of_stream=end)
        if response:
            return k.ProcessingRequest(response_headers=headers)
        config = k.ProtocolConfiguration(request_body_mode=k.mode(mode), response_body_mode=k.mode(mode))
        more = {} if hint is None else {"metadata_context": self._metadata(hint)}
        return k.ProcessingRequest(request_headers=headers, protocol_config=config, **more)

    def body(self, data: bytes, *, end: bool, response: bool = False) -> Any:
        """A message with a piece of a body."""
        k = self.kinds
        body = k.HttpBody(body=data, end_of_stream=end)
        return k.ProcessingRequest(response_body=body) if response else k.ProcessingRequest(request_body=body)

    def trailers(self, *, response: bool = False) -> Any:
        """A message with trailers."""
        k = self.kinds
        trailers = k.HttpTrailers(trailers=k.HeaderMap(headers=[k.HeaderValue(key="x-t", raw_value=b"1")]))
        return (
            k.ProcessingRequest(response_trailers=trailers)
            if response
            else k.ProcessingRequest(request_trailers=trailers)
        )

    def _metadata(self, hint: str | list[str]) -> Any:
        k = self.kinds
        if isinstance(hint, str):
            value = k.Value(string_value=hint)
        else:
            value = k.Value(list_value=k.ListValue(values=[k.Value(string_value=item) for item in hint]))
        struct = k.Struct(fields={"x-gateway-destination-endpoint-subset": value})
        return k.Metadata(filter_metadata={"envoy.lb.subset_hint": struct})

    async def ask(self, message: Any) -> Any:
        """Send, and hear what is said to it."""
        await self.say(message)
        return await self.hear()

    def is_empty(self, message: Any) -> bool:
        """Nothing of `message` is set."""
        return message is None or not self.kinds.encode(message)

    async def expect(self, kind: str) -> Any:
        """The next reply, which must be of `kind`; its `response`, or itself where there is none."""
        reply = await self.hear()
        assert reply is not None, f"the stream ended where {kind} was expected"
        assert self.kinds.which(reply) == kind
        self.last = reply
        return getattr(getattr(reply, kind), "response", reply)


def set_headers(mutation: Any) -> dict[str, str]:
    """The headers a reply sets."""
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


class Grpcio(Dialogue):
    """grpcio's asyncio client."""

    def __init__(self, call: Any) -> None:
        self.kinds = protobuf_messages()
        self.call = call

    async def say(self, message: Any) -> None:
        await self.call.write(self.kinds.encode(message))

    async def hear(self) -> Any:
        data = await self.call.read()
        return None if data is grpc.aio.EOF else self.kinds.ProcessingResponse.FromString(data)

    async def finish(self) -> None:
        await self.call.done_writing()


class Grpclib(Dialogue):
    """grpclib's client, through betterproto's generated stub."""

    def __init__(self, channel: Any, timeout_s: float) -> None:
        self.kinds = betterproto_messages()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        stub = self.kinds.ExternalProcessorAsyncStub(channel)
        self._replies = stub.process(self._messages(), timeout=timeout_s)

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self._said.get()) is not None:
            yield message

    async def say(self, message: Any) -> None:
        self._said.put_nowait(message)

    async def hear(self) -> Any:
        return await anext(self._replies, None)

    async def finish(self) -> None:
        self._said.put_nowait(None)

    async def close(self) -> None:
        await self._replies.aclose()


@contextlib.asynccontextmanager
async def by_grpcio(port: int, certificate: bytes | None, timeout_s: float = 20.0) -> AsyncIterator[Grpcio]:
    """A stream by grpcio; `certificate`: what TLS trusts, None for plaintext."""
    async with grpcio_channel(port, certificate) as channel:
        call = channel.stream_stream(PATH)(timeout=timeout_s)
        yield Grpcio(call)
        call.cancel()


def grpcio_channel(port: int, certificate: bytes | None) -> Any:
    """A channel of grpcio's asyncio client."""
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.max_receive_message_length", -1)]
    if certificate is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(certificate), options=options)


@contextlib.asynccontextmanager
async def by_grpclib(port: int, certificate: bytes | None, timeout_s: float = 20.0) -> AsyncIterator[Grpclib]:
    """A stream by grpclib; `certificate` as above."""
    from grpclib.client import Channel
    from grpclib.config import Configuration

    context = None
    if certificate is not None:
        context = ssl.create_default_context(cadata=certificate.decode())
        context.set_alpn_protocols(["h2"])
    config = Configuration(ssl_target_name_override="localhost")
    channel = Channel("127.0.0.1", port, ssl=context, config=config)
    dialogue = Grpclib(channel, timeout_s)
    try:
        yield dialogue
    finally:
        with contextlib.suppress(Exception):
            await dialogue.close()
        transport = channel._protocol.connection._transport
        channel.close()
        # gRPC's servers do not answer the end of TLS, and asyncio would wait for that.
        transport.abort()
        await asyncio.sleep(0.01)


CLIENTS = {"grpcio": by_grpcio, "grpclib": by_grpclib}
