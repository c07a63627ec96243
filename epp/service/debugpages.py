# SPDX-License-Identifier: Apache-2.0
"""`/debug/decisions` on the metrics port: the last decisions as JSON, for `epp explain` and for people.

    request_id=ID   the decisions for this request, the newest first (retries may share an id)
    limit=N         so many of the last ones; 1..1000, 20 when not given
    since_s=S       only those of the last S seconds
    full=1          with every candidate, not only the winner and the runner-up
    pool=NS/NAME    only those of one pool, where many are served

The page is made in a thread of the admin server. Between two decisions it sleeps for a moment, which hands the
interpreter to the event loop: a request is held up by the making of one decision's text, never by that of the page.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

from epp.admin.pages import Answer
from epp.contract.endpoints import Clock
from epp.observe.decision.record import VERSION, Record
from epp.observe.log.logs import encode_json

PATH = "/debug/decisions"
MOST_DECISIONS = 1_000
FEW_DECISIONS = 20
MOST_BYTES = 8 << 20
"""No page is longer than this and one decision."""

_PAUSE_S = 0.0002
_TELLING_S = 0.03
"""A decision is in the ring within this time."""
_SWITCH = {"0": False, "false": False, "": True, "1": True, "true": True}


class Decisions(Protocol):
    """Records that are kept: a `DecisionRing`, or those of many."""

    @property
    def added(self) -> int:
        """How many there ever were."""
        ...

    def __len__(self) -> int: ...

    def last(self, count: int) -> list[Record]:
        """Up to `count`, the newest first."""
        ...

    def find(self, request_id: str, count: int) -> list[Record]:
        """Up to `count` for `request_id`, the newest first."""
        ...


class DecisionsPage:
    """The page. `pause` sleeps for seconds; `clock` is the one of the records, `wall` Unix time; `of_pool` gives the
    records of one pool, None for a stranger."""

    def __init__(
        self,
        ring: Decisions,
        clock: Clock,
        wall: Clock = time.time,
        pause: Callable[[float], None] = time.sleep,
        of_pool: Callable[[str], Decisions | None] | None = None,
    ) -> None:
        self._ring = ring
        self._of_pool = of_pool
        self._clock = clock
        self._wall = wall
        self._pause = pause

    def __call__(self, query: str) -> Answer:
        """The answer to a GET with this query."""
        try:
            wanted = _wanted(query, () if self._of_pool is None else ("pool",))
        except ValueError as error:
            return _line("400 Bad Request", str(error))
        ring = self._ring if self._of_pool is None or wanted.pool is None else self._of_pool(wanted.pool)
        if ring is None:
            return _line("404 Not Found", f"no pool {wanted.pool!r} is served; a name is NAMESPACE/NAME")
        records = self._find(ring, wanted)
        if not records and wanted.request_id is not None:
            held = len(ring)
            return _line(
                "404 Not Found", f"no decision for request id {wanted.request_id!r} among the last {held} that are kept"
            )
        return Answer("200 OK", "application/json", self._document(ring, records, wanted.full))

    def _find(self, ring: Decisions, wanted: _Wanted) -> list[Record]:
        if wanted.request_id is None:
            records = ring.last(wanted.limit)
        else:
            records = ring.find(wanted.request_id, wanted.limit)
            if not records:
                self._pause(_TELLING_S)
                records = ring.find(wanted.request_id, wanted.limit)
        if wanted.since_s is None:
            return records
        earliest_s = self._clock() - wanted.since_s
        return [record for record in records if record.decision.at_s >= earliest_s]

    def _document(self, ring: Decisions, records: list[Record], full: bool) -> bytes:
        now_s, wall_s = self._clock(), self._wall()
        texts: list[bytes] = []
        size = 0
        for record in records:
            texts.append(encode_json(record.as_dict(now_s, wall_s, full)).rstrip(b"\n"))
            size += len(texts[-1])
            if size > MOST_BYTES:
                break
            self._pause(_PAUSE_S)
        head = b'{"version":%d,"kept":%d,"made":%d,"truncated":%s,"decisions":[' % (
            VERSION, len(ring), ring.added, b"true" if len(texts) < len(records) else b"false",
        )  # fmt: skip
        return head + b",\n".join(texts) + b"]}\n"


class _Wanted(NamedTuple):
    request_id: str | None
    limit: int
    since_s: float | None
    full: bool
    pool: str | None


def _wanted(query: str, more: tuple[str, ...]) -> _Wanted:
    """Raises ValueError with the line to answer. `more` parameters are known besides the usual ones."""
    known = ("request_id", "limit", "since_s", "full", *more)
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{PATH} knows no parameter {unknown[0]!r}; it knows {', '.join(known)}")
    limit, since, full = given.get("limit"), given.get("since_s"), given.get("full", "0")
    if limit is not None and not (
        limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MOST_DECISIONS
    ):
        raise ValueError(f"limit={limit!r} must be a whole number from 1 to {MOST_DECISIONS}")
    if full not in _SWITCH:
        raise ValueError(f"full={full!r} must be 0 or 1")
    return _Wanted(
        request_id=given.get("request_id"),
        limit=FEW_DECISIONS if limit is None else int(limit),
        since_s=None if since is None else _seconds(since),
        full=_SWITCH[full],
        pool=given.get("pool"),
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ValueError(f"since_s={text!r} must be a number of seconds of at least 0")
    return seconds


def _line(status: str, line: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{line}\n".encode("utf-8", "backslashreplace"))
