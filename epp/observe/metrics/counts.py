# SPDX-License-Identifier: Apache-2.0
"""Request, scheduler and process metrics: counted here, shown at scrape time under every name of `families`.

Counting happens on the event loop and costs about a microsecond; reading may happen in any thread. Nothing here
knows HTTP: the admin server serves `page(registry)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from epp.contract.endpoints import Endpoint
from epp.observe.metrics import families
from epp.observe.metrics import histogram as bounds
from epp.observe.metrics.families import Family
from epp.observe.metrics.histogram import Histogram
from epp.observe.metrics.page import MetricsRegistry
from epp.observe.metrics.pool import PoolCollector
from epp.observe.metrics.rows import FamilyCollector, Row, observed
from epp.observe.metrics.series import MAX_NAMES, MAX_SERIES, SeriesTable

_MAX_ATTEMPTS = 10_000
_SCHEDULING_POINTS = frozenset(
    {"Filter", "Scorer", "Picker", "ProfilePicker", "ProfileHandler", "ProcessProfilesResults"}
)

_SERIES_HISTOGRAMS: tuple[tuple[Family, str], ...] = (
    (families.DURATION, "duration"),
    (families.REQUEST_SIZE, "request_size"),
    (families.RESPONSE_SIZE, "response_size"),
    (families.INPUT_TOKENS, "input_tokens"),
    (families.OUTPUT_TOKENS, "output_tokens"),
    (families.CACHED_TOKENS, "cached_tokens"),
    (families.NTPOT, "ntpot"),
    (families.TPOT, "tpot"),
    (families.INTER_TOKEN, "inter_token_gap"),
)


class PrefixMetrics:
    """What one prefix index is worth. `size` is asked at scrape time for the number of entries."""

    __slots__ = ("hit_bytes", "hit_ratio", "labels", "size")

    def __init__(self, plugin_name: str, plugin_type: str, size: Callable[[], float]) -> None:
        self.labels = {"plugin_name": plugin_name, "plugin_type": plugin_type}
        self.size = size
        self.hit_ratio = Histogram(bounds.HIT_RATIO)
        self.hit_bytes = Histogram(bounds.HIT_BYTES)

    def matched(self, hit_bytes: float, total_bytes: float) -> None:
        """Of a prompt of `total_bytes` the chosen endpoint probably holds `hit_bytes`."""
        if total_bytes > 0:
            self.hit_ratio.observe(hit_bytes / total_bytes)
        self.hit_bytes.observe(hit_bytes)


class RequestMetrics(FamilyCollector):
    """All that is counted while requests are served.

    `request_processing` (arrival to answer, seconds) is a histogram to observe directly.
    """

    def __init__(self, *, max_names: int = MAX_NAMES, max_series: int = MAX_SERIES) -> None:
        self._table = SeriesTable(max_names=max_names, max_series=max_series)
        # `series(model, target_model, fairness_id, priority) -> Series`; bound directly, it is called per request.
        self.series = self._table.get
        self.scheduler_e2e = Histogram(bounds.SCHEDULING_S)
        self.request_processing = Histogram(bounds.REQUEST_PROCESSING_S)
        self._attempts: dict[tuple[str, str, str, str, int], int] = {}
        self._plugins: dict[tuple[str, str, str], Histogram] = {}
        self._indexes: list[PrefixMetrics] = []

    def scheduled(self, seconds: float, success: bool, endpoint: Endpoint | None, target_model: str) -> None:
        """The scheduler took `seconds` and chose `endpoint`, None when it failed."""
        self.scheduler_e2e.observe(seconds)
        if endpoint is None:
            key = ("success" if success else "failure", target_model, "", "", 0)
        else:
            key = ("success" if success else "failure", target_model, endpoint.name, endpoint.namespace, endpoint.port)
        attempts = self._attempts
        count = attempts.get(key)
        if count is not None:
            attempts[key] = count + 1
        else:
            self._first_attempt(key)

    def plugin_duration(self, extension_point: str, plugin_type: str, plugin_name: str) -> Histogram:
        """The histogram (seconds) of one plugin at one extension point: keep it, and observe as often as is cheap."""
        return self._plugins.setdefault((extension_point, plugin_type, plugin_name), Histogram(bounds.SCHEDULING_S))

    def prefix_index(self, plugin_name: str, plugin_type: str, size: Callable[[], float]) -> PrefixMetrics:
        """Show another prefix index; `size` gives its number of entries, from any thread."""
        index = PrefixMetrics(plugin_name, plugin_type, size)
        self._indexes.append(index)
        return index

    def forget_indexes(self) -> None:
        """Show no prefix index any more."""
        self._indexes.clear()

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Every family that has something to show."""
        yield from self._series_families()
        yield families.SCHEDULER_E2E, [({}, self.scheduler_e2e)]
        yield families.REQUEST_PROCESSING, [({}, self.request_processing)]
        yield families.SCHEDULER_ATTEMPTS, [_attempt_row(*item) for item in self._attempts.copy().items()]
        yield from self._plugin_families()
        indexes = self._indexes.copy()
        yield families.PREFIX_SIZE, [(index.labels, float(index.size())) for index in indexes]
        yield families.PREFIX_HIT_RATIO, observed([(index.labels, index.hit_ratio) for index in indexes])
        yield families.PREFIX_HIT_BYTES, observed([(index.labels, index.hit_bytes) for index in indexes])

    def _first_attempt(self, key: tuple[str, str, str, str, int]) -> None:
        """Count a new combination. Endpoints come and go, so the oldest combination leaves when there are too many."""
        status, target_model, name, namespace, port = key
        limited = (status, self._table.model(target_model), name, namespace, port)
        if limited not in self._attempts and len(self._attempts) >= _MAX_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[limited] = self._attempts.get(limited, 0) + 1

    def _series_families(self) -> Iterator[tuple[Family, list[Row]]]:
        every = self._table.all()
        yield families.REQUESTS, [(series.labels, series.requests) for series in every]
        errors: list[Row] = [
            ({**series.labels, "error_code": code}, count)
            for series in every
            for code, count in series.errors.copy().items()
        ]
        yield families.REQUEST_ERRORS, errors
        for family, name in _SERIES_HISTOGRAMS:
            yield family, observed([(series.labels, getattr(series, name)) for series in every])
        first_bytes = [
            ({**series.labels, "streaming": streaming}, histogram)
            for series in every
            for streaming, histogram in (("false", series.ttft), ("true", series.ttft_streaming))
        ]
        yield families.TTFT, observed(first_bytes)
        yield families.RUNNING, [(series.labels, series.running) for series in every]

    def _plugin_families(self) -> Iterator[tuple[Family, list[Row]]]:
        rows = [
            ({"extension_point": point, "plugin_type": type_, "plugin_name": name}, histogram)
            for (point, type_, name), histogram in self._plugins.copy().items()
        ]
        scheduling = [row for row in rows if row[0]["extension_point"] in _SCHEDULING_POINTS]
        others = [row for row in rows if row[0]["extension_point"] not in _SCHEDULING_POINTS]
        yield families.PLUGIN_DURATION, observed(rows)
        yield families.SCHEDULER_PLUGIN_DURATION, observed(scheduling)
        yield families.REQUEST_CONTROL_PLUGIN_DURATION, observed(others)


def _attempt_row(key: tuple[str, str, str, str, int], count: int) -> Row:
    status, target_model, name, namespace, port = key
    labels = {
        "status": status,
        "target_model_name": target_model,
        "endpoint_name": name,
        "namespace": namespace,
        "port": str(port or ""),
    }
    return labels, count


def _nothing() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True)
class Readings:
    """Counters that other rooms keep, asked for at scrape time, from any thread.

    * plugin_errors: by plugin instance; scrape_failures: by endpoint; poll_errors: by type of source
    * log_lines_dropped: since the start
    * decision_log: lines written and lost, None when there is no such log
    """

    plugin_errors: Callable[[], Mapping[str, float]] = _nothing
    scrape_failures: Callable[[], Mapping[str, float]] = _nothing
    poll_errors: Callable[[], Mapping[str, float]] = _nothing
    log_lines_dropped: Callable[[], float] = float
    decision_log: Callable[[], tuple[int, int] | None] = lambda: None


class ReadingsCollector(FamilyCollector):
    """Shows `Readings`, and which build is running."""

    def __init__(self, readings: Readings, commit: str, build_ref: str) -> None:
        self._readings = readings
        self._build = {"commit": commit, "build_ref": build_ref}

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """One value for each key that a reading has."""
        readings = self._readings
        yield families.INFO, [(self._build, 1)]
        yield families.LOG_LINES_DROPPED, [({}, readings.log_lines_dropped())]
        decisions = readings.decision_log()
        if decisions is not None:
            yield families.DECISION_LOG_LINES, [({}, float(decisions[0]))]
            yield families.DECISION_LOG_DROPPED, [({}, float(decisions[1]))]
        for family, label, read in (
            (families.PLUGIN_ERRORS, "plugin", readings.plugin_errors),
            (families.SCRAPE_FAILURES, "endpoint", readings.scrape_failures),
            (families.POLL_ERRORS, "source_type", readings.poll_errors),
        ):
            yield family, [({label: key}, value) for key, value in dict(read()).items()]


def registry(
    requests: RequestMetrics,
    pool: PoolCollector,
    readings: Readings | None = None,
    *more: FamilyCollector,
    commit: str = "",
    build_ref: str = "",
) -> MetricsRegistry:
    """All metrics of one process; serve it with `page`."""
    return MetricsRegistry(requests, pool, *more, ReadingsCollector(readings or Readings(), commit, build_ref))
