# SPDX-License-Identifier: Apache-2.0
"""The admin path of a simulated pod: faults are set and cleared here, and the books read. See docs/sim-pod.md.

    GET    /sim/state           counts of requests and tokens, the engine as it is now
    GET    /sim/faults          what is in force
    PUT    /sim/faults          {kind: {...}, ...} in place of all that was in force
    PUT    /sim/faults/KIND     {...}: this one too
    DELETE /sim/faults[/KIND]   all, or one, are over

No fault touches these paths themselves, except that nobody answers while the pod refuses connections or has exited.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import orjson
from aiohttp import web

from epp.local.sim.faults import KINDS, Exit, Fault, Faults, MetricsLie, Refuse, read_fault, read_faults, sample_names
from epp.local.sim.state import State

PREFIX = "/sim/"
_FAULTS = "/sim/faults"


class Place(Protocol):
    """Where the pod listens; does what a fault asks of listener and process."""

    def refuse(self, for_s: float, drop: bool, spare: asyncio.BaseTransport | None) -> None:
        """Close the listener for `for_s`; with `drop` reset every connection but `spare`."""
        ...

    def exit(self, code: int, after_s: float) -> None:
        """End the process."""
        ...


class Admin:
    """Answers `/sim/...`."""

    def __init__(self, faults: Faults, state: State, place: Place) -> None:
        self._faults = faults
        self._state = state
        self._place = place

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, method = request.path.rstrip("/"), request.method
        kind = path.removeprefix(_FAULTS).removeprefix("/")
        if path == "/sim/state":
            return _json(self._state.told()) if method == "GET" else _error(405, "/sim/state is only read")
        if not path.startswith(_FAULTS) or (kind and kind not in KINDS):
            known = ", ".join(f"{_FAULTS}/{name}" for name in KINDS)
            return _error(404, f"nothing is at {path}; known: /sim/state, {_FAULTS}, {known}")
        if method == "PUT":
            return await self._put(request, kind)
        if method == "DELETE":
            self._faults.clear(kind or None)
        elif method != "GET":
            return _error(405, f"{method} is not for faults; use GET, PUT or DELETE")
        return _json(self._faults.describe())

    async def _put(self, request: web.BaseRequest, kind: str) -> web.StreamResponse:
        body = await request.content.read()
        try:
            faults = [read_fault(kind, body)] if kind else read_faults(body)
            self._check(faults)
        except ValueError as error:
            return _error(400, str(error))
        if not kind:
            self._faults.clear()
        for fault in faults:
            if isinstance(fault, Fault):
                self._faults.put(fault)
        response = _json(self._faults.describe())
        # The answer is written first: what follows may close connections, or end everything.
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        for fault in faults:
            if isinstance(fault, Refuse):
                self._faults.note(Refuse)
                self._place.refuse(fault.for_s, fault.drop, request.transport)
            elif isinstance(fault, Exit):
                self._place.exit(fault.code, fault.after_s)
        return response

    def _check(self, faults: list[Fault | Exit]) -> None:
        for fault in faults:
            if isinstance(fault, MetricsLie):
                unknown = fault.values.keys() - sample_names(self._state.page())
                if unknown:
                    raise ValueError(f"metrics_lie: no sample of this page is named {', '.join(sorted(unknown))}")


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value) + b"\n", content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return web.Response(body=orjson.dumps({"error": message}), status=status, content_type="application/json")
