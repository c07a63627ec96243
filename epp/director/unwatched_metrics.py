# SPDX-License-Identifier: Apache-2.0
"""Gauges and counters of unwatched requests and of the access log, computed when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator

from epp.accesslog import LogCounts
from epp.director.unwatched import Unwatched
from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row

_HELD = Family("gauge", "Requests that go on unwatched.", (Name("epp_unwatched_requests", ()),))
_ENDS = Family(
    "counter", "Unwatched requests that ended, by what said so.", (Name("epp_unwatched_ends_total", ("source",)),)
)
_DRIFT = Family(
    "gauge",
    "Unwatched requests at an endpoint minus the requests, waiting and running, that it last said it has.",
    (Name("epp_unwatched_drift", ("endpoint",)),),
)
_STREAMS = Family("gauge", "Access log streams that are open.", (Name("epp_access_log_streams", ()),))
_ENTRIES = Family(
    "counter",
    "Access log entries, by what became of them: matched, unknown (another replica's, or known before), skipped (no "
    "end of a request); malformed counts messages.",
    (Name("epp_access_log_entries_total", ("result",)),),
)
_RESULTS = ("matched", "unknown", "skipped", "malformed")


class UnwatchedCollector(FamilyCollector):
    """Shows them from the start, so that a rate has something to begin with."""

    def __init__(self, unwatched: Unwatched) -> None:
        self._unwatched = unwatched

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """One row for each source and endpoint."""
        unwatched = self._unwatched
        yield _HELD, [({}, len(unwatched))]
        yield _ENDS, [({"source": source.value}, count) for source, count in unwatched.ends.copy().items()]
        yield _DRIFT, [({"endpoint": endpoint}, value) for endpoint, value in unwatched.drift.copy().items()]


class LogCollector(FamilyCollector):
    """Shows what became of the access log's entries."""

    def __init__(self, counts: LogCounts) -> None:
        self._counts = counts

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """One row for each result."""
        counts = self._counts
        yield _STREAMS, [({}, counts.streams)]
        yield _ENTRIES, [({"result": result}, getattr(counts, result)) for result in _RESULTS]
