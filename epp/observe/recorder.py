# SPDX-License-Identifier: Apache-2.0
"""What happens to a request, told once, and from here to the log, the metrics and the ring of decisions.

The director calls; nothing here decides anything. A request without a body (a GET) counts in no series, as in the
Go EPP. Times are seconds.

What need not be known at once (the log line, the ring, most counts) waits up to `TELL_S` and is then done for many
requests in one go: the same work costs a fraction of what it costs between two requests, as its code and data are in
the processor's caches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from epp.contract.decision import Decision
from epp.contract.endpoints import Clock, Columns
from epp.contract.errors import RequestError
from epp.contract.prefix import PrefixMatch
from epp.contract.requests import Completion, DataKey, InferenceRequest
from epp.observe.decision.file import DecisionLog
from epp.observe.decision.handled import RequestLog
from epp.observe.decision.record import Record
from epp.observe.decision.ring import DecisionRing
from epp.observe.log.limited import limited
from epp.observe.log.logs import INFO, Log
from epp.observe.metrics.counts import PrefixMetrics, Readings, RequestMetrics, registry
from epp.observe.metrics.pool import PoolCollector
from epp.observe.metrics.scraping import ScrapeFigures, ScrapingCollector
from epp.observe.metrics.series import MODEL_SERVER_ERROR, Series

__all__ = ["Record", "Recorder", "Series"]

log = logging.getLogger("epp.observe")

TELL_S = 0.02
TIMED_EVERY = 64
"""In one of so many decisions plugins are timed."""
ERROR_CHARACTERS = 500
"""Of an error's text in a line: it may quote the client's path or header."""
MOST_WAITING = 256
"""More than this are told at once, so that no turn of the loop gets long."""

Later = Callable[[float, Callable[[], None]], object]
"""An event loop's `call_later`."""


class Recorder:
    """Counts, logs and keeps. `plugin_errors` and `scrape_failures` may be set to what other rooms count, and
    `decision_log` to a file of all decisions.

    * pool: what records and lines call the pool, "" where it is the only one; pool_name: what metrics call it
    * decisions: where decisions are kept; without, a ring of the usual size

    Without `later` nothing waits.
    """

    def __init__(
        self,
        log: Log,
        columns: Callable[[], Columns],
        clock: Clock,
        *,
        pool_name: str,
        staleness_s: float,
        version: str,
        later: Later | None = None,
        pool: str = "",
        decisions: DecisionRing | None = None,
    ) -> None:
        self.metrics = RequestMetrics()
        self.decisions = DecisionRing() if decisions is None else decisions
        self.decision_log: DecisionLog | None = None
        self.time_next: Callable[[], None] | None = None
        """Asks for the timing of the plugins of one more decision."""
        self.plugin_errors: Callable[[], Mapping[str, float]] = dict
        self.scrape_failures: Callable[[], Mapping[str, float]] = dict
        self.poll_errors: Callable[[], Mapping[str, float]] = dict
        self._clock = clock
        self._later = later
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._prefix: dict[str, tuple[DataKey[PrefixMatch], PrefixMetrics]] = {}
        self._log = log.named("director")
        self._pool = pool
        self._requests = RequestLog(log, pool=pool)
        readings = Readings(
            plugin_errors=lambda: self.plugin_errors(),
            scrape_failures=lambda: self.scrape_failures(),
            poll_errors=lambda: self.poll_errors(),
            log_lines_dropped=lambda: float(log.lines_dropped),
            decision_log=lambda: self.decision_log.counts if self.decision_log is not None else None,
        )
        self.pool = PoolCollector(columns, clock, staleness_s, pool_name)
        self.scraping = ScrapingCollector(columns, clock, staleness_s, pool_name)
        self.registry = registry(self.metrics, self.pool, readings, self.scraping, build_ref=version)

    def follow_prefix(self, key: DataKey[PrefixMatch], plugin_type: str, size: Callable[[], float]) -> None:
        """Show the index of the producer that publishes under `key`; `size` gives its entries, from any thread."""
        known = self._prefix.get(key.producer)
        if known is not None:
            known[1].size = size
        else:
            self._prefix[key.producer] = (key, self.metrics.prefix_index(key.producer, plugin_type, size))

    def let_go(self) -> None:
        """Give back what is large: nobody will look at this any more. What still ends is counted."""
        self.flush()
        self.plugin_errors = self.scrape_failures = self.poll_errors = dict
        self.scraping.figures = ScrapeFigures
        self.time_next = None
        self._prefix.clear()
        self.metrics.forget_indexes()
        self.decisions.clear()

    def started(self, request: InferenceRequest) -> Series | None:
        """`request` was read; returns the series it counts in."""
        if not request.body_bytes:
            return None
        series = self.metrics.series(request.model, request.target_model, request.fairness_id, request.priority)
        series.started(request.body_bytes)
        return series

    def scheduled(self, seconds: float, request: InferenceRequest, decision: Decision, tokens: float) -> Record:
        """An endpoint was chosen and charged with `tokens`; returns what `finished` wants to be given."""
        record = Record(decision, request.received_s, self._clock(), seconds, tokens)
        self._soon(self._tell_scheduled, request, record)
        return record

    def unscheduled(self, seconds: float, request: InferenceRequest) -> None:
        """No endpoint could be chosen."""
        self.metrics.scheduled(seconds, False, None, request.target_model)

    def refused(self, error: RequestError, request: InferenceRequest | None, series: Series | None) -> None:
        """The request was answered with an error; `request` is None when it could not be read."""
        if series is not None:
            series.failed(error.code)
            series.finished(None, False)
        fields: dict[str, object] = {"status": error.status, "code": error.code}
        fields["error"] = limited(str(error), ERROR_CHARACTERS)
        if request is not None:
            fields = {"x-request-id": limited(request.request_id), "model": limited(request.model), **fields}
        if self._pool:
            fields["pool"] = self._pool
        self._log.write(INFO, "Request refused", fields)

    def finished(
        self,
        request: InferenceRequest,
        series: Series | None,
        completion: Completion,
        streaming: bool,
        record: Record | None = None,
        told_by: str = "response",
    ) -> None:
        """A routed request ended. `record` is what `scheduled` returned; `told_by` says whose word the end is."""
        if record is not None:
            record.told_by = told_by
            record.completion = completion
        self._soon(self._tell_finished, record, series, completion, streaming)

    def flush(self) -> None:
        """Tell everything that waits."""
        waiting, self._waiting = self._waiting, []
        for tell, arguments in waiting:
            try:
                tell(*arguments)
            except Exception as error:
                log.error("a request could not be recorded: %r", error, exc_info=error)

    def _soon(self, tell: Callable[..., None], *arguments: Any) -> None:
        if self._later is None:
            tell(*arguments)
            return
        waiting = self._waiting
        waiting.append((tell, arguments))
        if len(waiting) == 1:
            self._later(TELL_S, self.flush)
        elif len(waiting) >= MOST_WAITING:
            self.flush()

    def _tell_scheduled(self, request: InferenceRequest, record: Record) -> None:
        metrics, decision = self.metrics, record.decision
        target = decision.target
        metrics.scheduled(record.scheduling_s, True, target, request.target_model)
        for key, index in self._prefix.values():
            match = request.get(key)
            if match is not None:
                block_bytes = 4 * match.block_size_tokens
                hit = match.matched_blocks.item(target.row) * block_bytes
                index.matched(hit, match.total_blocks * block_bytes)
        metrics.request_processing.observe(record.answered_s - record.received_s)
        record.describe(request)
        record.pool = self._pool
        self.decisions.add(record)
        if self.time_next is not None and not record.number % TIMED_EVERY:
            self.time_next()
        if self.decision_log is not None:
            self.decision_log.routed(record, request)
        self._requests.handled(record.decision, request.priority)

    def _tell_finished(self, record: Record, series: Series | None, completion: Completion, streaming: bool) -> None:
        if series is not None:
            if completion.status is not None and completion.status >= 500:
                series.failed(MODEL_SERVER_ERROR)
            series.finished(completion, streaming)
        if record is not None:
            self._requests.ended(record)
            if self.decision_log is not None:
                self.decision_log.ended(record)
