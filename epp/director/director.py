# SPDX-License-Identifier: Apache-2.0
"""Opens a life for every stream, and says who may be chosen."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

from epp.contract.endpoints import Clock, Endpoints
from epp.contract.errors import ServiceUnavailable
from epp.contract.models import Models
from epp.contract.requests import InferenceRequest
from epp.director.headers import SHOW_BODIES, SUBSET_KEY, SUBSET_NAMESPACE, WORKER_HEADERS
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
    """Opens a `Life` for every stream. `plan` and `models` may be replaced at any time: a request keeps what it started
    with. `rng` draws among the models of a rewrite."""

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
        rng: random.Random | None = None,
    ) -> None:
        self.pool = pool
        self.plan = plan
        self.recorder = recorder
        self.unwatched = unwatched
        self.clock = clock
        self.new_request_id = new_request_id
        self.settings = settings
        self.models = Models()
        self.rng = rng or random.Random()
        self.arrived: Callable[[], None] = _nobody
        """Told of every request, before it is read."""
        self._told: set[object] = set()
        self._routes: dict[Watch, dict[str, Route]] = {watch: {} for watch in Watch}
        self._telling: dict[Watch, dict[str, Route]] = {watch: {} for watch in Watch}

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
                "has nothing to go by; %s",
                mode.name,
                ", ".join(guarded.name for guarded in self.plan.producers),
                SHOW_BODIES,
            )

    def model_kept(self, why: str) -> None:
        """A rule or a header asks for another model in a body that cannot be changed; said once for each reason."""
        self.say_once(f"the model of some requests is not rewritten, they go on with their client's: {why}")

    def answer_seen(self, http: HttpRequest) -> bool:
        """Whether Envoy shows the bodies of responses, in which a rewritten model's name can be put back."""
        if http.response_mode is BodyMode.NONE:
            self.say_once(
                "answers name the model that was asked for in the place of the client's: Envoy shows no response "
                "bodies (response_body_mode NONE); set processing_mode.response_body_mode to FULL_DUPLEX_STREAMED"
            )
        return http.response_mode is not BodyMode.NONE

    def say_once(self, text: str) -> None:
        """Warn, unless that was said before."""
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def end_seen(self, http: HttpRequest) -> bool:
        """Whether Envoy shows the bodies of responses, which say what they cost."""
        if http.response_mode is BodyMode.NONE:
            self.say_once(
                "plugins that follow answers to their end are told of none: Envoy shows no response bodies "
                "(response_body_mode NONE); set processing_mode.response_body_mode to FULL_DUPLEX_STREAMED"
            )
        return http.response_mode is not BodyMode.NONE

    def route_to(self, addresses: str, watch: Watch = Watch.BODY, tells: bool = False) -> Route:
        """The plain answer that names `addresses`; one object for each, so that it is serialised once."""
        routes = self._telling[watch] if tells else self._routes[watch]
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
                tells=tells,
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
                why = "the pool has no endpoint; the log and /readyz on the metrics port say why"
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
