# SPDX-License-Identifier: Apache-2.0
"""Requests as they come, from Envoy's access log: who asked which model, what it cost, what the limit says.

Under load only a few a second are shown, and how many were not. Lines that are no entries are Envoy's own complaints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epp.local.decisions import parse
from epp.local.report import Few

_SHOWN = 80


class Follow:
    """Silent until `begin`. `say` gets one line at a time."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._few = Few(say, clock)
        self._on = False
        self._told: set[str] = set()

    def begin(self) -> None:
        """From now on, show."""
        self._on = True

    def told(self, request_id: str) -> None:
        """This request was shown in another way; its entry may come a little later."""
        self._told.add(request_id)

    def envoy_line(self, text: str) -> None:
        """One line that Envoy wrote."""
        if not self._on:
            return
        entry = _entry(text)
        if entry is None:
            if "][error]" in text or "][critical]" in text:
                self._say(f"  Envoy: {text}")
            return
        if entry.get("request_id") in self._told:
            self._told.discard(entry["request_id"])
            return
        self._few.line(lambda: request_line(entry))


def _entry(text: str) -> dict[str, Any] | None:
    entry = parse(text)
    return entry if entry is not None and "status" in entry else None


def request_line(entry: dict[str, Any]) -> str:
    """One request that is over, in one line."""

    def value(name: str) -> str:
        found = entry.get(name)
        # Clients choose some of these: nothing of them may reach a terminal as a command.
        text = "".join(letter if letter.isprintable() else "?" for letter in str(found)[:_SHOWN])
        return "" if found in (None, "-") else text

    costs = entry.get("costs")
    limit, over = value("limit").partition(",")[0], value("status") == "429" and bool(value("limit"))
    left = f"{value('remaining')} of {limit} were left before it" if value("remaining") else ""
    parts = [
        _costs(costs) if isinstance(costs, dict) else "",
        f"over the limit of {limit}, again in {value('reset')} s" if over else left,
        f"by {value('pod')}" if value("pod") else "",
        "" if over else value("flags"),
    ]
    who = value("user") or "(no user)"
    what = value("model") or f"{value('method')} {value('path')}"
    said = ", ".join(part for part in parts if part)
    return f"  -> {who}  {what}  {value('status')} {value('duration_ms'):>6} ms  {said}".rstrip()


def _costs(costs: dict[str, Any]) -> str:
    """What was booked, by metadata key; the usual ones without what they have in common."""
    short = {name.removeprefix("llm_").removesuffix("_token"): amount for name, amount in costs.items()}
    named = short if len(short) == len(costs) else costs
    return "tokens: " + ", ".join(f"{name} {amount:g}" for name, amount in named.items()) if named else ""
