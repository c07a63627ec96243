# SPDX-License-Identifier: Apache-2.0
"""HTTP to the API server: one session, a credential with every request, bodies of bounded size, errors of one line.

aiohttp is loaded by the first request. Answers are asked for uncompressed: unpacking a list would hold the loop longer
than the network takes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from epp import __version__
from epp.contract.errors import StartError
from epp.kube.access import Access
from epp.kube.answers import Request, no_answer, read_status, refusal, unreadable
from epp.kube.credentials import Credential
from epp.kube.errors import Unauthorized, Unreachable
from epp.kube.reach import Reach, Reachable, silence_of

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_MOST_BODY_BYTES = 256 * 1024 * 1024
_KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that vanished without a word is noticed after 30 + 3 x 10 s of silence."""
SILENCE_S = 150.0
"""A stream so silent is given up: a proxy that is there may have lost its other end. Bookmarks come every minute."""


class Sender:
    """Sends requests to one API server.

    * timeout_s: bounds a request; of a stream, the wait for its head
    * reachable: told when no answer comes, and when one comes again; a stream that breaks off is no sign of either
    * silence_s: a stream that says nothing for so long has broken off

    Raises `StartError` where aiohttp is not installed.
    """

    def __init__(self, access: Access, *, timeout_s: float, reachable: Reachable, silence_s: float = SILENCE_S) -> None:
        if find_spec("aiohttp") is None:
            remedy = "run `pip install '.[kubernetes]'` in the source folder"
            raise StartError(f"the package aiohttp is not installed: {remedy}")
        self._access = access
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._reach = Reach(reachable)
        self._session: ClientSession | None = None
        self._streams: set[ClientResponse] = set()
        self._closed = False

    async def fetch(
        self,
        request: Request,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The body of a good answer; `ApiError` for every other."""
        response = await self._open(request, method, path, query or {}, body, self._timeout_s)
        try:
            return await self._body(request, response)
        finally:
            response.release()

    async def stream(
        self, request: Request, path: str, query: Mapping[str, str], *, whole_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The body of a good answer as it arrives, after an empty piece that says that there is one.

        Ends with the answer, or with `Unreachable` when it breaks off, falls silent or takes longer than `whole_s`.
        """
        response = await self._open(request, "GET", path, query, None, whole_s)
        self._streams.add(response)
        try:
            _notice_silence(response)
            yield b""
            chunks = response.content.iter_any()
            while chunk := await self._next(request, chunks, whole=False):
                yield chunk
        finally:
            self._streams.discard(response)
            _abort(response)

    async def close(self) -> None:
        """Ends all connections. No request can be made any more."""
        self._closed = True
        for response in self._streams:
            # aiohttp leaves whoever reads a stream waiting when its session is closed.
            response.content.set_exception(ConnectionAbortedError("we closed the connection"))
        if self._session is not None:
            await self._session.close()
            # What was aborted is closed in the loop's next turns.
            for _ in range(3):
                await asyncio.sleep(0)

    async def _next(self, request: Request, chunks: Any, *, whole: bool) -> bytes:
        """The next piece, b"" at the end. `whole`: all pieces are one answer, and without the last there is none."""
        from aiohttp import ClientError

        try:
            piece: bytes = await anext(chunks, b"")
        except (ClientError, OSError) as error:
            raise self._no_answer(request, error, told=whole) from None
        return piece

    def _no_answer(self, request: Request, error: Exception, *, told: bool = True) -> Unreachable:
        silence = silence_of(error)
        if told and not self._closed:
            self._reach.silent(silence, self._access.server)
        return no_answer(request, self._access.server, silence)

    async def _body(self, request: Request, response: ClientResponse) -> bytes:
        pieces, held_bytes = [], 0
        chunks = response.content.iter_any()
        while piece := await self._next(request, chunks, whole=True):
            pieces.append(piece)
            held_bytes += len(piece)
            if held_bytes > _MOST_BODY_BYTES:
                raise unreadable(request, f"the answer is longer than {_MOST_BODY_BYTES} bytes")
        return b"".join(pieces)

    async def _open(
        self, request: Request, method: str, path: str, query: Mapping[str, str], body: bytes | None, whole_s: float
    ) -> ClientResponse:
        """A good answer, whose body is still to be read. A refused credential is renewed once."""
        credentials = self._access.credentials
        shown = await credentials.current()
        response = await self._send(request, method, path, query, body, whole_s, shown)
        if response.status == 401:
            credentials.refused(shown)
            newer = await self._renewed(response)
            if newer != shown:
                response.close()
                response = await self._send(request, method, path, query, body, whole_s, newer)
        if 200 <= response.status < 300:
            return response
        try:
            status = read_status(await self._body(request, response))
        finally:
            response.close()
        raise refusal(request, response.status, status, response.headers, self._access.origin)

    async def _renewed(self, response: ClientResponse) -> Credential:
        try:
            return await self._access.credentials.current()
        except BaseException:
            response.close()
            raise

    async def _send(
        self,
        request: Request,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None,
        whole_s: float,
        credential: Credential,
    ) -> ClientResponse:
        from aiohttp import ClientError, ClientTimeout
        from yarl import URL

        if self._closed:
            raise Unreachable(f"{request}: the connection to {self._access.server} was closed", verb=request.verb)
        headers = {"Authorization": f"Bearer {credential.token}"} if credential.token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        url = self._access.server + quote(path) + (f"?{urlencode(query)}" if query else "")
        options: dict[str, Any] = {}
        try:
            if self._access.tls is not None:
                options["ssl"] = self._access.tls.context(credential)
                options["server_hostname"] = self._access.tls.server_name or None
            async with asyncio.timeout(self._timeout_s):
                response = await self._opened_session().request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=body,
                    timeout=ClientTimeout(total=whole_s, sock_read=self._silence_s),
                    allow_redirects=False,
                    **options,
                )
        except StartError as error:
            raise Unauthorized(f"{request}: {error}", verb=request.verb, resource=request.resource) from None
        except (ClientError, OSError, ValueError) as error:
            raise self._no_answer(request, error) from None
        self._reach.answered()
        return response

    def _opened_session(self) -> ClientSession:
        if self._session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector

            self._session = ClientSession(
                # Every watch holds a connection for itself.
                connector=TCPConnector(limit=0),
                cookie_jar=DummyCookieJar(),
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"epp/{__version__}",
                },
            )
        return self._session


def _abort(response: ClientResponse) -> None:
    """Ends a connection at once: a polite end of TLS would wait for a peer that may be gone."""
    transport = response.connection.transport if response.connection is not None else None
    if transport is not None:
        transport.abort()
    response.close()


def _notice_silence(response: ClientResponse) -> None:
    """Has the kernel ask now and then whether the peer is there; a watch may be silent for minutes and well."""
    transport = response.connection.transport if response.connection is not None else None
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
