# SPDX-License-Identifier: Apache-2.0
"""What the admin server answers: paths to pages, and who may read them.

Probes are for everybody. /metrics and the pages under /debug/ are, with a `Review`, for those who show a token that may
read them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from epp.admin.access import NO_TOKEN, Review, Verdict, bearer_token
from epp.admin.pages import Page
from epp.observe.metrics.page import MetricsRegistry, page

log = logging.getLogger("epp.service")

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
"""A WSGI application."""

_Answer = tuple[str, str, bytes]
"""Status, content type, body."""


def make_app(
    registry: MetricsRegistry,
    ready: Callable[[], str | None],
    pages: Mapping[str, Page],
    review: Review | None,
    notes: Callable[[], Sequence[str]],
) -> App:
    """The application. The parameters are `Admin`'s."""
    known = ", ".join(("/metrics", "/healthz", "/readyz", *pages))

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "")
        answer: _Answer
        headers: list[tuple[str, str]] = []
        if path in ("/healthz", "/livez"):
            answer = _text("200 OK", "ok")
        elif path == "/readyz":
            missing = ready()
            answer = _text(
                "200 OK" if missing is None else "503 Service Unavailable", "\n".join((missing or "ok", *notes()))
            )
        elif path not in pages and path not in ("/metrics", "/metrics/"):
            answer = _text("404 Not Found", f"{path} is not served here; try {known}")
        elif (verdict := _verdict(review, environ.get("HTTP_AUTHORIZATION", ""), path, method)).status != 200:
            answer = _text(f"{verdict.status} {HTTPStatus(verdict.status).phrase}", verdict.line)
            if verdict.status == 401:
                headers.append(("WWW-Authenticate", "Bearer"))
        elif path not in pages:
            answer = _metrics(registry)
        elif method in ("GET", "HEAD"):
            answer = _page(pages[path], path, environ.get("QUERY_STRING", ""))
        else:
            answer = _text("405 Method Not Allowed", f"{path} answers GET and HEAD, not {method}")
            headers.append(("Allow", "GET, HEAD"))
        status, content_type, body = answer
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [] if method == "HEAD" else [body]

    return app


def _verdict(review: Review | None, authorization: str, path: str, method: str) -> Verdict:
    if review is None:
        return Verdict(200)
    token = bearer_token(authorization)
    if token is None:
        return NO_TOKEN
    try:
        return review(token, path, method.lower())
    except Exception as error:
        log.error("it could not be found out who asks for %s: %r", path, error)
        return Verdict(500, "it could not be found out who asks; the log says why")


def _metrics(registry: MetricsRegistry) -> _Answer:
    # The text format for everybody: the Go EPP serves no other, and rules match its bucket labels (le="1").
    try:
        body, content_type = page(registry)
    except Exception as error:
        log.error("the metrics page could not be made: %r", error)
        return _text("500 Internal Server Error", "the metrics page could not be made; the log says why")
    return "200 OK", content_type, body


def _page(make: Page, path: str, query: str) -> _Answer:
    try:
        answer = make(query)
    except Exception as error:
        log.error("the page %s could not be made: %r", path, error)
        return _text("500 Internal Server Error", f"{path} could not be made; the log says why")
    return answer.status, answer.content_type, answer.body


def _text(status: str, line: str) -> _Answer:
    return status, "text/plain; charset=utf-8", f"{line}\n".encode("utf-8", "backslashreplace")
