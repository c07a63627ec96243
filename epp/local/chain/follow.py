# SPDX-License-Identifier: Apache-2.0
"""Requests as they come, from Envoy's access log: who asked which model, what it cost, what the limit says.

Under load only a few a second are shown, more of those that failed, and how many were not. Lines that are no entries
are Envoy's own complaints.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from epp.local.chain.failures import client_left, failure, flags
from epp.local.chain.left import Watched, left_words, over_words
from epp.local.decisions import parse
from epp.local.few import Few, Later, on_loop

_SHOWN = 80
_LONGEST = 400
_MOST_EARLY = 1000
_PATIENCE_S = 1.0
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Follow:
    """Silent until `begin`. `say` gets one line at a time; `only_watched`: limits that refuse nobody; `names`: of
    servers, by their addresses."""

    def __init__(
        self,
        say: Callable[[str], None],
        clock: Callable[[], float],
        only_watched: Watched = frozenset(),
        names: Mapping[str, str] = _NO_NAMES,
        later: Later = on_loop,
    ) -> None:
        self._say = say
        self._few = Few(say, clock, later)
        self._only_watched = only_watched
        self._names = names
        self._on = False
        self._told: set[str] = set()
        self._early: dict[str, dict[str, Any]] = {}
        self._came = asyncio.Event()

    def begin(self) -> None:
        """From now on, show."""
        self._early.clear()
        self._on = True

    def told(self, request_id: str) -> None:
        """This request was shown in another way; its entry may come a little later."""
        self._told.add(request_id)

    async def why(self, request_id: str) -> str:
        """What was wrong with a request that failed before `begin`; "" when Envoy does not tell it soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while request_id not in self._early:
                    self._came.clear()
                    await self._came.wait()
        entry = self._early.pop(request_id, None)
        return "" if entry is None else failure(_Values(entry), charged=bool(entry.get("costs")))

    def envoy_line(self, text: str) -> None:
        """One line that Envoy wrote."""
        entry = _entry(text)
        if not self._on:
            if entry is not None and _loud(entry) and len(self._early) < _MOST_EARLY:
                self._early[str(entry.get("request_id"))] = entry
                self._came.set()
            return
        if entry is None:
            if "][error]" in text or "][critical]" in text:
                self._say(f"  Envoy: {text}")
            return
        if entry.get("request_id") in self._told:
            self._told.discard(entry["request_id"])
            return
        self._few.line(lambda: request_line(entry, self._only_watched, self._names), loud=_loud(entry))


def _entry(text: str) -> dict[str, Any] | None:
    entry = parse(text)
    return entry if entry is not None and "status" in entry else None


def _loud(entry: dict[str, Any]) -> bool:
    """Somebody may wonder about it: refused for a limit, failed, or its client left."""
    status = entry["status"]
    return status == 429 or not isinstance(status, int) or not 200 <= status < 500 or client_left(_Values(entry))


class _Values:
    """Fields of an entry. Clients and servers choose some: nothing of them may reach a terminal as a command."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self._entry = entry

    def __call__(self, name: str) -> str:
        found = self._entry.get(name)
        if found in (None, "-"):
            return ""
        return "".join(letter if letter.isprintable() else "?" for letter in str(found)[:_LONGEST])


def request_line(
    entry: dict[str, Any], only_watched: Watched = frozenset(), names: Mapping[str, str] = _NO_NAMES
) -> str:
    """One request that is over, in one line."""
    value, costs = _Values(entry), entry.get("costs")
    over = "RL" in flags(value)
    limit = value("limit")
    wrong = "" if over else failure(value, charged=bool(costs))
    upstream = value("upstream")
    by = value("pod") or names.get(upstream, upstream)
    parts = [
        wrong,
        _costs(costs) if isinstance(costs, dict) else "",
        over_words(limit, value("reset"), only_watched)
        if over
        else left_words(limit, value("remaining"), only_watched),
        f"by {by}" if by and (not upstream or upstream not in wrong) else "",
    ]
    who = value("user")[:_SHOWN] or "(no user)"
    what = value("model")[:_SHOWN] or f"{value('method')} {value('path')[:_SHOWN]}"
    status = "---" if value("status") == "0" else value("status")
    said = ", ".join(part for part in parts if part)
    return f"  -> {who}  {what}  {status} {value('duration_ms'):>6} ms  {said}".rstrip()


def _costs(costs: dict[str, Any]) -> str:
    """What was booked, by metadata key; the usual ones without what they have in common."""
    short = {name.removeprefix("llm_").removesuffix("_token"): amount for name, amount in costs.items()}
    named = short if len(short) == len(costs) else costs
    return "tokens: " + ", ".join(f"{name} {amount:g}" for name, amount in named.items()) if named else ""
