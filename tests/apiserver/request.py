# SPDX-License-Identifier: Apache-2.0
"""What a request asks for: its verb, resource and names, read from method, path and query as the server does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_METHODS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class Request:
    """One request. `plural` "" means that `path` is no resource's. `code` is the answer's, 0 while there is none."""

    method: str
    path: str
    query: dict[str, str]
    verb: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    agent: str = ""
    code: int = 0
    body: bytes = field(default=b"", repr=False)

    @property
    def resource(self) -> str:
        """As roles name it: `pods`, `pods/status`."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


def true(text: str | None) -> bool:
    """A boolean of a query."""
    return text is not None and text.lower() in ("", "1", "true", "t")


def read_request(method: str, path: str, query: Mapping[str, str]) -> Request:
    """What is asked. Paths: /api/v1/..., /apis/<group>/<version>/..., with or without a namespace."""
    request = Request(method, path, dict(query), verb=_METHODS.get(method, method.lower()))
    words = path.strip("/").split("/")
    if words[0] == "api" and len(words) >= 3:
        request.version, rest = words[1], words[2:]
    elif words[0] == "apis" and len(words) >= 4:
        request.group, request.version, rest = words[1], words[2], words[3:]
    else:
        return request
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        request.namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 2:
        request.namespace = rest[1]
    request.plural, request.name, request.subresource, *_ = (*rest, "", "")
    if not request.name:
        _collection(request)
    return request


def _collection(request: Request) -> None:
    """A request for many: list, watch, or the deletion of all. A field selector can name one of them."""
    if request.verb == "get":
        request.verb = "watch" if true(request.query.get("watch")) else "list"
    elif request.verb == "delete":
        request.verb = "deletecollection"
    if request.verb in ("list", "watch", "deletecollection"):
        for term in request.query.get("fieldSelector", "").split(","):
            field_name, sign, value = term.partition("=")
            if field_name == "metadata.name" and sign:
                request.name = value.lstrip("=")
