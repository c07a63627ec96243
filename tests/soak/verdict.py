# SPDX-License-Identifier: Apache-2.0
"""What a soak found, and whether that is good enough."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.soak.ledger import Lost
from tests.soak.watch import MIB, Watch

LONGEST_TURN_S = 0.025
"""Of processor time: the loop itself was busy, whatever else the machine does."""
LONGEST_HELD_S = 0.1
"""Of time: a blocking call, or a thread that kept the interpreter. Machines that share processors are late by less."""
MOST_GROWTH_BYTES = 3 * MIB
"""Resident memory may grow by this much in the second half, however long it is, once all that is kept is full."""
MOST_FILLING_BYTES = 24 * MIB
"""And by this much before."""
MOST_DESCRIPTORS = 10
MOST_SHOWN = 20
STARTING_S = 3.0
"""After a start the loop may be busy with it."""


@dataclass(frozen=True)
class Findings:
    """All that was seen. `left` is what was still in flight at the end."""

    seconds: float
    clients: Mapping[str, Counter[str]]
    latencies_s: Sequence[float]
    events: Sequence[str]
    explained: Counter[str]
    strange: Sequence[Lost]
    left: Mapping[str, float]
    watches: Mapping[str, Watch]
    disturbed: Callable[[str, float, float], bool]
    complaints: Mapping[str, Sequence[str]]
    failures: Sequence[str]
    exit_codes: Mapping[str, int]

    def defects(self) -> Iterator[str]:
        """Everything that must not be; nothing means that the run was good."""
        for what, count in self.left.items():
            yield f"still in flight at the end: {what} = {count:g}"
        for lost in self.strange[:MOST_SHOWN]:
            yield f"lost without a cause: {lost}"
        if len(self.strange) > MOST_SHOWN:
            yield f"lost without a cause: {len(self.strange) - MOST_SHOWN} more"
        for gateway, watch in self.watches.items():
            yield from self._of_picker(gateway, watch)
        for gateway, lines in self.complaints.items():
            bad = [line for line in lines if _level(line) not in ("warn", "warning")]
            for message, count in Counter(map(_message, bad)).most_common(MOST_SHOWN):
                yield f"the picker or Envoy of {gateway} logged {count} times: {message}"
        for failure in self.failures:
            yield f"the soak itself failed: {failure}"
        for gateway, code in self.exit_codes.items():
            if code:
                yield f"the picker of {gateway} ended with exit code {code}"

    def _of_picker(self, gateway: str, watch: Watch) -> Iterator[str]:
        (filling, full), descriptors = watch.growth_bytes(self.seconds), watch.descriptor_growth(self.seconds)
        if full > MOST_GROWTH_BYTES or filling > MOST_FILLING_BYTES:
            grown = f"{filling / MIB:.1f} MiB while it filled and {full / MIB:.1f} MiB after that"
            yield f"memory of {gateway} grew in the second half by {grown}"
        if descriptors > MOST_DESCRIPTORS:
            yield f"{gateway} had {descriptors:.0f} more descriptors at the end of the second half"
        for busy_s, held_s, at_s in self._turns(gateway, watch):
            if busy_s >= LONGEST_TURN_S:
                yield f"the loop of {gateway} was busy for {busy_s * 1e3:.0f} ms before {at_s:.1f} s"
            elif held_s >= LONGEST_HELD_S:
                yield f"the loop of {gateway} was held for {held_s * 1e3:.0f} ms before {at_s:.1f} s"

    def _turns(self, gateway: str, watch: Watch) -> Iterator[tuple[float, float, float]]:
        """The loop's longest turns between two readings, without those of a start or a SIGSTOP."""
        for before, reading in zip(watch.readings, watch.readings[1:], strict=False):
            if not self.disturbed(gateway, before.at_s - STARTING_S, reading.at_s):
                yield reading.busy_s, reading.held_s, reading.at_s

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.seconds:g} s, {len(self.events)} events: {_counted(Counter(self.events))}"
        for gateway, counts in self.clients.items():
            yield f"clients of {gateway}: {_counted(counts)}"
        if self.latencies_s:
            points = [self.latencies_s[int((len(self.latencies_s) - 1) * q)] for q in (0.5, 0.99, 1.0)]
            yield "latency p50 {:.0f} ms, p99 {:.0f} ms, max {:.0f} ms".format(*(point * 1e3 for point in points))
        yield f"lost, by cause: {_counted(self.explained) or 'none'}; without a cause: {len(self.strange)}"
        for gateway, watch in self.watches.items():
            turns = list(self._turns(gateway, watch))
            second = watch.second_half(self.seconds)
            resident = second[-1].resident_bytes / MIB if second else 0.0
            filling, full = watch.growth_bytes(self.seconds)
            yield (
                f"picker {gateway}: resident {resident:.1f} MiB, growth in the second half {filling / MIB:+.2f} MiB "
                f"while it filled, {full / MIB:+.2f} MiB after that, descriptors "
                f"{watch.descriptor_growth(self.seconds):+.1f}; longest turn: busy "
                f"{max((t[0] for t in turns), default=0) * 1e3:.1f} ms, held "
                f"{max((t[1] for t in turns), default=0) * 1e3:.1f} ms; warnings {len(self.complaints[gateway])}"
            )
        warnings = Counter(_message(line) for lines in self.complaints.values() for line in lines)
        for message, count in warnings.most_common(MOST_SHOWN // 2):
            yield f"logged {count} times: {message}"
        defects = list(self.defects())
        yield from defects
        yield f"verdict: {'FAILED, ' + str(len(defects)) + ' defects' if defects else 'good'}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _level(line: str) -> str:
    try:
        return str(json.loads(line)["level"])
    except (ValueError, KeyError, TypeError):
        return "unreadable"


def _message(line: str) -> str:
    """What is said, without the numbers in it, so that lines about the same thing are the same."""
    try:
        record = json.loads(line)
        line = f"{record['level']} {record['msg']} {record.get('error', '')}"
    except (ValueError, KeyError, TypeError):
        pass
    return re.sub(r"[0-9]+", "#", line)[:300]
