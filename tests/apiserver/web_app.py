# SPDX-License-Identifier: Apache-2.0
"""The HTTP face: authenticate, authorize, dispatch, in the order of the real server, with the faults that tests ask for.

Everything here runs on the server's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
import zlib
from collections.abc import Collection

import orjson
from aiohttp import web

from tests.apiserver import groups, reading, writing
from tests.apiserver.kinds import ACCESS_REVIEWS, GVP, SELF_REVIEWS, TOKEN_REVIEWS, Kind
from tests.apiserver.request import Request, read_request
from tests.apiserver.reviews import Reviews
from tests.apiserver.rules import Rules
from tests.apiserver.status import JSON, Refused, forbidden, forbidden_path, method_not_allowed, no_such_path
from tests.apiserver.store import Store
from tests.apiserver.users import Users
from tests.apiserver.watching import Watch

COMPRESS_FROM_BYTES = 128 * 1024
BODY_BYTES = 3 * 1024 * 1024
REVIEWS = (TOKEN_REVIEWS, ACCESS_REVIEWS, GVP, SELF_REVIEWS)


class Faults:
    """What the next requests get instead of an answer. Set from any thread."""

    def __init__(self) -> None:
        self.slow_s = 0.0
        self.gone_as_status = False
        self._lock = threading.Lock()
        self._next: list[Refused] = []

    def push(self, answers: list[Refused]) -> None:
        """One of `answers` for each of the next requests."""
        with self._lock:
            self._next.extend(answers)

    def clear(self) -> None:
        """Nothing more of that."""
        with self._lock:
            self._next.clear()

    def pop(self) -> Refused | None:
        """The next request's."""
        with self._lock:
            return self._next.pop(0) if self._next else None


class WebApp:
    """`requests` holds what was asked, oldest first."""

    def __init__(self, store: Store, users: Users, rules: Rules, reviews: Reviews, *, bookmark_s: float) -> None:
        self.requests: list[Request] = []
        self.watches: set[Watch] = set()
        self.faults = Faults()
        self.bookmark_s = bookmark_s
        self._store = store
        self._users = users
        self._rules = rules
        self._reviews = reviews

    def application(self) -> web.Application:
        """A new aiohttp application."""
        application = web.Application(client_max_size=BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    def wake(self, kind: Kind) -> None:
        """Something of the kind has changed."""
        for watch in self.watches:
            if watch.kind is kind:
                watch.news.set()

    def end_watches(self, torn: bool = False, of: Collection[GVP] | None = None) -> None:
        """End those of some kinds, or all; `torn` in the middle of a line."""
        for watch in self.watches:
            if of is None or (watch.kind.group, watch.kind.version, watch.kind.plural) in of:
                watch.end(torn=torn)

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        request = read_request(http.method, http.path, http.query)
        request.agent = http.headers.get("User-Agent", "")
        self.requests.append(request)
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        try:
            answer = await self._answer(http, request)
        except Refused as refused:
            request.code = refused.code
            answer = web.Response(body=refused.body, status=refused.code, headers=refused.headers)
            answer.headers["Content-Type"] = refused.content_type
            _stamp(answer)
        return answer

    async def _answer(self, http: web.Request, request: Request) -> web.StreamResponse:
        certificate = http.transport.get_extra_info("peercert") if http.transport is not None else None
        user = self._users.of(http.headers.get("Authorization", ""), certificate)
        request.user, request.groups = user.name, user.groups
        if (fault := self.faults.pop()) is not None:
            raise fault
        if not self._rules.allows(request):
            if not request.plural:
                raise forbidden_path(user.name, request.verb, request.path)
            where = request.namespace, request.name
            raise forbidden(user.name, request.verb, request.group, request.resource, *where)
        if not request.plural:
            if request.verb != "get":
                raise method_not_allowed()
            body, content_type = groups.answer(self._rules, request)
            return self._whole(http, request, 200, body, content_type)
        kind = self._rules.find(request.group, request.version, request.plural)
        if kind is None or (request.subresource and not (request.subresource == "status" and kind.status)):
            raise no_such_path()
        if request.verb not in kind.verbs:
            raise method_not_allowed()
        if request.verb == "watch":
            return await self._watch(http, request, kind)
        request.body = await http.read()
        code, body = self._dispatch(kind, request, http.content_type)
        return self._whole(http, request, code, body, JSON)

    def _dispatch(self, kind: Kind, request: Request, content_type: str) -> tuple[int, bytes]:
        store = self._store
        if kind in REVIEWS:
            return 201, self._reviews.answer(kind, request)
        if request.verb == "get":
            return 200, reading.get(store, kind, request)
        if request.verb == "list":
            return 200, reading.list_(store, kind, request)
        if request.verb == "create":
            return 201, writing.create(store, kind, request)
        if request.verb == "update":
            return writing.update(store, kind, request)
        if request.verb == "patch":
            return 200, writing.patch(store, kind, request, content_type)
        if request.verb == "deletecollection":
            return 200, writing.delete_all(store, kind, request)
        gone = writing.delete(store, kind, request)
        return 200, gone if isinstance(gone, bytes) else orjson.dumps(gone)

    def _whole(self, http: web.Request, request: Request, code: int, body: bytes, content_type: str) -> web.Response:
        request.code = code
        answer = web.Response(status=code)
        answer.headers["Content-Type"] = content_type
        if len(body) >= COMPRESS_FROM_BYTES and "gzip" in http.headers.get("Accept-Encoding", ""):
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
            answer.headers["Content-Encoding"] = "gzip"
            answer.headers["Vary"] = "Accept-Encoding"
        answer.body = body
        _stamp(answer)
        return answer

    async def _watch(self, http: web.Request, request: Request, kind: Kind) -> web.StreamResponse:
        watch = Watch(self._store, kind, request, bookmark_s=self.bookmark_s, gone_as_status=self.faults.gone_as_status)
        request.code = 200
        response = web.StreamResponse(headers={"Content-Type": JSON})
        _stamp(response)
        self.watches.add(watch)
        try:
            with contextlib.suppress(ConnectionError):
                await response.prepare(http)
                await watch.serve(response)
                if watch.torn and http.transport is not None:
                    http.transport.abort()
        finally:
            self.watches.discard(watch)
        return response


def _stamp(answer: web.StreamResponse) -> None:
    answer.headers["Audit-Id"] = str(uuid.uuid4())
    answer.headers["Cache-Control"] = "no-cache, private"
