# SPDX-License-Identifier: Apache-2.0
"""How a simulated pod hands out its metrics page: whole, or filtered by `?name[]=`, or as a fault will have it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from aiohttp import web

from epp.local.sim.faults import (
    Faults,
    MetricsError,
    MetricsGarbage,
    MetricsLie,
    MetricsSlow,
    MetricsStale,
    MetricsTruncated,
    lie,
)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METRICS_PATHS = ("/metrics", "/metrics/")
FilterPath = Literal["/metrics", "/metrics/", "off"]


class MetricsFace:
    """Answers requests for the page. `render` gives its text; `filter_path` is the path that filters by name."""

    def __init__(
        self, render: Callable[[], bytes], faults: Faults, filter_path: FilterPath, headers: Mapping[str, str]
    ) -> None:
        self._render = render
        self._faults = faults
        self._filter_path = filter_path
        self._headers = {**headers, "Content-Type": METRICS_TYPE}
        self._frozen: tuple[MetricsStale, bytes] | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The page, as it is handed out now."""
        faults = self._faults
        slow = faults.strike(MetricsSlow)
        if slow is not None:
            await asyncio.sleep(slow.delay_s)
        error = faults.strike(MetricsError)
        if error is not None:
            return web.Response(status=error.status, headers=self._headers)
        body = self._page()
        names = request.query.getall("name[]", [])
        if names and request.path == self._filter_path:
            body = restricted(body, set(names))
        if faults.strike(MetricsGarbage) is not None:
            body = faults.garbage(len(body))
        truncated = faults.strike(MetricsTruncated)
        if truncated is not None:
            return await self._cut(request, body, truncated.keep)
        return web.Response(body=body, headers=self._headers)

    def _page(self) -> bytes:
        stale = self._faults.get(MetricsStale)
        if stale is None:
            self._frozen = None
            body = self._render()
        else:
            if self._frozen is None or self._frozen[0] is not stale:
                self._frozen = (stale, self._render())
            self._faults.note(MetricsStale)
            body = self._frozen[1]
        lying = self._faults.get(MetricsLie)
        if lying is not None:
            self._faults.note(MetricsLie)
            body = lie(body, lying.values)
        return body

    async def _cut(self, request: web.BaseRequest, body: bytes, keep: float) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers)
        response.content_length = len(body)
        response.force_close()
        await response.prepare(request)
        await response.write(body[: int(len(body) * keep)])
        if request.transport is not None:
            request.transport.close()
        return response


def restricted(page: bytes, names: Collection[str]) -> bytes:
    """The samples of exactly these names, each after the heading of its family, as prometheus_client's filter gives.

    A counter is found by `x_total`, a histogram by `x_bucket`, `x_count`, `x_sum`, each for itself.
    """
    wanted = {name.encode() for name in names}
    heading: list[bytes] = []
    kept: list[bytes] = []
    for line in page.splitlines(keepends=True):
        if line.startswith(b"#"):
            if line.startswith(b"# HELP"):
                heading.clear()
            heading.append(line)
        elif line.partition(b" ")[0].partition(b"{")[0] in wanted:
            kept += heading
            heading.clear()
            kept.append(line)
    return b"".join(kept)
