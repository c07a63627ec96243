# SPDX-License-Identifier: Apache-2.0
"""The polls of one endpoint: when the next one is due, what a page or a failure leads to, what is counted and said.

An endpoint that cannot be read keeps its last values and is asked less and less often, up to `max_backoff_s`. That is
logged once when it starts and once when it ends, and counted always. Polls of one endpoint never overlap: it is
planned (a timer runs), or waits for its turn, or is being asked.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from epp.contract.endpoints import Endpoint
from epp.contract.signals import Sample
from epp.signals.engine.scan import PageScanner
from epp.signals.poll.filtered import Filtering
from epp.signals.poll.http1 import REASONS, PageError
from epp.signals.poll.pace import Pace
from epp.signals.poll.reader import PageSink
from epp.signals.poll.timers import Timer, Timers
from epp.signals.poll.turns import Turns
from epp.signals.settings import ScrapeSettings

log = logging.getLogger("epp.signals")

_FIRST_BACKOFF_S = 0.1
_SOON_S = 0.05
# An endpoint that refuses connections is dead or starting; asking costs nothing, and it should be found soon.
_MAX_REFUSED_BACKOFF_S = 1.0
_GONE = ("connect", "closed")
_GONE_S = 2.0
# One page that does not come in time may be a busy moment; from here on the endpoint hangs.
_HUNG_TIMEOUTS = 2
# An endpoint that fails now and then is not worth more than one warning in this time.
_WARNING_PAUSE_S = 10.0
_NOTHING = Sample()

Record = Callable[[Endpoint, Sample], bool]
"""Where samples go (`Pool.record`); false when the endpoint is gone."""


Lost = Callable[[Endpoint, float], None]
"""Told when an endpoint refuses or drops a connection, or hangs, and for how many seconds to believe it
(`Pool.suspect`)."""


class Reader(Protocol):
    """The part of `PageReader` that is used here."""

    def use(self, path: str) -> None:
        """Ask for `path` from now on."""
        ...

    def fetch(self) -> None:
        """Start a read; the sink is told how it ended."""
        ...

    def close(self) -> None:
        """End everything; the sink is told nothing more."""
        ...


OpenReader = Callable[[Endpoint, PageSink], Reader]

InFlight = Callable[[Endpoint], float]
"""How many requests that we sent to an endpoint have not ended."""


@dataclass(slots=True)
class ScrapeCounts:
    """Counted since the start.

    * polls: how many ended; failures: how many of them failed, by reason (`REASONS`)
    * page_bytes: of the pages; saved_bytes: by how much they were smaller than whole pages would have been
    """

    polls: int = 0
    page_bytes: int = 0
    saved_bytes: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the targets of one scraper share.

    * record: where samples go; in_flight: what an endpoint has of us; lost: told of a refused or dropped connection
    * rng: jitter of pauses
    """

    settings: ScrapeSettings
    record: Record
    in_flight: InFlight
    pace: Pace
    turns: Turns
    totals: ScrapeCounts
    rng: random.Random


@dataclass(slots=True)
class ScrapeState:
    """How scraping one endpoint goes. `missing` names the `Sample` fields its page was found not to have; `filtered`
    says whether it is asked for the families in use alone.
    """

    endpoint: Endpoint
    counts: ScrapeCounts = field(default_factory=ScrapeCounts)
    failures_in_a_row: int = 0
    last_error: str | None = None
    last_good_s: float = -math.inf
    missing: frozenset[str] = frozenset()
    filtered: bool = False


class Target:
    """The polls of one endpoint. `lost` is told when it refuses or drops a connection, or answers no more."""

    __slots__ = (
        "_announced",
        "_around",
        "_due_s",
        "_filtering",
        "_interval_s",
        "_lost",
        "_phase",
        "_reader",
        "_scanner",
        "_timeouts",
        "_timer",
        "_timers",
        "_warned_s",
        "state",
    )

    def __init__(self, endpoint: Endpoint, scanner: PageScanner, around: Surroundings, lost: Lost) -> None:
        self.state = ScrapeState(endpoint)
        self._scanner = scanner
        settings = around.settings
        self._filtering = Filtering(settings.path, lambda: sorted(scanner.families) if settings.filtered else ())
        self._around = around
        self._lost = lost
        self._timers: Timers | None = None
        self._reader: Reader | None = None
        self._timer: Timer | None = None
        self._phase = self._due_s = 0.0
        self._interval_s = around.settings.interval_s
        self._warned_s = -math.inf
        self._timeouts = 0
        self._announced = False

    def launch(self, timers: Timers, open_reader: OpenReader, phase: float) -> None:
        """Poll soon, then once every interval. `phase` (0..1) is this endpoint's place among the others."""
        self._timers = timers
        self._phase = phase
        self._reader = open_reader(self.state.endpoint, self)
        # The first poll does not wait for a long interval.
        self._plan(timers.time() + phase * min(self._interval_s, _SOON_S))

    def close(self) -> None:
        """No more polls."""
        self._timers = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def hurry(self) -> None:
        """Somebody wants to know now. An endpoint that cannot be read keeps its pauses."""
        if self._timer is not None and not self.state.failures_in_a_row and self._timers is not None:
            self._timer.cancel()
            self._due_s = self._timers.time()
            self._poll()

    def on_page(self, buffer: bytearray, start: int, end: int) -> None:
        """A poll has ended well, if the page says anything."""
        if self._timers is None:
            return
        self._around.turns.page_read()
        filtering = self._filtering
        if not filtering.fits(buffer, start, end):
            self._plan(self._timers.time())
            return
        sample = self._scanner.scan(buffer, start, end)
        missing = self._newly_missing(sample)
        if filtering.active and (missing or sample == _NOTHING):
            # Whether the endpoint or the filter is to blame, the whole page tells.
            filtering.restart()
            self._plan(self._timers.time())
            return
        if sample == _NOTHING:
            self.on_page_error(PageError("empty", self._scanner.nothing_found(buffer, start, end)))
            return
        self._count()
        self._count_bytes(end - start)
        state = self.state
        state.last_good_s = self._timers.time()
        self._timeouts = 0
        filtering.learn(buffer, start, end, state.last_good_s)
        around = self._around
        busy = bool(sample.running or sample.waiting) or around.in_flight(state.endpoint) > 0
        self._plan_next(state.last_good_s, around.pace.interval_s(busy))
        if not around.record(state.endpoint, sample):
            self.close()
            return
        if state.failures_in_a_row:
            self._recovered()
        if missing:
            self._note_missing(missing)

    def on_page_error(self, error: PageError) -> None:
        """A poll has failed."""
        if self._timers is None:
            return
        if self._filtering.failed(error.reason):
            self._plan(self._timers.time())
            return
        state, settings = self.state, self._around.settings
        self._count(error.reason)
        state.failures_in_a_row += 1
        state.last_error = str(error)
        now_s = self._timers.time()
        if not self._announced and now_s - self._warned_s >= _WARNING_PAUSE_S:
            self._announced = True
            self._warned_s = now_s
            log.warning(
                "endpoint %s: metrics cannot be read, its last values are kept: %s; trying again after growing pauses",
                state.endpoint.id,
                error,
            )
        pause_s = max(settings.interval_s, _FIRST_BACKOFF_S) * 2.0 ** min(state.failures_in_a_row - 1, 32)
        # Endpoints that fail together must not be asked again together.
        longest_s = max(settings.max_backoff_s, settings.interval_s)
        if error.reason in _GONE:
            longest_s = min(longest_s, max(_MAX_REFUSED_BACKOFF_S, settings.interval_s))
        pause_s = min(pause_s, longest_s) * self._around.rng.uniform(0.5, 1.0)
        self._doubt(error.reason, pause_s)
        self._plan(now_s + pause_s)

    def _doubt(self, reason: str, pause_s: float) -> None:
        """Tell of an endpoint that is gone, or hangs, until the next poll can have ended."""
        self._timeouts = self._timeouts + 1 if reason == "timeout" else 0
        if reason in _GONE:
            self._lost(self.state.endpoint, _GONE_S)
        elif self._timeouts >= _HUNG_TIMEOUTS:
            self._lost(self.state.endpoint, pause_s + self._around.settings.timeout_s + _GONE_S)

    def on_idle_close(self) -> None:
        """The endpoint ended its connection between two polls: it may be gone, so ask at once."""
        if self._timers is None:
            return
        self._lost(self.state.endpoint, _GONE_S)
        self._filtering.restart()
        if self._timer is not None:
            self._timer.cancel()
            self._plan(self._timers.time())

    def on_reconnect(self) -> None:
        """The endpoint ended its connection, and may be another program now."""
        self._filtering.restart()
        if self._reader is not None:
            self._reader.use(self._filtering.path)

    def _plan_next(self, now_s: float, interval_s: float) -> None:
        slower, self._interval_s = interval_s > self._interval_s, interval_s
        if slower:
            # Endpoints that become idle together are spread anew, over the longer interval.
            self._plan(now_s + interval_s * (0.5 + self._phase / 2))
            return
        # The times stay evenly spread however long polls take; turns that were missed are not made up for.
        missed = max(0, math.ceil((now_s - self._due_s) / interval_s) - 1)
        self._plan(self._due_s + (1 + missed) * interval_s)

    def _plan(self, when_s: float) -> None:
        self._due_s = when_s
        if self._timers is not None:
            self._timer = self._timers.call_at(when_s, self._poll)

    def _poll(self) -> None:
        self._timer = None
        state = self.state
        self._around.turns.ask(self._fetch, bool(state.failures_in_a_row) or state.last_good_s < 0)

    def _fetch(self) -> None:
        if self._reader is not None:
            self._reader.use(self._filtering.path)
            self._reader.fetch()

    def _count(self, failure: str | None = None) -> None:
        for counts in (self.state.counts, self._around.totals):
            counts.polls += 1
            if failure is not None:
                counts.failures[failure] += 1

    def _recovered(self) -> None:
        state = self.state
        if self._announced:
            failures = state.failures_in_a_row
            log.info("endpoint %s: metrics are read again, after %d failures", state.endpoint.id, failures)
        self._announced = False
        state.failures_in_a_row = 0
        state.last_error = None

    def _count_bytes(self, size: int) -> None:
        filtering = self._filtering
        self.state.filtered = filtering.active
        saved = filtering.whole_bytes - size if filtering.active else 0
        for counts in (self.state.counts, self._around.totals):
            counts.page_bytes += size
            counts.saved_bytes += saved

    def _newly_missing(self, sample: Sample) -> list[str]:
        missing = self.state.missing
        return [name for name in self._scanner.wanted if getattr(sample, name) is None and name not in missing]

    def _note_missing(self, missing: list[str]) -> None:
        wanted, state = self._scanner.wanted, self.state
        state.missing |= frozenset(missing)
        names = "; ".join(f"{name} ({wanted[name]})" for name in missing)
        log.warning("endpoint %s: its metrics page does not have %s", state.endpoint.id, names)
