# SPDX-License-Identifier: Apache-2.0
"""What is counted about requests: one `Series` per model, target model, fairness id and priority.

The event loop counts in plain integers and lists, a scrape reads them from another thread. A client chooses the
model's name and often the fairness id, so both are limited: at most 1000 of each, and `max_series` together; what
comes later is counted under "other".
"""

from __future__ import annotations

from epp.contract.requests import Cause, Completion
from epp.observe.metrics import histogram as bounds
from epp.observe.metrics.histogram import Histogram

OTHER = "other"
MODEL_SERVER_ERROR = "ModelServerError"
"""The error code of a response that the endpoint itself marked as failed."""

MAX_NAMES = 1000
MAX_SERIES = 500
_NAME_CHARACTERS = 256


class Series:
    """Counts of the requests that share a set of labels.

    For each request: `started` once; then any of `first_byte`, `inter_token` and `failed`; at last `finished` once.
    """

    __slots__ = (
        "cached_tokens",
        "duration",
        "errors",
        "input_tokens",
        "inter_token_gap",
        "labels",
        "ntpot",
        "output_tokens",
        "request_size",
        "requests",
        "response_size",
        "running",
        "tpot",
        "ttft",
        "ttft_streaming",
    )

    def __init__(self, model: str, target_model: str, fairness_id: str, priority: int) -> None:
        self.labels = {
            "model_name": model,
            "target_model_name": target_model,
            "fairness_id": fairness_id,
            "priority": str(priority),
        }
        self.requests = 0
        self.running = 0
        self.errors: dict[str, int] = {}
        self.duration = Histogram(bounds.DURATION_S)
        self.request_size = Histogram(bounds.REQUEST_BYTES)
        self.response_size = Histogram(bounds.RESPONSE_BYTES)
        self.input_tokens = Histogram(bounds.INPUT_TOKENS)
        self.output_tokens = Histogram(bounds.OUTPUT_TOKENS)
        self.cached_tokens = Histogram(bounds.INPUT_TOKENS)
        self.ntpot = Histogram(bounds.NTPOT_S)
        self.tpot = Histogram(bounds.TPOT_S)
        self.inter_token_gap = Histogram(bounds.INTER_TOKEN_S)
        self.ttft = Histogram(bounds.TTFT_S)
        self.ttft_streaming = Histogram(bounds.TTFT_S)

    def started(self, body_bytes: int) -> None:
        """A request was parsed; its body has `body_bytes`."""
        self.requests += 1
        self.running += 1
        self.request_size.observe(body_bytes)

    def failed(self, code: str) -> None:
        """Count an error; `code` is a `RequestError.code` or `MODEL_SERVER_ERROR`. The request still ends with
        `finished`."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def first_byte(self, seconds: float, streaming: bool) -> None:
        """The response body began `seconds` after the request's arrival."""
        (self.ttft_streaming if streaming else self.ttft).observe(seconds)

    def inter_token(self, seconds: float) -> None:
        """A piece of a streamed response came `seconds` after the one before."""
        self.inter_token_gap.observe(seconds)

    def finished(self, completion: Completion | None, streaming: bool) -> None:
        """A started request ended; None when it was never routed.

        Tokens are counted when the endpoint reported any; durations and sizes only of complete responses.
        """
        if self.running:
            self.running -= 1
        if completion is None or not completion.reached_endpoint:
            return
        usage = completion.usage
        output_tokens = 0
        if usage is not None:
            output_tokens = usage.completion_tokens or 0
            if usage.prompt_tokens:
                self.input_tokens.observe(usage.prompt_tokens)
            if output_tokens > 0:
                self.output_tokens.observe(output_tokens)
            if usage.cached_tokens:
                self.cached_tokens.observe(usage.cached_tokens)
        if completion.cause is not Cause.COMPLETE:
            return
        duration_s = completion.duration_s
        self.duration.observe(duration_s)
        self.response_size.observe(completion.response_bytes)
        if output_tokens > 0:
            self.ntpot.observe(duration_s / output_tokens)
            first_byte_s = completion.first_byte_s
            if streaming and output_tokens > 1 and first_byte_s is not None:
                self.tpot.observe((duration_s - first_byte_s) / (output_tokens - 1))


def is_fit_label(name: str) -> bool:
    """Whether the page can show it: neither too long, nor bytes of a header that were decoded with surrogates."""
    if len(name) > _NAME_CHARACTERS:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Names:
    """The first `limit` different names; others, and what is no fit label (too long, no valid UTF-8), are "other"."""

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def admit(self, name: str) -> str:
        """`name`, or "other"."""
        if name in self._seen:
            return name
        if len(self._seen) >= self._limit or not is_fit_label(name):
            return OTHER
        self._seen.add(name)
        return name


class SeriesTable:
    """All series, found by their labels."""

    __slots__ = ("_fairness_ids", "_max_series", "_models", "_series")

    def __init__(self, *, max_names: int = MAX_NAMES, max_series: int = MAX_SERIES) -> None:
        self._models = Names(max_names)
        self._fairness_ids = Names(max_names)
        self._max_series = max_series
        self._series: dict[tuple[str, str, str, int], Series] = {}

    def get(self, model: str, target_model: str, fairness_id: str, priority: int) -> Series:
        """The series of these labels, made when it is new and there is room."""
        found = self._series.get((model, target_model, fairness_id, priority))
        if found is not None:
            return found
        return self._limited(
            self.model(model), self.model(target_model), self._fairness_ids.admit(fairness_id), priority
        )

    def model(self, name: str) -> str:
        """The label of a model's name."""
        return self._models.admit(name)

    def all(self) -> list[Series]:
        """A copy of the list; may be called from another thread."""
        return list(self._series.values())

    def _limited(self, model: str, target_model: str, fairness_id: str, priority: int) -> Series:
        key = (model, target_model, fairness_id, priority)
        if key not in self._series and len(self._series) >= self._max_series:
            key = (OTHER, OTHER, OTHER, 0)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Series(*key)
        return found
