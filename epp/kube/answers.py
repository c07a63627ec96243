# SPDX-License-Identifier: Apache-2.0
"""From the API server's refusals to errors of one line: what was asked, what was answered, what would mend it.

The lines are stable: the same matter gives the same line each time, so that whoever tells them can be silent about what
was said already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from epp.kube.errors import ApiError, Conflict, Forbidden, Gone, Missing, TooMany, Unauthorized, Unreachable
from epp.kube.reach import Silence
from epp.kube.resource import Resource

MOST_RETRY_AFTER_S = 300.0
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `verb` is RBAC's: get, list, watch, create, update. `namespace` None: all, or none has any.

    `url` is set where no resource is asked for but a path.
    """

    verb: str
    resource: Resource
    namespace: str | None = None
    name: str = ""
    url: str = ""

    def __str__(self) -> str:
        if self.url:
            return f"{self.verb} {self.url}"
        name = f' "{self.name}"' if self.name else ""
        return f"{self.verb} {self.resource}{name}{self.place}"

    @property
    def place(self) -> str:
        """` in namespace "x"`, or ""."""
        return f' in namespace "{self.namespace}"' if self.namespace is not None else ""


class Details(msgspec.Struct, rename="camel"):
    """`details` of a Status."""

    name: str = ""
    retry_after_seconds: float = 0.0


class Status(msgspec.Struct):
    """The object by which the API server refuses."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details | None = None


def read_status(body: bytes) -> Status:
    """The Status in an answer's body; what is none becomes the message of one."""
    try:
        return msgspec.json.decode(body, type=Status, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status(message=body[:_LONGEST_REASON].decode("utf-8", "replace"))


def refusal(request: Request, code: int, status: Status, headers: Mapping[str, str], who: str) -> ApiError:
    """The error for an answer with HTTP status `code`. `who` says where our credential comes from."""
    # What is no Status often begins with the code: "404 page not found".
    text = one_line(status.message).removeprefix(f"{code} ") or one_line(status.reason) or "no reason given"
    kind, remedy = _kind_and_remedy(request, code, status, who)
    return kind(
        f"{request}: {code} {text}; {remedy}",
        status=code,
        verb=request.verb,
        resource=request.resource,
        retry_after_s=_retry_after_s(headers, status) if code == 429 or code >= 500 else 0.0,
    )


def _kind_and_remedy(request: Request, code: int, status: Status, who: str) -> tuple[type[ApiError], str]:
    resource = request.resource
    if code == 401:
        return Unauthorized, f"the API server does not accept {who}; renew that token or certificate"
    if code == 403 and request.url:
        return Forbidden, f'grant "{request.verb}" on the non-resource URL "{request.url}", as system:discovery does'
    if code == 403:
        role = "a Role" if request.namespace is not None else "a ClusterRole"
        return Forbidden, f'grant verb "{request.verb}" on "{resource}"{request.place} to our service account by {role}'
    if code == 404:
        return Missing, _what_is_missing(request, status)
    if code == 409:
        return Conflict, "somebody else was first; read the object again"
    if code == 410 or status.reason in ("Expired", "Gone"):
        return Gone, "list again"
    if code == 429:
        return TooMany, "the API server is busy; it is asked again later"
    if code >= 500:
        return ApiError, "the API server is in trouble; it is asked again later"
    return ApiError, "the API server does not take this request; check its version and that of the CRDs"


def _what_is_missing(request: Request, status: Status) -> str:
    # The details name an object only where the kind is served.
    named = status.details.name if status.details is not None else ""
    if request.name and named == request.name:
        return "create it, or name one that is there"
    if request.namespace is not None and named == request.namespace:
        return f'create the namespace "{request.namespace}"'
    if "." in request.resource.group and not request.resource.group.endswith(_BUILT_IN):
        return f"install the CRD {request.resource} with version {request.resource.version}"
    return "check that this is the URL of a Kubernetes API server"


_BUILT_IN = ("authentication.k8s.io", "authorization.k8s.io", "coordination.k8s.io")
"""Groups with a dot that need no CRD."""


def no_answer(request: Request, server: str, silence: Silence) -> Unreachable:
    """The error for a request that got no answer, or half of one."""
    return Unreachable(f"{request}: {silence.line(server)}", verb=request.verb, resource=request.resource)


def unreadable(request: Request, what: str) -> ApiError:
    """The error for an answer that makes no sense."""
    return ApiError(
        f"{request}: {one_line(what)}; check what stands between us and the API server, and the versions of the CRDs",
        verb=request.verb,
        resource=request.resource,
    )


def one_line(text: str) -> str:
    """Without line breaks, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"


def _retry_after_s(headers: Mapping[str, str], status: Status) -> float:
    """From the header, whose other form, a date, is nothing the API server sends; or from the Status."""
    text = headers.get("Retry-After", "")
    said_s = status.details.retry_after_seconds if status.details is not None else 0.0
    wait_s = float(text) if text.isascii() and text.isdecimal() else said_s
    return min(max(wait_s, 0.0), MOST_RETRY_AFTER_S)
