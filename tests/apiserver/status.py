# SPDX-License-Identifier: Apache-2.0
"""What the server says when it does not do what was asked: `Status` objects and the few plain texts, word for word
in the shapes of the real one."""

from __future__ import annotations

from typing import Any

import orjson

from tests.apiserver.kinds import Kind

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Refused(Exception):
    """An answer that is not the one hoped for: HTTP status, body, content type, further headers."""

    def __init__(self, code: int, body: bytes, content_type: str = JSON, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{code} {body.decode()}")
        self.code = code
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}


def status(code: int, reason: str, message: str, details: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """A `Status` of failure."""
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": meta,
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


def done(details: dict[str, Any]) -> dict[str, Any]:
    """The `Status` of success, as deletions answer it."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def refuse(code: int, reason: str, message: str, details: dict[str, Any] | None = None, **meta: Any) -> Refused:
    """A failure told by a `Status`."""
    return Refused(code, orjson.dumps(status(code, reason, message, details, **meta)) + b"\n")


def _details(kind: Kind, name: str = "") -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    return details


def no_such_path() -> Refused:
    """What is not served at all, a kind whose definition is not installed among it: a text, not a Status."""
    return Refused(404, b"404 page not found\n", TEXT, {"X-Content-Type-Options": "nosniff"})


def unauthorized() -> Refused:
    """The token, or the certificate, is nobody's."""
    return refuse(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, group: str, plural: str, namespace: str, name: str) -> Refused:
    """A role lacks a verb on a resource."""
    base, _, _ = plural.partition("/")
    qualified = f"{base}.{group}" if group else base
    subject = f'{qualified} "{name}"' if name else qualified
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    text = f'{subject} is forbidden: User "{user}" cannot {verb} resource "{plural}" in API group "{group}" {where}'
    return refuse(403, "Forbidden", text, _details(Kind(group, "", base, ""), name))


def forbidden_path(user: str, verb: str, path: str) -> Refused:
    """A role lacks a path that is no resource."""
    return refuse(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', {})


def not_found(kind: Kind, name: str) -> Refused:
    """The kind is served; the object is not there."""
    return refuse(404, "NotFound", f'{kind.qualified} "{name}" not found', _details(kind, name))


def method_not_allowed() -> Refused:
    """The kind has no such verb."""
    return refuse(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def already_exists(kind: Kind, name: str) -> Refused:
    """Somebody made it first."""
    return refuse(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> Refused:
    """Somebody changed it since it was read."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    text = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return refuse(409, "Conflict", text, _details(kind, name))


def bad_request(message: str) -> Refused:
    """The request makes no sense."""
    return refuse(400, "BadRequest", message)


def invalid(kind: Kind, name: str, field: str, why: str, reason: str = "FieldValueInvalid") -> Refused:
    """A field has a value that is not allowed."""
    details: dict[str, Any] = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    details |= {"kind": kind.kind, "causes": [{"reason": reason, "message": why, "field": field}]}
    label = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return refuse(422, "Invalid", f'{label} "{name}" is invalid: {field}: {why}', details)


CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def too_old(asked: int, floor: int) -> dict[str, Any]:
    """The Status for a resource version whose history is gone."""
    return status(410, "Expired", f"too old resource version: {asked} ({floor})")


def too_large(asked: int, current: int) -> Refused:
    """The resource version has not happened yet."""
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    text = f"Timeout: Too large resource version: {asked}, current: {current}"
    return refuse(504, "Timeout", text, details)


def too_many(retry_after_s: float, as_status: bool) -> Refused:
    """The server asks for patience: by its fair queues with a text, by its storage with a Status."""
    headers = {"Retry-After": f"{retry_after_s:g}"}
    if not as_status:
        headers["X-Content-Type-Options"] = "nosniff"
        return Refused(429, b"Too many requests, please try again later.\n", TEXT, headers)
    details = {"retryAfterSeconds": int(retry_after_s)}
    answer = refuse(429, "TooManyRequests", "storage is (re)initializing", details)
    answer.headers = headers
    return answer


def trouble(code: int) -> Refused:
    """The server's own failures."""
    if code == 500:
        return refuse(
            500,
            "InternalError",
            "Internal error occurred: etcdserver: leader changed",
            {"causes": [{"message": "etcdserver: leader changed"}]},
        )
    if code == 503:
        return refuse(503, "ServiceUnavailable", "apiserver is shutting down", {"retryAfterSeconds": 1})
    if code == 504:
        return refuse(
            504, "Timeout", "request did not complete within requested timeout - context deadline exceeded", {}
        )
    return refuse(code, "", f"the server answers {code}")
