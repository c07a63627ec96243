# SPDX-License-Identifier: Apache-2.0
"""What the endpoint picker says in its log: decisions by request id, and complaints worth showing.

The picker writes JSON lines. Each request it routed is one line with the message "Request handled", its
`x-request-id`, the `decision` (see `epp.contract.decision`) and `why`, the same in one line of text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_LOUD_LEVELS = ("error", "fatal", "panic", "dpanic")


@dataclass(frozen=True, slots=True)
class Handled:
    """One routed request. `pod` is the endpoint's name, `""` when the line does not tell."""

    request_id: str
    pod: str
    why: str
    decision: dict[str, Any]


class DecisionLog:
    """Reads the picker's log lines. `on_other` gets what was routed and that nobody of us waits for."""

    def __init__(self, on_other: Callable[[Handled], None], on_complaint: Callable[[str], None]) -> None:
        self._on_other = on_other
        self._on_complaint = on_complaint
        self._expected: dict[str, asyncio.Future[Handled]] = {}

    def line(self, text: str) -> None:
        """One line of the picker's output."""
        entry = parse(text)
        if entry is None:
            return
        handled = read_handled(entry)
        if handled is not None:
            self._handled(handled)
        elif str(entry.get("level", "")).lower() in _LOUD_LEVELS:
            self._on_complaint(message(entry))

    def expect(self, request_id: str) -> None:
        """Say that a request with this id is about to be sent."""
        self._expected[request_id] = asyncio.get_running_loop().create_future()

    async def take(self, request_id: str, timeout_s: float) -> Handled | None:
        """The decision for an expected request, None when the log does not tell it in time."""
        future = self._expected[request_id]
        await asyncio.wait([future], timeout=timeout_s)
        del self._expected[request_id]
        return future.result() if future.done() else None

    def _handled(self, handled: Handled) -> None:
        future = self._expected.get(handled.request_id)
        if future is None:
            self._on_other(handled)
        elif not future.done():
            future.set_result(handled)


def parse(text: str) -> dict[str, Any] | None:
    """A JSON object, or None for any other line."""
    if not text.startswith("{"):
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def read_handled(entry: dict[str, Any]) -> Handled | None:
    """The decision a log entry tells of, None for other entries."""
    if entry.get("msg") != "Request handled":
        return None
    decision = entry.get("decision")
    name = str(entry.get("endpoint", "")).partition("NamespacedName:")[2].partition(" ")[0]
    return Handled(
        request_id=str(entry.get("x-request-id", "")),
        pod=name.rpartition("/")[2],
        why=str(entry.get("why", "")),
        decision=decision if isinstance(decision, dict) else {},
    )


def message(entry: dict[str, Any]) -> str:
    """What a log entry says, with its error."""
    text, error = str(entry.get("msg", "")), str(entry.get("error", ""))
    return f"{text}: {error}" if error and error not in text else text


def complaint(line: str, *, warnings: bool = False) -> str | None:
    """What a line of output complains of: its message where it is an error (or a warning, if wished), or where it is
    no JSON line and says so."""
    entry = parse(line)
    if entry is None:
        return line.strip() if "error" in line.lower() else None
    level = str(entry.get("level", "")).lower()
    return message(entry) if level in _LOUD_LEVELS or (warnings and level in ("warn", "warning")) else None


def readable(line: str) -> str:
    """A line of output for people: of a JSON line its level and message."""
    entry = parse(line)
    return line.strip() if entry is None else f"{entry.get('level', '')}: {message(entry)}"


def last_words(lines: Sequence[str]) -> str:
    """The most telling of a program's last lines: its last error or plain line, else the last."""
    told = [line for line in lines if line.strip()]
    for line in reversed(told):
        entry = parse(line)
        if entry is None:
            return line.strip()
        if str(entry.get("level", "")).lower() in _LOUD_LEVELS:
            return message(entry)
    return readable(told[-1]) if told else "it said nothing"
