# SPDX-License-Identifier: Apache-2.0
"""What `epp up` tells: how far the start is, each request and the reason for its pod, totals; the same as JSON."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from epp.local.client import USER_HEADERS, Outcome
from epp.local.decisions import Handled
from epp.local.few import Few, Later, on_loop
from epp.local.outlet import Outlet
from epp.local.scenario import CHAT_PATH, TUTORIAL_BODY

_PATIENCE_S = 1.0


class Printer:
    """Writes to people. A progress line is rewritten in place on a terminal, and written once elsewhere.

    When nobody reads, what is written is lost and nothing else happens; see `Outlet`.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = Outlet(out)
        self._in_place = out.isatty()
        self._width = 0

    def progress(self, text: str) -> None:
        """The present state of something that goes on."""
        if self._in_place:
            self._out.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._out.write(text + "\n")

    def line(self, text: str = "") -> None:
        """One line; ends a progress line first."""
        self._out.write(("\n" if self._width else "") + text + "\n")
        self._width = 0

    def close(self) -> None:
        """The last line was written; wait a moment for who reads them."""
        self._out.close(_PATIENCE_S)


def request_lines(number: int, outcome: Outcome) -> list[str]:
    """What was asked and how it was answered; below it the pod, and why that one."""
    tokens = f"{outcome.cached_tokens}/{outcome.prompt_tokens} prompt tokens cached" if outcome.ok else outcome.error
    head = f"{number:3d}  {outcome.ask.title:<46} {outcome.status or '---'} {outcome.latency_ms:7.0f} ms  {tokens}"
    return [head, f"     -> {reason(outcome.pod, outcome.handled)}"]


def reason(pod: str, handled: Handled | None) -> str:
    """The pod, and why it was chosen, in one line."""
    if handled is None:
        return f"{pod}: the picker's log does not say why" if pod else "no pod"
    return handled.why or handled.pod


def curl(url: str) -> str:
    """The tutorial's request, ready to paste."""
    headers = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in USER_HEADERS.items())
    return f"curl -s {headers} -d {shlex.quote(json.dumps(TUTORIAL_BODY))} {url}{CHAT_PATH}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Totals in one line."""
    totals, ratio = _totals(outcomes), _hit_ratio(outcomes)
    hits = "" if ratio is None else f"; {ratio:.0%} of the prompt tokens came from a cache"
    pods = ", ".join(f"{pod} {count}" for pod, count in totals["by_pod"].items())
    count = totals["requests"]
    return f"{count} request{'' if count == 1 else 's'}, {totals['failed']} failed; by pod: {pods or 'none'}{hits}"


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The whole run as plain values. `hit_ratio` is cached by all prompt tokens, null when no prompt was counted."""
    return {
        "requests": [_request(outcome) for outcome in outcomes],
        "totals": _totals(outcomes),
        "hit_ratio": _hit_ratio(outcomes),
    }


def _request(outcome: Outcome) -> dict[str, Any]:
    handled = outcome.handled
    return {
        "title": outcome.ask.title,
        "path": outcome.ask.path,
        "stream": outcome.ask.stream,
        "request_id": outcome.request_id,
        "pod": outcome.pod,
        "status": outcome.status,
        "latency_ms": round(outcome.latency_ms, 3),
        "first_byte_ms": None if outcome.first_byte_ms is None else round(outcome.first_byte_ms, 3),
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "completion_tokens": outcome.completion_tokens,
        "error": outcome.error or None,
        "why": handled.why if handled is not None else None,
        "decision": handled.decision if handled is not None else None,
    }


def _totals(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    ok = [outcome for outcome in outcomes if outcome.ok]
    return {
        "requests": len(outcomes),
        "ok": len(ok),
        "failed": len(outcomes) - len(ok),
        "by_pod": dict(sorted(Counter(outcome.pod for outcome in outcomes if outcome.pod).items())),
        "prompt_tokens": sum(outcome.prompt_tokens for outcome in ok),
        "cached_tokens": sum(outcome.cached_tokens for outcome in ok),
        "completion_tokens": sum(outcome.completion_tokens for outcome in ok),
    }


def _hit_ratio(outcomes: Sequence[Outcome]) -> float | None:
    totals = _totals(outcomes)
    return round(totals["cached_tokens"] / totals["prompt_tokens"], 6) if totals["prompt_tokens"] else None


class Follow:
    """Shows what others ask while the stack is up, under load only a few."""

    def __init__(self, printer: Printer, clock: Callable[[], float] = time.monotonic, later: Later = on_loop) -> None:
        self._few = Few(printer.line, clock, later)

    def handled(self, handled: Handled) -> None:
        """One request that was routed."""
        self._few.line(lambda: f"  -> {reason(handled.pod, handled)}")
