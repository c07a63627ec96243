# SPDX-License-Identifier: Apache-2.0
"""Pods that say who they are, as the echo server of the Gateway API's conformance tests does. A program of its own:

    echo.py --namespace N NAME=IP:PORT[,PORT...][+h2c] ...

listens, prints `ready`, and answers every request with JSON: pod, namespace, httpPort, method, path, proto, host and
headers. A place with `+h2c` speaks HTTP/2 with prior knowledge too; the others speak HTTP/1.1 alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions


class Place:
    """One address of one pod."""

    def __init__(self, pod: str, namespace: str, port: int) -> None:
        self.pod, self.namespace, self.port = pod, namespace, port

    def answer(self, method: str, path: str, proto: str, host: str, headers: list[tuple[str, str]]) -> bytes:
        """The body of an answer."""
        told: dict[str, list[str]] = {}
        for name, value in headers:
            told.setdefault(name, []).append(value)
        who = {"pod": self.pod, "namespace": self.namespace, "httpPort": str(self.port)}
        return json.dumps(
            {**who, "method": method, "path": path, "proto": proto, "host": host, "headers": told}
        ).encode()


class Http1(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; bodies have a length or chunks. Another protocol ends the connection."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, proto = first.split(" ")
            if proto not in ("HTTP/1.1", "HTTP/1.0"):
                return self._transport.close()
            pairs = [
                (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
            ]
            headers = dict(pairs)
            if headers.get("transfer-encoding") == "chunked":
                # The tests send no chunk that looks like the end of all chunks.
                end = rest.find(b"0\r\n\r\n") + 5
                if end < 5:
                    return None
            else:
                end = int(headers.get("content-length", "0"))
                if len(rest) < end:
                    return None
            self._data = rest[end:]
            body = self._place.answer(method, path, proto, headers.get("host", ""), pairs)
            status = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._transport.write(status + (b"" if method == "HEAD" else body))
        return None


class H2c(asyncio.Protocol):
    """HTTP/2 without TLS, by prior knowledge; a connection that begins with anything else speaks HTTP/1.1."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._begun = False
        self._asked: dict[int, list[tuple[str, str]]] = {}
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._engine = h2.connection.H2Connection(config)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            if not data.startswith(b"PRI"):
                other = Http1(self._place)
                other.connection_made(self._transport)
                self._transport.set_protocol(other)
                return other.data_received(data)
            self._begun = True
            self._engine.initiate_connection()
        try:
            events = self._engine.receive_data(data)
        except h2.exceptions.ProtocolError:
            return self._transport.close()
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self._asked[event.stream_id] = [(str(name), str(value)) for name, value in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                self._engine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self._asked.pop(event.stream_id, None)
            elif isinstance(event, h2.events.StreamEnded):
                self._answer(event.stream_id)
        return self._send()

    def _answer(self, stream: int) -> None:
        pairs = self._asked.pop(stream)
        pseudo = dict(pairs)
        fields = [(name, value) for name, value in pairs if not name.startswith(":")]
        method, path, host = (pseudo.get(name, "") for name in (":method", ":path", ":authority"))
        body = self._place.answer(method, path, "HTTP/2.0", host, fields)
        length = ("content-length", str(len(body)))
        self._engine.send_headers(stream, [(":status", "200"), ("content-type", "application/json"), length])
        self._engine.send_data(stream, body, end_stream=True)

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self._transport.write(self._engine.data_to_send())


async def serve(namespace: str, places: list[str]) -> None:
    """Listen on every place until the end."""
    loop = asyncio.get_running_loop()
    for text in places:
        pod, _, where = text.partition("=")
        where, _, protocol = where.partition("+")
        ip, _, ports = where.partition(":")
        speaks = H2c if protocol == "h2c" else Http1
        for port in map(int, ports.split(",")):
            place = Place(pod, namespace, port)
            await loop.create_server(functools.partial(speaks, place), ip, port)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("place", nargs="+")
    told = parser.parse_args()
    asyncio.run(serve(told.namespace, told.place))
