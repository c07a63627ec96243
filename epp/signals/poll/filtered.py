# SPDX-License-Identifier: Apache-2.0
"""Asks an endpoint for the metric families in use alone, where it can do that: hundreds of bytes instead of 80 KB.

prometheus_client's own applications filter by `?name[]=SERIES`, once for each name. vLLM mounts one, but something else
may answer `/metrics` before it, so `/metrics/` is tried as well. What an endpoint does is found out by asking, once in
the life of a connection:

    whole page -> each form, until one holds everything that the whole page had -> that form, or the whole page for good

Invariants: nothing is taken from a filtered page that has fewer series of a wanted family than the whole page just
had. All names that the engine's versions gave to a signal are asked for, so that a family which appears later is seen.
When a filtered page loses a signal or fails, the next one is whole, at once, and so is one every `RECHECK_S`. After a
connection has ended, the endpoint may be another program: pages are whole again, and forms are tried anew, though not
more often than every `PAUSE_S`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from urllib.parse import quote

from epp.signals.engine.family import Page

PAUSE_S = 30.0
RECHECK_S = 300.0
LEAST_BYTES = 2048
"""Smaller pages are not worth it."""
_LOST = ("connect", "closed", "timeout", "tls")


class _State(enum.Enum):
    WHOLE = enum.auto()
    TRIAL = enum.auto()
    FILTERED = enum.auto()


class Filtering:
    """What one endpoint is asked for; `path` is what to ask for next.

    * path: of the whole page
    * names: gives the series that are read, () when they are not known yet or when nothing is to be filtered
    """

    __slots__ = (
        "_baseline",
        "_began_s",
        "_forms",
        "_names",
        "_refused",
        "_state",
        "_tried",
        "_whole",
        "path",
        "whole_bytes",
    )

    def __init__(self, path: str, names: Callable[[], Sequence[str]]) -> None:
        self.path = path
        self.whole_bytes = 0
        self._whole = path
        self._names = names
        self._state = _State.WHOLE
        self._baseline: dict[str, int] = {}
        self._forms: list[str] = []
        self._tried = False
        self._refused: set[str] = set()
        self._began_s = -math.inf

    @property
    def active(self) -> bool:
        """Whether pages are filtered."""
        return self._state is _State.FILTERED

    def fits(self, page: Page, start: int, end: int) -> bool:
        """Whether `page[start:end]`, which came for `path`, can be used. If not, ask for `path` at once."""
        if self._state is _State.WHOLE:
            return True
        # An endpoint that does not filter sends the whole page, which need not be looked at.
        if 2 * (end - start) > self.whole_bytes:
            return self._unfit()
        if self._state is _State.TRIAL:
            if any(count(page, name, start, end) < least for name, least in self._baseline.items()):
                return self._unfit()
            self._state = _State.FILTERED
        return True

    def learn(self, page: Page, start: int, end: int, now_s: float) -> None:
        """`page[start:end]` is good. When it is a whole one, see what it holds, and try to ask for less."""
        if self._state is not _State.WHOLE:
            if now_s >= self._began_s + RECHECK_S:
                self.restart()
            return
        self.whole_bytes = end - start
        if self._tried or now_s < self._began_s + PAUSE_S or self.whole_bytes < LEAST_BYTES:
            return
        names = self._names()
        self._baseline = {name: found for name in names if (found := count(page, name, start, end))}
        if self._baseline:
            self._tried = True
            self._began_s = now_s
            self._forms = [form for form in forms(self._whole, names) if form not in self._refused]
            self._next_form()

    def failed(self, reason: str) -> bool:
        """A read failed. True: that may be due to the form, ask for `path` at once; false: the endpoint has failed."""
        if self._state is _State.WHOLE:
            return False
        if self._state is _State.TRIAL:
            if reason in _LOST:
                # It may have died of the question: it is not asked that again.
                self._refused.add(self.path)
            self._unfit()
            return True
        self.restart()
        return reason not in _LOST

    def restart(self) -> None:
        """What was found out may be no longer true."""
        self._tried = False
        self._use(_State.WHOLE, self._whole)

    def _unfit(self) -> bool:
        if self._state is _State.FILTERED:
            self._forms = []
        self._next_form()
        return False

    def _next_form(self) -> None:
        if self._forms:
            self._use(_State.TRIAL, self._forms.pop(0))
        else:
            self._use(_State.WHOLE, self._whole)

    def _use(self, state: _State, path: str) -> None:
        self._state = state
        self.path = path


def forms(path: str, names: Sequence[str]) -> list[str]:
    """The ways to ask the page at `path` for `names` alone, the likeliest first."""
    place, _, query = path.partition("?")
    wanted = "&".join([*([query] if query else ()), *(f"name%5B%5D={quote(name, safe=':')}" for name in names)])
    places = (place,) if place.endswith("/") else (place, place + "/")
    return [f"{each}?{wanted}" for each in places]


def count(page: Page, name: str, start: int, end: int) -> int:
    """How many series called `name` there are in `page[start:end]`."""
    raw = name.encode()
    found = sum(page.count(b"\n" + raw + after, start, end) for after in (b"{", b" "))
    return found + any(page.startswith(raw + after, start, end) for after in (b"{", b" "))
