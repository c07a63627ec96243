# SPDX-License-Identifier: Apache-2.0
"""How long each filter, scorer and picker takes, measured in a few decisions so that the others pay nothing.

For one decision the scheduler runs `TimedProfile` in a profile's place. It puts a timed stand-in before each plugin,
runs the profile as always and takes the stand-ins away again; nothing awaits in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epp.contract.decision import ProfileResult
from epp.contract.endpoints import Clock, Endpoints
from epp.contract.requests import InferenceRequest
from epp.scheduling.guard import Guarded
from epp.scheduling.profile import Profile

Durations = Callable[[str, str], Callable[[float], None]]
"""For an extension point and a plugin's instance name: what takes its seconds."""


class TimedProfile:
    """A profile whose plugins are timed. `done` is called before each run."""

    def __init__(self, profile: Profile, durations: Durations, clock: Clock, done: Callable[[], None]) -> None:
        self._profile = profile
        self._done = done
        guards: dict[str, Guarded[Any]] = {guarded.name: guarded for guarded in profile.filters}
        guards |= {guarded.name: guarded for guarded, _ in profile.scorers}
        guards[profile.picker.name] = profile.picker
        self._timed = [(guarded, _Timed(guarded, durations, clock)) for guarded in guards.values()]

    def run(self, request: InferenceRequest, endpoints: Endpoints) -> ProfileResult:
        """As `Profile.run`."""
        self._done()
        for guarded, timed in self._timed:
            guarded.plugin = timed
        try:
            return self._profile.run(request, endpoints)
        finally:
            for guarded, timed in self._timed:
                guarded.plugin = timed.plugin


class _Timed:
    """Stands before a plugin, whatever of the three it is."""

    def __init__(self, guarded: Guarded[Any], durations: Durations, clock: Clock) -> None:
        self.plugin = guarded.plugin
        self._name = guarded.name
        self._durations = durations
        self._clock = clock

    def filter(self, *arguments: Any) -> Any:
        """See `Filter`."""
        return self._time("Filter", self.plugin.filter, arguments)

    def score(self, *arguments: Any) -> Any:
        """See `Scorer`."""
        return self._time("Scorer", self.plugin.score, arguments)

    def pick(self, *arguments: Any) -> Any:
        """See `Picker`."""
        return self._time("Picker", self.plugin.pick, arguments)

    def _time(self, point: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        began_s = self._clock()
        try:
            return call(*arguments)
        finally:
            self._durations(point, self._name)(self._clock() - began_s)
