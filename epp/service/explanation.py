# SPDX-License-Identifier: Apache-2.0
"""A decision record, as `/debug/decisions?full=1` gives it, in plain words for a terminal of 80 columns.

Names and models come from clients and files, so nothing that is not printable reaches the terminal.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 80
ROWS = 12
"""Candidates shown of each profile."""
_NAME_WIDTH = 26
_SCORE_WIDTH = 14
_STALE_S = 2.0
"""A signal older than this is worth a line of its own."""
_SIGNALS = (
    ("waiting", "waiting", 8), ("running", "running", 8), ("kv_utilization", "kv", 7),
    ("in_flight_requests", "sent", 6), ("in_flight_tokens", "tokens", 9),
)  # fmt: skip
_CAUSES = {
    "natural": "it ended",
    "client-disconnect": "the client or Envoy went away",
    "evicted": "it was evicted",
    "error": "it failed between Envoy and the picker",
    "unknown": "nobody saw its end",
}
_TOLD = {
    "response": "the response, which passed by",
    "stream": "Envoy, which ended the stream",
    "log": "Envoy's access log",
    "estimate": "an estimate",
    "reconciliation": "the endpoint's count of requests",
    "backstop": "the longest time it may take",
    "removal": "the endpoint's removal",
    "overflow": "the table of open requests being full",
}

Fields = Mapping[str, Any]


def explain(record: Fields, rows: int | None = ROWS) -> str:
    """The explanation, several lines, each at most `WIDTH` wide; `rows` None shows every candidate there is."""
    lines = [*_head(record), ""]
    for profile in record["profiles"]:
        lines += [*_profile(profile, profile["profile"] == record["primary"], rows), ""]
    lines += _paragraph(_charged(record["charged"]))
    lines += _paragraph(_timing(record["timing"]))
    lines += _paragraph(_outcome(record["outcome"]))
    return "\n".join(_printable(line) for line in lines) + "\n"


def _head(record: Fields) -> Iterator[str]:
    asked = record["request"]
    unix_s = record["unix_s"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_s))
    yield f"request {record['request_id']}"
    yield f"  {when}.{int(unix_s % 1 * 1000):03d} UTC, {seconds(record['age_s'])} ago"
    model = record["model"] or "(not known)"
    if record["target_model"] != record["model"]:
        model += f", sent as {record['target_model']}"
    yield from textwrap.wrap(f"model {model}", WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    limit = asked["max_output_tokens"]
    at_most = "" if limit is None else f", at most {limit} output tokens"
    streamed = ", streamed" if asked["stream"] else ""
    yield f"  about {asked['prompt_tokens']} prompt tokens{at_most}{streamed}, priority {asked['priority']}"
    yield f"sent to {record['endpoint']} at {record['address']}"


def _profile(profile: Fields, primary: bool, rows: int | None) -> Iterator[str]:
    count = profile["candidates"]
    winner, second = profile["picked"], profile.get("runner_up")
    role = "" if primary else " (not the one that decides the destination)"
    yield f"profile {profile['profile']}{role}: {_many(count, 'candidate')}"
    for dropped in profile.get("filters", ()):
        yield from _filter(dropped)
    if not profile["scorers"]:
        text = f"{winner['endpoint']} was picked; there is no scorer"
    elif second is None:
        text = f"{winner['endpoint']} was the only one left, with {number(winner['total'])}"
    elif profile["margin"] > 0:
        text = (
            f"{winner['endpoint']} had the most, {number(winner['total'])}; runner-up {second['endpoint']} "
            f"had {number(second['total'])}: {number(profile['margin'])} less"
        )
    elif profile["margin"] == 0:
        text = f"{winner['endpoint']} and {second['endpoint']} both had {number(winner['total'])}: the picker chose"
    else:
        text = (
            f"the picker took {winner['endpoint']} although {second['endpoint']} had {number(-profile['margin'])} more"
        )
    yield from _paragraph(text)
    for name, error in profile.get("abstained", {}).items():
        yield from _paragraph(f"scorer {name} abstained: {error}")
    standings = [winner, *([second] if second else []), *profile.get("others", ())]
    shown = standings if rows is None else standings[:rows]
    if profile["scorers"]:
        yield ""
        yield from _scores(shown, profile["scorers"])
    if winner.get("signals"):
        yield ""
        yield from _known(shown)
    hidden = count - len(shown)
    if hidden:
        yield f"  and {hidden} more"
    yield from _old(shown)


def _filter(dropped: Fields) -> Iterator[str]:
    names = dropped["endpoints"]
    text = f"filter {dropped['name']} dropped {dropped['dropped']} of {dropped['before']}"
    if names:
        more = dropped["dropped"] - len(names)
        text += f": {', '.join(names)}" + (f" and {more} more" if more else "")
    yield from _paragraph(text)


def _scores(standings: Sequence[Fields], scorers: Sequence[Fields]) -> Iterator[str]:
    """Raw and weighted score of each candidate; more scorers than fit make further tables."""
    for at, scorer in enumerate(scorers):
        yield from _paragraph(f"[{at + 1}] {scorer['name']}, times {scorer['weight']:g}")
    fit = (WIDTH - _NAME_WIDTH - 10) // _SCORE_WIDTH
    for first in range(0, len(scorers), fit):
        part = list(enumerate(scorers))[first : first + fit]
        heads = "".join([f"[{at + 1}]".rjust(_SCORE_WIDTH) for at, _ in part])
        yield f"  {'score: raw / weighted':<{_NAME_WIDTH}}{'total':>8}{heads}"
        for position, standing in enumerate(standings):
            cells = "".join([_score(standing["scores"][scorer["name"]]).rjust(_SCORE_WIDTH) for _, scorer in part])
            yield f"{_mark(position)}{_short(standing['endpoint'])}{number(standing['total']):>8}{cells}"


def _score(score: Fields) -> str:
    return f"{number(score['raw'])} / {number(score['weighted'])}"


def _known(standings: Sequence[Fields]) -> Iterator[str]:
    heads = "".join([head.rjust(width) for _, head, width in _SIGNALS])
    yield f"  {'known at that moment':<{_NAME_WIDTH}}{heads}{'heard':>12}"
    for position, standing in enumerate(standings):
        signals = standing["signals"]
        never = [name for name, age in signals["age_s"].items() if age is None]
        cells = "".join(
            [_signal(name, None if name in never else signals[name]).rjust(width) for name, _, width in _SIGNALS]
        )
        ages = [age for age in signals["age_s"].values() if age is not None]
        heard = f"{seconds(min(ages))} ago" if ages else "never"
        yield f"{_mark(position)}{_short(standing['endpoint'])}{cells}{heard:>12}"


def _signal(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 100:.1f}%" if name == "kv_utilization" else f"{value:g}"


def _old(standings: Sequence[Fields]) -> Iterator[str]:
    """Signals that were old when the choice relied on them, and what a dash in the table means."""
    for standing in standings[:2]:
        ages = (standing.get("signals") or {}).get("age_s", {})
        old = [f"{name} {seconds(age)}" for name, age in ages.items() if age is not None and age > _STALE_S]
        if old:
            yield from _paragraph(f"old signals of {standing['endpoint']}: {', '.join(old)}")
    if any(None in (standing.get("signals") or {}).get("age_s", {}).values() for standing in standings):
        yield from _paragraph("-: nobody asked for it, or the endpoint's page never said it; it counts as 0")


def _charged(charged: Fields) -> str:
    text = f"charged: {_many(charged['requests'], 'request')} and {_many(charged['tokens'], 'uncached prompt token')}"
    if "in_flight_requests_before" in charged:
        text += (
            f", on top of {_many(charged['in_flight_requests_before'], 'request')} and "
            f"{_many(charged['in_flight_tokens_before'], 'token')} in flight there"
        )
    return text


def _timing(timing: Fields) -> str:
    return (
        f"took: {seconds(timing['before_scheduling_s'])} until the choice began, "
        f"{seconds(timing['scheduling_s'])} to choose and charge"
    )


def _outcome(outcome: Fields) -> str:
    if outcome["state"] != "ended":
        return f"outcome: in flight, {seconds(outcome['duration_s'])} so far"
    text = f"outcome: {_CAUSES.get(outcome['cause'], outcome['cause'])} after {seconds(outcome['duration_s'])}"
    if outcome["status"] is not None:
        text += f" with status {outcome['status']}"
    elif not outcome["reached_endpoint"]:
        text += ", no response was seen"
    if outcome["first_byte_s"] is not None:
        text += f", first byte after {seconds(outcome['first_byte_s'])}"
    if outcome["response_bytes"]:
        text += f", {outcome['response_bytes']} bytes"
    usage = outcome["usage"] or {}
    counted = [
        f"{usage[key]} {word}"
        for key, word in (
            ("prompt_tokens", "prompt tokens"), ("cached_tokens", "of them from its cache"),
            ("completion_tokens", "output tokens"),
        )
        if usage.get(key) is not None
    ]  # fmt: skip
    if counted:
        text += f"; the endpoint counted {', '.join(counted)}"
    told_by = "stream" if outcome["told_by"] == "response" and outcome["status"] is None else outcome["told_by"]
    return f"{text}; told by {_TOLD.get(told_by, told_by)}"


def seconds(value: float) -> str:
    """A length of time with three digits and a fitting unit."""
    value = abs(value)
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def number(value: float | None) -> str:
    """A score; None stands for one that is not finite."""
    return "-" if value is None else f"{value:.3f}"


def _many(count: float, word: str) -> str:
    return f"{count:g} {word}" if count == 1 else f"{count:g} {word}s"


def _mark(position: int) -> str:
    return "> " if position == 0 else "  "


def _short(name: str) -> str:
    """The end of a name tells pods of one deployment apart."""
    room = _NAME_WIDTH - 1
    return (name if len(name) <= room else f"..{name[2 - room :]}").ljust(_NAME_WIDTH)


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 2, initial_indent="  ", subsequent_indent="    ")


def _printable(line: str) -> str:
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in line])
