# SPDX-License-Identifier: Apache-2.0
"""What a fuzz target is, and how its input is cut up and mutated.

A target is a function of bytes that returns, or raises when an invariant is broken. Its input is one byte string, so
that any engine can drive it; `Input` takes choices and pieces from it. `apply` mutates by a list of edits, so that one
set of edits serves a seeded random runner and hypothesis, which makes failing lists shorter.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Run = Callable[[bytes], None]

MOST_BYTES = 64 * 1024
"""Inputs do not grow beyond this; sizes that matter are tried by `test_bounds`."""


@dataclass(frozen=True, slots=True)
class Target:
    """* make: builds what the target needs once, and returns the function of bytes
    * seeds: well-formed inputs, made in code; words: byte strings that mean something to the code under test
    """

    name: str
    make: Callable[[], Run]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """One mutation. `at` and `other` are places and lengths as shares of 65,536; `payload` is what is put in."""

    kind: int
    at: int
    other: int
    payload: bytes


KINDS = 8


def apply(data: bytes, edits: Sequence[Edit]) -> bytes:
    """`data` after `edits`, in order."""
    for edit in edits:
        at = edit.at * (len(data) + 1) >> 16
        length = 1 + (edit.other * max(1, len(data) - at) >> 16)
        stop = min(len(data), at + length)
        near = min(len(data), at + 1 + edit.other % 8)
        if edit.kind == 0:
            data = data[:at] + edit.payload + data[at:]
        elif edit.kind == 1:
            data = data[:at] + edit.payload + data[at + len(edit.payload) :]
        elif edit.kind == 2:
            data = data[:at] + data[stop:]
        elif edit.kind == 3:
            data = data[:at] + data[near:]
        elif edit.kind == 4:
            data = data[:at] + data[at:stop] * 2 + data[stop:]
        elif edit.kind == 5:
            data = data[:at] + bytes([data[at] ^ 1 << edit.other % 8]) + data[at + 1 :] if at < len(data) else data
        elif edit.kind == 6:
            data = data[:at] + data[at:near] * (1 + edit.other % 300) + data[near:]
        else:
            data = data[:at]
        data = data[:MOST_BYTES]
    return data


def random_edits(rng: random.Random, words: Sequence[bytes]) -> list[Edit]:
    """A few edits; more of them are rarer."""
    edits = []
    while True:
        payload = rng.choice(words) if words and rng.random() < 0.6 else rng.randbytes(rng.choice((1, 1, 2, 4, 9)))
        # Cutting off the rest says little and would be chosen too often.
        kind = rng.choice((0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7)) if rng.random() < 0.9 else rng.randrange(KINDS)
        edits.append(Edit(kind, rng.randrange(65536), rng.randrange(65536), payload))
        if rng.random() < 0.4 or len(edits) == 12:
            return edits


class Input:
    """Takes an input apart, from its front; what is missing is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        return (self.take(1) or b"\0")[0]

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        part = self._data[self._at : self._at + size]
        self._at += len(part)
        return part

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data))

    def cuts(self) -> list[int]:
        """Places where the rest shall be cut: a number of places up to 15, then two bytes each."""
        return sorted(int.from_bytes(self.take(2), "big") for _ in range(self.byte() & 15))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """(kind, bytes) for as long as there are: a byte, two bytes of length, the bytes."""
        while self:
            kind = self.byte()
            yield kind, self.take(int.from_bytes(self.take(2), "big"))


def with_cuts(data: bytes, *places: int) -> bytes:
    """A seed for `Input.cuts` and `Input.rest`."""
    return bytes([len(places)]) + b"".join(place.to_bytes(2, "big") for place in places) + data


def record(kind: int, data: bytes = b"") -> bytes:
    """A seed's part for `Input.records`."""
    return bytes([kind]) + len(data).to_bytes(2, "big") + data


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at `cuts`, which are in order."""
    edges = [0, *(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record


@contextlib.contextmanager
def no_error_logged() -> Iterator[None]:
    """Fails when something is logged at error level by `epp` or asyncio; other lines go nowhere."""
    handler = _Errors()
    loggers = [logging.getLogger("epp"), logging.getLogger("asyncio")]
    kept = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
    if handler.first is not None:
        cause = handler.first.exc_info[1] if handler.first.exc_info else None
        raise AssertionError(f"logged as an error: {handler.first.getMessage()}") from cause


def one_line(error: BaseException, most: int = 4096) -> None:
    """Fails when the text of an error is not one printable line of bearable length."""
    text = str(error)
    assert text, "an error without text"
    assert "\n" not in text, f"more than one line: {text[:200]!r}"
    assert "\r" not in text, f"more than one line: {text[:200]!r}"
    assert len(text) <= most, f"a message of {len(text)} characters: {text[:200]!r}"
    text.encode()
