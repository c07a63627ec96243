# SPDX-License-Identifier: Apache-2.0
"""The API server's REST interface: read, list, watch, create, replace, and what is served.

Invariants: every failure is an `ApiError`, whose one line says what was asked, what was answered, and what would mend
it; tokens are in no text. Answers are decoded from bytes straight into the caller's type. No call holds the loop for
long: lists come in pages. Nothing is tried again here but a request whose credential was refused and could be renewed.

A list asks for the newest state (no `resourceVersion`): "any version" would be cheaper for the server, but may go back
in time behind what a picker knew before, and bring pods back that are gone.

aiohttp is loaded when the first request is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from epp.kube.access import Access
from epp.kube.answers import Request, unreadable
from epp.kube.errors import Gone, Missing
from epp.kube.pages import PageDecoder
from epp.kube.reach import Reachable
from epp.kube.resource import Resource
from epp.kube.sending import Sender
from epp.kube.watch import Event, Malformed, N, WatchDecoder

T = TypeVar("T")
Listing = tuple[list[T], str]
"""The objects, and the resource version."""

PAGE_OBJECTS = 100
"""Objects on one page of a list. A pod is 10 KB of JSON and takes 11 us: the loop is held for about 1 ms."""
_GUARD_S = 15.0
"""How much longer than the server a watch is kept open by us, in case the server forgot."""


class _Served(msgspec.Struct):
    name: str = ""


class _ServedList(msgspec.Struct):
    resources: list[_Served] | None = None


class Api:
    """One API server, by one `ClientSession`. A request may take `timeout_s`, a watch as long as it is asked to.

    `reachable` is told a line when the server does not answer, once, and None when it does again.
    """

    def __init__(self, access: Access, *, timeout_s: float = 10.0, reachable: Reachable | None = None) -> None:
        self._sender = Sender(access, timeout_s=timeout_s, reachable=reachable or _nobody)

    async def read(self, resource: Resource, namespace: str | None, name: str, decode: type[T]) -> T:
        """One object. `Missing` when it, or its kind, is not there."""
        request = Request("get", resource, namespace, name)
        return self._decode(request, await self._sender.fetch(request, "GET", resource.path(namespace, name)), decode)

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        decode: type[T],
        *,
        label_selector: str = "",
        field_selector: str = "",
        malformed: Malformed | None = None,
    ) -> Listing[T]:
        """All objects, and the resource version from which a watch sees every later change.

        Objects that cannot be read are left out and told to `malformed`. If the list changes so much meanwhile that
        its next page is gone, it is begun anew once.
        """
        request = Request("list", resource, namespace)
        pages = PageDecoder(request, decode, malformed)
        query = {"limit": str(PAGE_OBJECTS)} | _selectors(label_selector, field_selector)
        try:
            return await self._all_pages(request, pages, query)
        except Gone:
            return await self._all_pages(request, pages, query)

    async def _all_pages(self, request: Request, pages: PageDecoder[T], query: dict[str, str]) -> Listing[T]:
        found: list[T] = []
        first_version, token = "", ""
        while True:
            page_query = query | ({"continue": token} if token else {})
            body = await self._sender.fetch(request, "GET", request.resource.path(request.namespace), page_query)
            objects, version, token = pages.read(body)
            found += objects
            first_version = first_version or version
            if not token:
                return found, first_version
            await asyncio.sleep(0)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        decode: type[N],
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float,
        malformed: Malformed | None = None,
    ) -> AsyncGenerator[Event[N], None]:
        """What changes after `resource_version`, until the server ends it after `timeout_s` (in whole seconds).

        The first event is a BOOKMARK with `resource_version` itself: the server has accepted the watch. Raises `Gone`
        when the server has forgotten that version. Close the generator (`contextlib.aclosing`) when leaving it early.
        """
        request = Request("watch", resource, namespace)
        seconds = max(1, round(timeout_s))
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": resource_version,
        } | _selectors(label_selector, field_selector)
        events = WatchDecoder(request, decode, malformed=malformed)
        path = resource.path(namespace)
        async with aclosing(self._sender.stream(request, path, query, whole_s=seconds + _GUARD_S)) as chunks:
            async for chunk in chunks:
                if not chunk:
                    yield Event("BOOKMARK", None, resource_version)
                for event in events.feed(chunk):
                    yield event

    async def create(self, resource: Resource, namespace: str | None, body: Any, decode: type[T]) -> T:
        """Makes an object of what msgspec.json encodes, and returns what became of it. `Conflict` if it is there."""
        request = Request("create", resource, namespace)
        answer = await self._sender.fetch(request, "POST", resource.path(namespace), body=msgspec.json.encode(body))
        return self._decode(request, answer, decode)

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Any, decode: type[T]) -> T:
        """Writes a whole object. `Conflict` when its `metadata.resourceVersion` is not the newest."""
        request = Request("update", resource, namespace, name)
        answer = await self._sender.fetch(
            request, "PUT", resource.path(namespace, name), body=msgspec.json.encode(body)
        )
        return self._decode(request, answer, decode)

    async def served(self, group: str, version: str) -> frozenset[str]:
        """The plurals that the server serves in this group and version; none when it does not know them."""
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        request = Request("get", Resource(group, version, "*", ""), url=path)
        try:
            found = self._decode(request, await self._sender.fetch(request, "GET", path), _ServedList)
        except Missing:
            return frozenset()
        return frozenset(resource.name for resource in found.resources or () if "/" not in resource.name)

    async def close(self) -> None:
        """Ends all connections; open watches end with an error. No request can be made any more."""
        await self._sender.close()

    def _decode(self, request: Request, body: bytes, decode: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=decode, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is not JSON"
            raise unreadable(request, f"the answer cannot be read: {reason}") from None


def _nobody(_line: str | None) -> None:
    """Nobody wants to know."""


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: text for name, text in given.items() if text}
