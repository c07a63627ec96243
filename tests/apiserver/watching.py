# SPDX-License-Identifier: Apache-2.0
"""watch: a stream of JSON lines, from the history and then as things happen.

An object that stops matching the selectors arrives as DELETED in its last matching state with the version of the
change; one that begins to match arrives as ADDED. Bookmarks bear the version of now and, for pods, the empty fields
and the null creation time that the real server sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import orjson
from aiohttp import web

from tests.apiserver.kinds import PODS, Kind
from tests.apiserver.reading import Chosen, expired_status, number, resource_version
from tests.apiserver.request import Request, true
from tests.apiserver.status import Refused, refuse
from tests.apiserver.store import Change, Item, Key, Store

DEFAULT_TIMEOUT_S = 1800.0
INITIAL_END = "k8s.io/initial-events-end"


class Watch:
    """One watch: where it is in the history, and how to end it from outside."""

    def __init__(self, store: Store, kind: Kind, request: Request, *, bookmark_s: float, gone_as_status: bool) -> None:
        self.kind = kind
        self.news = asyncio.Event()
        self.ended = False
        self.torn = False
        self._store = store
        self._request = request
        self._chosen = Chosen(kind, request)
        self._bookmark_s = bookmark_s if true(request.query.get("allowWatchBookmarks", "0")) else 0.0
        self._timeout_s = number("timeoutSeconds", request.query.get("timeoutSeconds", "")) or DEFAULT_TIMEOUT_S
        self._place = 0
        self._first: list[bytes] = []
        self._begin(resource_version(request.query.get("resourceVersion", "")), gone_as_status)

    def _begin(self, asked: int, gone_as_status: bool) -> None:
        initial = self._request.query.get("sendInitialEvents")
        if initial is not None and not self._request.query.get("resourceVersionMatch"):
            text = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise refuse(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {text}')
        if asked == 0 or true(initial or "0"):
            self._tell_state(true(initial or "0"))
            return
        if asked < self._store.oldest(self.kind):
            gone = expired_status(self._store, self.kind, asked)
            if gone_as_status:
                raise Refused(410, orjson.dumps(gone) + b"\n")
            self._first.append(_line(b"ERROR", orjson.dumps(gone)))
            self.ended = True
        self._place = self._store.place(self.kind, asked)

    def _tell_state(self, mark_end: bool) -> None:
        """What is there, as if it had just been added."""
        with self._store.lock:
            items, version = self._store.state(self.kind)
            self._place = self._store.place(self.kind, version)
        self._first = [_line(b"ADDED", items[key].data) for key in sorted(items) if self._chosen(key, items[key])]
        if mark_end:
            self._first.append(bookmark(self.kind, version, {INITIAL_END: "true"}))

    def end(self, *, torn: bool = False) -> None:
        """End the stream: in order, or `torn` in the middle of a line with the connection broken."""
        self.ended, self.torn = True, torn
        self.news.set()

    async def serve(self, response: web.StreamResponse) -> None:
        """Write until the time is over, somebody ends it, or the history has gone past us."""
        deadline = time.monotonic() + self._timeout_s
        marked = time.monotonic()
        await response.write(b"".join(self._first))
        while not self.ended:
            self.news.clear()
            found = self._store.since(self.kind, self._place)
            if found is None:
                await response.write(_line(b"ERROR", orjson.dumps(expired_status(self._store, self.kind, 0))))
                return
            changes, self._place, version = found
            if lines := b"".join(self._lines(changes)):
                await response.write(lines)
            left = deadline - time.monotonic()
            due = marked + self._bookmark_s - time.monotonic() if self._bookmark_s else left
            if self._bookmark_s and (due <= 0 or left <= 0):
                await response.write(bookmark(self.kind, version))
                marked, due = time.monotonic(), self._bookmark_s
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), min(left, due))
        if self.torn:
            await response.write(b'{"type":"MODIFIED","object":{"metadata":{"na')

    def _lines(self, changes: list[Change]) -> Iterator[bytes]:
        for change in changes:
            before, after = self._chosen(change.key, change.old), self._chosen(change.key, change.new)
            if after and change.new is not None:
                yield _line(b"MODIFIED" if before else b"ADDED", change.new.data)
            elif before and change.gone is not None:
                yield _line(b"DELETED", change.gone.data)
            elif before and change.old is not None:
                yield _line(b"DELETED", _at(self.kind, change.key, change.old, change.version))


def _at(kind: Kind, key: Key, item: Item, version: int) -> bytes:
    """The state, with the version of the change that took it out of sight."""
    body = item.load()
    body["metadata"]["resourceVersion"] = str(version)
    return orjson.dumps(body)


def _line(kind_of_event: bytes, data: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind_of_event, data)


def bookmark(kind: Kind, version: int, annotations: dict[str, str] | None = None) -> bytes:
    """An event without an object: "you have seen everything up to `version`"."""
    meta: dict[str, object] = {"resourceVersion": str(version)}
    rest: dict[str, object] = {"metadata": meta}
    if annotations:
        meta["annotations"] = annotations
    if not kind.custom:
        meta["creationTimestamp"] = None
        rest |= {"spec": {"containers": None} if kind is PODS else {}}
        if kind.status:
            rest["status"] = {}
    return _line(b"BOOKMARK", kind.opening + b"," + orjson.dumps(rest)[1:])
