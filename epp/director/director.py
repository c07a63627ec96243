# SPDX-License-Identifier: Apache-2.0
"""Opens a life for every stream, and says who may be chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from epp.contract.endpoints import Clock, Endpoints
from epp.contract.errors import ServiceUnavailable
from epp.contract.requests import InferenceRequest
from epp.director.headers import SUBSET_KEY, SUBSET_NAMESPACE, WORKER_HEADERS
from epp.director.life import Life
from epp.director.plan import Plan, Settings
from epp.director.unwatched import Unwatched
from epp.endpoints.pool import Pool
from epp.extproc import BodyMode, HttpRequest, Route, Watch
from epp.observe.recorder import Recorder

log = logging.getLogger("epp.director")

MOST_ROUTES = 4096
"""Addresses whose answer is kept ready."""
_REMOVED = tuple(sorted(WORKER_HEADERS))


class Director:
    """Opens a `Life` for every stream. `plan` may be replaced at any time: a request keeps the one it started with."""

    def __init__(
        self,
        pool: Pool,
        plan: Plan,
        recorder: Recorder,
        unwatched: Unwatched,
        *,
        clock: Clock,
        new_request_id: Callable[[], str],
        settings: Settings,
    ) -> None:
        self.pool = pool
        self.plan = plan
        self.recorder = recorder
        self.unwatched = unwatched
        self.clock = clock
        self.new_request_id = new_request_id
        self.settings = settings
        self.arrived: Callable[[], None] = _nobody
        """Told of every request, before it is read."""
        self._told: set[BodyMode] = set()
        self._routes: dict[Watch, dict[str, Route]] = {watch: {} for watch in Watch}

    def open(self) -> Life:
        """The handler of one more request."""
        self.arrived()
        return Life(self)

    def watch(self, http: HttpRequest, request: InferenceRequest, wanted: Watch) -> Watch:
        """How much of this request's response to watch: `wanted`, or all of it where it passes through us anyway, or
        in order to learn how long such requests take."""
        return self.unwatched.watch(request, wanted) if http.can_end(wanted) else Watch.BODY

    def body_unseen(self, mode: BodyMode) -> None:
        """A request came whose body Envoy does not show before it is routed; said once for each mode."""
        if mode not in self._told and self.plan.producers:
            self._told.add(mode)
            log.warning(
                "Envoy shows no request bodies (request_body_mode %s): they are routed without their prompts, so %s "
                "has nothing to go by; set processing_mode.request_body_mode to FULL_DUPLEX_STREAMED or BUFFERED",
                mode.name,
                ", ".join(guarded.name for guarded in self.plan.producers),
            )

    def route_to(self, addresses: str, watch: Watch = Watch.BODY) -> Route:
        """The plain answer that names `addresses`; one object for each, so that it is serialised once."""
        routes = self._routes[watch]
        route = routes.get(addresses)
        if route is None:
            if len(routes) >= MOST_ROUTES:
                routes.clear()
            settings = self.settings
            chosen = {settings.destination_header: addresses}
            route = routes[addresses] = Route(
                set_headers=[(settings.destination_header, addresses.encode())],
                remove_headers=_REMOVED,
                metadata={settings.metadata_namespace: chosen} if settings.metadata_namespace else chosen,
                watch=watch,
                reused=True,
            )
        return route

    def candidates(self, http: HttpRequest) -> Endpoints:
        """Who may be chosen. Raises `ServiceUnavailable` when nobody."""
        hint = http.metadata.get(SUBSET_NAMESPACE, {}).get(SUBSET_KEY) if self.settings.subset_filter else None
        if hint is None:
            found = self.pool.candidates()
        else:
            found = self.pool.subset(_texts(hint))
        if not len(found):
            why = f"none of the subset {hint} is in the pool"
            if hint is None:
                why = "the pool has no endpoint, see --endpoints and --endpoints-file"
            raise ServiceUnavailable(
                f"failed to find endpoint candidates for serving the request: {why}", reason="rejected-no-endpoints"
            )
        return found


def _nobody() -> None:
    """Nobody wants to know."""


def _texts(hint: object) -> Sequence[str]:
    """What a hint names: text with commas, or a list. Anything else is metadata gone wrong, and names nobody."""
    if isinstance(hint, str):
        return hint.split(",")
    return [item for item in hint if isinstance(item, str)] if isinstance(hint, list) else []
