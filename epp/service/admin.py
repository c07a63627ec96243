# SPDX-License-Identifier: Apache-2.0
"""The admin HTTP server: /metrics, /healthz, /readyz and the pages under /debug/, on a thread of its own.

A scrape of our metrics takes milliseconds of text building; on its own thread it delays a request by at most one
switch interval of the interpreter. It reads counters and finished records only, so nothing is locked.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from epp.contract.errors import StartError
from epp.observe.metrics.page import MetricsRegistry, page
from epp.service.debugpages import Page

log = logging.getLogger("epp.service")

StartResponse = Callable[..., Any]

_POLL_S = 0.1
"""How often the server looks whether it should end."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that resets or says nothing is not an event; the base class would print a traceback."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("a request of %s to the metrics port failed: %r", client_address, error)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A scrape is not an event."""


class Admin:
    """Listens from construction on; `close` ends it."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: MetricsRegistry,
        ready: Callable[[], str | None],
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        """`ready` returns None when there is something to pick, else one line that says what is missing. `pages` are
        served besides, by path, to GET and HEAD.

        Raises `StartError` when the port cannot be used.
        """
        app = _app(registry, ready, pages or {})
        server_class = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, app, server_class, _Handler)
        except OSError as error:
            raise StartError(
                f"--metrics-port {port} on {host} cannot be used: {error.strerror or error}; choose another port"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="epp-admin", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=2)


def _app(registry: MetricsRegistry, ready: Callable[[], str | None], pages: Mapping[str, Page]) -> Any:
    known = ", ".join(("/metrics", "/healthz", "/readyz", *pages))

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        answer: tuple[str, str, bytes]
        headers: list[tuple[str, str]] = []
        if path in ("/metrics", "/metrics/"):
            answer = _metrics(registry)
        elif path in ("/healthz", "/livez"):
            answer = _text("200 OK", "ok")
        elif path == "/readyz":
            missing = ready()
            answer = _text("200 OK" if missing is None else "503 Service Unavailable", missing or "ok")
        elif path in pages:
            method = environ.get("REQUEST_METHOD", "")
            if method in ("GET", "HEAD"):
                answer = _page(pages[path], path, environ.get("QUERY_STRING", ""))
            else:
                answer = _text("405 Method Not Allowed", f"{path} answers GET and HEAD, not {method}")
                headers.append(("Allow", "GET, HEAD"))
        else:
            answer = _text("404 Not Found", f"{path} is not served here; try {known}")
        status, content_type, body = answer
        headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return app


def _metrics(registry: MetricsRegistry) -> tuple[str, str, bytes]:
    # The text format for everybody: the Go EPP serves no other, and rules match its bucket labels (le="1").
    try:
        body, content_type = page(registry)
    except Exception as error:
        log.error("the metrics page could not be made: %r", error)
        return _text("500 Internal Server Error", "the metrics page could not be made; the log says why")
    return "200 OK", content_type, body


def _page(make: Page, path: str, query: str) -> tuple[str, str, bytes]:
    try:
        answer = make(query)
    except Exception as error:
        log.error("the page %s could not be made: %r", path, error)
        return _text("500 Internal Server Error", f"{path} could not be made; the log says why")
    return answer.status, answer.content_type, answer.body


def _text(status: str, line: str) -> tuple[str, str, bytes]:
    return status, "text/plain; charset=utf-8", f"{line}\n".encode("utf-8", "backslashreplace")
