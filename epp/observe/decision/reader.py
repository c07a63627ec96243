# SPDX-License-Identifier: Apache-2.0
"""Reads decision logs back, for people who study routing:

    from epp.observe.decision.reader import read_decisions

    for one in read_decisions("decisions.jsonl"):
        profile = one.profile
        if profile.best() != profile.picked[0]:
            print(one.id, one.endpoints[profile.endpoints[profile.picked[0]]])

Arrays of candidates are lists in the order of `endpoints`; None stands for an age of what was never heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from epp.contract.endpoints import FloatArray
from epp.contract.errors import EppError
from epp.observe.decision.line import VERSION
from epp.observe.decision.rotation import numbered

Values = list[float | None]

_START = b'{"v":'
"""How every line of a decision log begins."""


class LoggedFilter(msgspec.Struct, frozen=True):
    """`dropped` of `before` candidates fell; `endpoints` are those of them that the line names, by position."""

    name: str
    before: int
    dropped: int
    endpoints: list[int]


class LoggedScorer(msgspec.Struct, frozen=True):
    """`raw` is by position in the profile's `endpoints`; `error` says why the scorer abstained."""

    name: str
    weight: float
    raw: list[float]
    error: str | None = None


class LoggedProfile(msgspec.Struct, frozen=True):
    """One profile's run. `endpoints` are positions in the decision's; `picked` and the values are by position here."""

    name: str
    endpoints: list[int]
    omitted: int
    filters: list[LoggedFilter]
    scorers: list[LoggedScorer]
    total: list[float]
    picked: list[int]

    def totals(self) -> FloatArray:
        """The totals, computed again from the raw scores: the sum of weight times the score limited to 0..1."""
        totals = np.zeros(len(self.endpoints))
        for scorer in self.scorers:
            totals += np.minimum(np.maximum(np.array(scorer.raw), 0.0), 1.0) * scorer.weight
        return totals

    def best(self) -> int:
        """The position with the highest total; the first of several."""
        return int(np.argmax(self.totals()))


class LoggedUsage(msgspec.Struct, frozen=True):
    """Tokens as the endpoint counted them, as `epp.contract.requests.Usage`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_tokens_apart: int | None = None


class LoggedOutcome(msgspec.Struct, frozen=True):
    """How it ended; see `told_by` for whose word that is."""

    state: str
    duration_s: float
    cause: str = ""
    status: int | None = None
    reached_endpoint: bool = False
    first_byte_s: float | None = None
    response_bytes: int = 0
    usage: LoggedUsage | None = None
    told_by: str = ""


class PromptHashes(msgspec.Struct, frozen=True):
    """Chains of keyed hashes, one for each prompt: comparable within one `run`."""

    block_tokens: int
    prompts: list[list[int]]


class LoggedDecision(msgspec.Struct, frozen=True):
    """One line. Times are Unix seconds; docs/explain.md tells every field."""

    v: int
    run: str
    number: int
    id: str
    received_s: float
    decided_s: float
    scheduling_s: float
    model: str
    target_model: str
    priority: int
    stream: bool
    body_bytes: int
    prompt_tokens: int
    max_output_tokens: int | None
    candidates: int
    endpoints: list[str]
    addresses: list[str]
    signals: dict[str, Values]
    age_s: dict[str, Values]
    primary: str
    profiles: list[LoggedProfile]
    charged_tokens: float
    outcome: LoggedOutcome
    prompt_hashes: PromptHashes | None = None
    pool: str = ""

    @property
    def profile(self) -> LoggedProfile:
        """The primary profile's run."""
        return next(profile for profile in self.profiles if profile.name == self.primary)

    @property
    def chosen(self) -> int:
        """Position in `endpoints` of the one that was chosen."""
        return self.profile.endpoints[self.profile.picked[0]]


class LogError(EppError):
    """A decision log cannot be read: names the file, the line and what is wrong."""


def read_decisions(path: str | Path, *, rotated: bool = True) -> Iterator[LoggedDecision]:
    """The decisions in `path` in the order in which they ended, with `rotated` those of FILE.9, ..., FILE.1 before it.

    Raises `LogError`, also for a file whose first line is none of a decision log. A line that a crash cut short is
    passed over.
    """
    current = Path(path)
    files = [current]
    while rotated and numbered(current, len(files)).exists():
        files.append(numbered(current, len(files)))
    decoder = msgspec.json.Decoder(LoggedDecision)
    for file in reversed(files):
        try:
            with file.open("rb") as lines:
                yield from _read(decoder, file, lines)
        except OSError as error:
            raise LogError(f"{file} cannot be read: {error.strerror or error}") from None


def _read(
    decoder: msgspec.json.Decoder[LoggedDecision], file: Path, lines: Iterator[bytes]
) -> Iterator[LoggedDecision]:
    first = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            decision = decoder.decode(line)
        except msgspec.ValidationError as error:
            raise LogError(f"{file}:{number} is no decision: {error}") from None
        except msgspec.DecodeError:
            if first and not _cut_short(line):
                raise LogError(
                    f"{file}:{number} is no decision; expected one JSON object in each line, as --decision-log writes"
                ) from None
            continue
        finally:
            first = False
        if decision.v != VERSION:
            raise LogError(f"{file}:{number} is of version {decision.v}; this reader knows {VERSION}")
        yield decision


def _cut_short(line: bytes) -> bool:
    """Whether `line` may be the beginning of a decision."""
    return line.startswith(_START) or _START.startswith(line)
