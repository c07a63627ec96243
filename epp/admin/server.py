# SPDX-License-Identifier: Apache-2.0
"""The admin server's threads: one that accepts, one for each connection, at most `MOST_CONNECTIONS` of those.

A scrape of our metrics takes milliseconds of text building; on its own thread it delays a request by at most one
switch interval of the interpreter. It reads counters and finished records only, so nothing is locked. The accepting
thread waits for no client: TLS handshakes are made by the connection's own thread. Between accepting, it reads the
certificates again.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from epp.admin.access import Review
from epp.admin.app import App, StartResponse, make_app
from epp.admin.connections import Connections
from epp.admin.pages import Page
from epp.contract.errors import StartError
from epp.observe.metrics.page import MetricsRegistry
from epp.transport.tls import TlsSource

log = logging.getLogger("epp.service")

MOST_CONNECTIONS = 64
HANDSHAKE_S = 10.0
"""For a TLS handshake, from its first byte to its last."""

_CLIENT_S = 30.0
"""How long a client may say nothing, or take nothing."""
_POLL_S = 0.1
"""How often the server looks whether it should end."""
_RELOAD_S = 1.0
"""How often certificates are read again."""
_CONNECTION = "epp.connection"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], app: App, tls: TlsSource | None) -> None:
        self._tls = tls
        self._reload_at_s = 0.0
        self.connections = Connections(MOST_CONNECTIONS)
        super().__init__(address, _Handler)
        self.set_app(self._marked(app))

    def server_bind(self) -> None:
        # Not the base class's way, which asks DNS for our name.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            try:
                # Wrapping one whose client has left already would fail, and not close it.
                connection.getpeername()
            except OSError:
                connection.close()
                raise
            # Sends and receives nothing yet.
            connection = self._tls.newest.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.connections.admit(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread."""
        if isinstance(request, ssl.SSLSocket):
            request.settimeout(HANDSHAKE_S)
            request.do_handshake()
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Called once for every connection, on every way out."""
        if isinstance(request, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                # Say that this is the end, without waiting for the client to say so too.
                request.settimeout(0)
                request.unwrap()
        self.connections.left(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by the accepting thread, at least every `_POLL_S`."""
        now_s = time.monotonic()
        if self._tls is not None and now_s >= self._reload_at_s:
            self._reload_at_s = now_s + _RELOAD_S
            self._tls.reload_if_changed()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that resets or says nothing is not an event; the base class would print a traceback."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("a request of %s to the metrics port failed: %r", client_address, error)

    def _marked(self, app: App) -> App:
        def marked(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            with self.connections.answering(environ[_CONNECTION]):
                return app(environ, start_response)

        return marked


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_S

    def get_environ(self) -> dict[str, Any]:
        return super().get_environ() | {_CONNECTION: self.request}

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
        *,
        review: Review | None = None,
        tls: TlsSource | None = None,
        notes: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`ready` returns None when there is something to pick, else one line that says what is missing. `pages` are
        served besides, by path, to GET and HEAD.

        * notes: lines for /readyz, whether ready or not
        * review: who may read the metrics and `pages`; None lets everybody. Called from the connections' threads
        * tls: None speaks plain HTTP. Its files are read again every second

        Raises `StartError` when the port cannot be used.
        """
        app = make_app(registry, ready, pages or {}, review, notes)
        server_class = _Server6 if ":" in host else _Server
        try:
            self._server = server_class((host, port), app, tls)
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
