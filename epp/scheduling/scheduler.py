# SPDX-License-Identifier: Apache-2.0
"""The cycle: ask the profile handler which profiles to run, run them, until it wants no more; then one is primary.

Nothing here awaits, so that choosing and charging stay one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epp.contract.decision import Decision, ProfileResult
from epp.contract.endpoints import Clock, Endpoints
from epp.contract.errors import RequestError, ResourceExhausted
from epp.contract.plugins import ProfileHandler
from epp.contract.requests import InferenceRequest
from epp.contract.snapshot import snapshot
from epp.scheduling.guard import Guarded
from epp.scheduling.profile import Profile
from epp.scheduling.timing import Durations, TimedProfile


class Scheduler:
    """A configuration's profiles and their handler."""

    def __init__(self, profiles: Sequence[Profile], handler: Guarded[ProfileHandler], clock: Clock) -> None:
        self._plain: dict[str, Profile | TimedProfile] = {profile.name: profile for profile in profiles}
        self._timed: dict[str, Profile | TimedProfile] = self._plain
        self._profiles = self._plain
        self._names = tuple(self._profiles)
        self._handler = handler
        self._clock = clock

    def follow(self, durations: Durations) -> None:
        """Tell `durations` how long plugins take, in the decisions that `time_next` asks for."""
        self._timed = {
            name: TimedProfile(profile, durations, self._clock, self._time_no_more)
            for name, profile in self._plain.items()
            if isinstance(profile, Profile)
        }

    def time_next(self) -> None:
        """Time the plugins of the profile that runs next."""
        self._profiles = self._timed

    def _time_no_more(self) -> None:
        self._profiles = self._plain

    def schedule(self, request: InferenceRequest, endpoints: Endpoints) -> Decision:
        """Choose an endpoint for `request`. Raises `ResourceExhausted` (429) when no profile found one."""
        results: dict[str, ProfileResult | None] = {}
        refused: list[RequestError] = []
        while True:
            chosen = [n for n in self._next(request, results) if n not in results and n in self._profiles]
            if not chosen:
                break
            for name in chosen:
                try:
                    results[name] = self._profiles[name].run(request, endpoints)
                except RequestError as error:
                    results[name] = None
                    refused.append(error)
        if refused and not any(results.values()):
            # Every profile refused: the first reason says more than the handler's "nothing found".
            raise refused[0]
        primary = self._primary(request, results)
        found = {name: result for name, result in results.items() if result is not None}
        if primary not in found:
            raise ResourceExhausted(
                f"failed to find target endpoint: failed to run scheduler profile '{primary}'",
                reason="rejected-saturated",
            )
        return Decision(
            request_id=request.request_id,
            model=request.model,
            target_model=request.target_model,
            primary=primary,
            results=found,
            candidates=len(endpoints),
            at_s=self._clock(),
            known=snapshot(endpoints),
        )

    def _next(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> Sequence[str]:
        handler = self._handler
        try:
            if handler.failing and handler.benched:
                return self._names[:1]
            names = handler.plugin.pick_profiles(request, self._names, results)
        except RequestError:
            raise
        except Exception as error:
            handler.failed(error)
            return self._names[:1]
        if handler.failing:
            handler.succeeded()
        return names

    def _primary(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> str:
        try:
            return self._handler.plugin.primary(request, results)
        except RequestError:
            raise
        except Exception as error:
            self._handler.failed(error)
            return next((name for name, result in results.items() if result is not None), self._names[0])
