# SPDX-License-Identifier: Apache-2.0
"""A plain client of the stand-in for its own tests: blocking, of the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from tests.apiserver.server import ApiServer

PATIENCE_S = 20.0
NS = "/namespaces/kserve-test"
PODS = f"/api/v1{NS}/pods"
LEASES = f"/apis/coordination.k8s.io/v1{NS}/leases"
POOLS = f"/apis/inference.networking.k8s.io/v1{NS}/inferencepools"


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is a dict of JSON, or the text as it came."""

    code: int
    headers: http.client.HTTPMessage
    body: Any


class Client:
    """Asks as the service account, or with `token`; "" asks without one. One connection."""

    def __init__(self, server: ApiServer, token: str | None = None, *, context: ssl.SSLContext | None = None) -> None:
        context = context or ssl.create_default_context(cafile=str(server.ca_file))
        self._connection = http.client.HTTPSConnection(server.host, server.port, timeout=PATIENCE_S, context=context)
        self._token = server.token if token is None else token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str], **query: Any
    ) -> http.client.HTTPResponse:
        if self._token:
            headers = {"Authorization": f"Bearer {self._token}", **headers}
        data = None if body is None else json.dumps(body)
        target = path + ("?" + urlencode(query) if query else "")
        self._connection.request(method, target, data, {"Content-Type": "application/json", **headers})
        return self._connection.getresponse()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any
    ) -> Answer:
        """One request and its whole answer."""
        response = self._send(method, path, body, headers or {}, **query)
        text = response.read()
        is_json = (
            response.headers.get_content_type() == "application/json" and "Content-Encoding" not in response.headers
        )
        return Answer(response.status, response.headers, json.loads(text) if is_json else text)

    def get(self, path: str, **query: Any) -> Answer:
        """GET."""
        return self.ask("GET", path, **query)

    def open(self, path: str, **query: Any) -> http.client.HTTPResponse:
        """A watch whose headers have come."""
        return self._send("GET", path, None, {}, watch="1", **query)

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Events, until the server ends the stream. The request is made by the first `next`."""
        response = self.open(path, **query)
        assert response.status == 200, response.read()
        for line in response:
            yield json.loads(line)


def seen(event: dict[str, Any]) -> tuple[str, str]:
    """Type and name of an event."""
    return event["type"], event["object"]["metadata"].get("name", "")
