# SPDX-License-Identifier: Apache-2.0
"""The names and labels of every metric family, in each generation that dashboards know.

What is counted once is shown under all of its names, the newest first: `llm_d_epp_*` (llm-d-router), then what the
same release still emits as deprecated (`inference_objective_*`, `inference_pool_*`, `inference_extension_*`,
`llm_d_inference_scheduler_*`), then GIE v0.5's `inference_model_*`. A name with fewer labels shows sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NEW = "llm_d_epp_"
_OBJECTIVE = "inference_objective_"
_MODEL = "inference_model_"
_EXTENSION = "inference_extension_"
_POOL = "inference_pool_"

_FULL = ("model_name", "target_model_name", "fairness_id", "priority")
_TWO = ("model_name", "target_model_name")
_PLUGIN = ("extension_point", "plugin_type", "plugin_name")


@dataclass(frozen=True, slots=True)
class Name:
    """One name of a family. `rename` maps a label's key in a row to what the page calls it."""

    name: str
    labels: tuple[str, ...]
    rename: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One thing that is counted, and all its names, the newest first. `kind` is counter, gauge or histogram."""

    kind: str
    help: str
    names: tuple[Name, ...]


def _request_family(kind: str, help_: str, new: str, old: str, more: tuple[str, ...] = ()) -> Family:
    return Family(
        kind,
        help_,
        (
            Name(_NEW + new, (*_FULL, *more)),
            Name(_OBJECTIVE + old, (*_TWO, *more)),
            Name(_MODEL + old, (*_TWO, *more)),
        ),
    )


REQUESTS = Family(
    "counter",
    "Requests that were parsed and asked for an endpoint.",
    (
        Name(_NEW + "request_total", _FULL),
        Name(_OBJECTIVE + "request_total", (*_TWO, "priority")),
        Name(_MODEL + "request_total", _TWO),
    ),
)
REQUEST_ERRORS = _request_family(
    "counter", "Requests that failed, by error code.", "request_error_total", "request_error_total", ("error_code",)
)
DURATION = _request_family(
    "histogram",
    "Seconds from a request's arrival to the end of its response.",
    "request_duration_seconds",
    "request_duration_seconds",
)
REQUEST_SIZE = _request_family("histogram", "Request body size in bytes.", "request_size_bytes", "request_sizes")
RESPONSE_SIZE = _request_family("histogram", "Response body size in bytes.", "response_size_bytes", "response_sizes")
INPUT_TOKENS = _request_family("histogram", "Prompt tokens of a request.", "request_input_tokens", "input_tokens")
OUTPUT_TOKENS = _request_family(
    "histogram", "Tokens generated for a request.", "request_output_tokens", "output_tokens"
)
CACHED_TOKENS = Family(
    "histogram",
    "Prompt tokens that the endpoint took from its cache.",
    (Name(_NEW + "request_cached_tokens", _FULL), Name(_OBJECTIVE + "prompt_cached_tokens", _TWO)),
)
NTPOT = _request_family(
    "histogram",
    "Duration of a request divided by its output tokens, in seconds.",
    "request_ntpot_seconds",
    "normalized_time_per_output_token_seconds",
)
TPOT = Family(
    "histogram",
    "Seconds per output token after the first one, of streamed responses.",
    (Name(_NEW + "request_streaming_tpot_seconds", _FULL), Name(_OBJECTIVE + "request_tpot_seconds", _TWO)),
)
INTER_TOKEN = Family(
    "histogram",
    "Seconds between two pieces of a streamed response.",
    (Name(_NEW + "request_streaming_itl_seconds", _FULL),),
)
TTFT = Family(
    "histogram",
    "Seconds from a request's arrival to the first byte of its response body.",
    (
        Name(_NEW + "request_ttft_seconds", (*_FULL, "streaming")),
        Name(_OBJECTIVE + "request_ttft_seconds", _TWO),
    ),
)
RUNNING = Family(
    "gauge",
    "Requests that have not ended.",
    (
        Name(_NEW + "request_running", _FULL),
        Name(_OBJECTIVE + "running_requests", ("model_name",)),
        Name(_MODEL + "running_requests", ("model_name",)),
    ),
)

SCHEDULER_E2E = Family(
    "histogram",
    "Seconds the scheduler took for one request.",
    (Name(_NEW + "scheduler_e2e_duration_seconds", ()), Name(_EXTENSION + "scheduler_e2e_duration_seconds", ())),
)
_ATTEMPT = ("status", "target_model_name", "endpoint_name", "namespace", "port")
SCHEDULER_ATTEMPTS = Family(
    "counter",
    "Scheduling attempts by outcome and chosen endpoint.",
    (
        Name(_NEW + "scheduler_attempts_total", _ATTEMPT),
        Name(_EXTENSION + "scheduler_attempts_total", _ATTEMPT, {"endpoint_name": "pod_name"}),
    ),
)
PLUGIN_DURATION = Family(
    "histogram",
    "Seconds one plugin took for one request; measured in one of 64 decisions.",
    (Name(_NEW + "plugin_duration_seconds", _PLUGIN), Name(_EXTENSION + "plugin_duration_seconds", _PLUGIN)),
)
# GIE v0.5 had a family for scheduling and one for request control; `plugin_type` was the extension point there.
_OLD_RENAME = {"extension_point": "plugin_type", "plugin_type": "plugin_name"}
SCHEDULER_PLUGIN_DURATION = Family(
    "histogram",
    "Seconds one scheduling plugin took for one request; measured in one of 64 decisions.",
    (Name(_EXTENSION + "scheduler_plugin_duration_seconds", _PLUGIN[:2], _OLD_RENAME),),
)
REQUEST_CONTROL_PLUGIN_DURATION = Family(
    "histogram",
    "Seconds one request control plugin took for one request.",
    (Name(_EXTENSION + "request_control_plugin_duration_seconds", _PLUGIN[:2], _OLD_RENAME),),
)
REQUEST_PROCESSING = Family(
    "histogram",
    "Seconds from a request's arrival to our answer.",
    (Name(_NEW + "request_processing_duration_seconds", ()),),
)

_INDEXER = ("plugin_name", "plugin_type")
PREFIX_SIZE = Family(
    "gauge",
    "Entries of the prefix index.",
    (Name(_NEW + "prefix_indexer_size", _INDEXER), Name(_EXTENSION + "prefix_indexer_size", _INDEXER)),
)
PREFIX_HIT_RATIO = Family(
    "histogram",
    "Share of the prompt that the chosen endpoint probably holds.",
    (Name(_NEW + "prefix_indexer_hit_ratio", _INDEXER), Name(_EXTENSION + "prefix_indexer_hit_ratio", _INDEXER)),
)
PREFIX_HIT_BYTES = Family(
    "histogram",
    "Bytes of the prompt that the chosen endpoint probably holds.",
    (Name(_NEW + "prefix_indexer_hit_bytes", _INDEXER), Name(_EXTENSION + "prefix_indexer_hit_bytes", _INDEXER)),
)

INFO = Family(
    "gauge",
    "The build that is running; always 1.",
    (Name(_NEW + "info", ("commit", "build_ref")), Name(_EXTENSION + "info", ("commit", "build_ref"))),
)
POLL_ERRORS = Family(
    "counter",
    "Failed reads of endpoint data, by source.",
    (
        Name(_NEW + "datalayer_poll_errors_total", ("source_type",)),
        Name("llm_d_inference_scheduler_datalayer_poll_errors_total", ("source_type",)),
    ),
)


def _pool_family(help_: str, new: str, old: str = "") -> Family:
    names = (Name(_NEW + new, ("name",)), *((Name(_POOL + old, ("name",)),) if old else ()))
    return Family("gauge", help_, names)


POOL_KV = _pool_family(
    "Mean KV cache utilization of the endpoints, 0..1.", "average_kv_cache_utilization", "average_kv_cache_utilization"
)
POOL_KV_DEVIATION = _pool_family("Standard deviation of KV cache utilization.", "std_dev_kv_cache_utilization")
POOL_QUEUE = _pool_family("Mean number of requests waiting at an endpoint.", "average_queue_size", "average_queue_size")
POOL_QUEUE_DEVIATION = _pool_family("Standard deviation of waiting requests.", "std_dev_queue_size")
POOL_RUNNING = _pool_family(
    "Mean number of requests running at an endpoint.", "average_running_requests", "average_running_requests"
)
POOL_RUNNING_DEVIATION = _pool_family("Standard deviation of running requests.", "std_dev_running_requests")
POOL_READY = _pool_family("Endpoints whose metrics are fresh.", "ready_endpoints", "ready_pods")
ENDPOINT_QUEUE = Family(
    "gauge",
    "Requests waiting at one endpoint.",
    (
        Name(_NEW + "per_endpoint_queue_size", ("name", "model_server_endpoint")),
        Name(
            _POOL + "per_pod_queue_size",
            ("name", "model_server_endpoint"),
            {"model_server_endpoint": "model_server_pod"},
        ),
    ),
)

IN_FLIGHT_REQUESTS = Family(
    "gauge", "Requests sent to endpoints of the pool that have not ended.", (Name("epp_in_flight_requests", ("name",)),)
)
IN_FLIGHT_TOKENS = Family(
    "gauge", "Prompt tokens that endpoints of the pool have to compute.", (Name("epp_in_flight_tokens", ("name",)),)
)

PLUGIN_ERRORS = Family(
    "counter", "Exceptions and contract breaches of plugins.", (Name("epp_plugin_errors_total", ("plugin",)),)
)
LOG_LINES_DROPPED = Family(
    "counter",
    "Log lines lost because standard error was read too slowly, or longer than what may wait.",
    (Name("epp_log_lines_dropped_total", ()),),
)
DECISION_LOG_LINES = Family(
    "counter", "Decisions written to --decision-log.", (Name("epp_decision_log_lines_total", ()),)
)
DECISION_LOG_DROPPED = Family(
    "counter",
    "Decisions that --decision-log lost: too many at once, or its file could not be written.",
    (Name("epp_decision_log_lines_dropped_total", ()),),
)
SCRAPE_FAILURES = Family(
    "counter", "Failed reads of an endpoint's metrics page.", (Name("epp_scrape_failures_total", ("endpoint",)),)
)


def _scrape_family(kind: str, help_: str, name: str, labels: tuple[str, ...] = ("name",)) -> Family:
    return Family(kind, help_, (Name(name, labels),))


SCRAPE_INTERVAL = _scrape_family(
    "gauge",
    "Seconds between two reads of an endpoint's metrics page while requests are routed, as --metrics-max-loop-share "
    "allows.",
    "epp_scrape_interval_seconds",
)
SCRAPE_IDLE = _scrape_family("gauge", "1 while the idle interval is in force, else 0.", "epp_scrape_idle")
SCRAPE_BUSY = _scrape_family(
    "counter", "Seconds of the event loop spent on reading metrics pages.", "epp_scrape_busy_seconds_total"
)
SCRAPE_BYTES = _scrape_family("counter", "Bytes of metrics pages received.", "epp_scrape_page_bytes_total")
SCRAPE_SAVED_BYTES = _scrape_family(
    "counter", "Bytes of metrics pages that were filtered out by endpoints.", "epp_scrape_saved_bytes_total"
)
SCRAPE_FILTERED = _scrape_family(
    "gauge", "Endpoints that are asked for the metrics in use alone.", "epp_scrape_filtered_endpoints"
)
SIGNAL_AGE = _scrape_family(
    "gauge",
    "Seconds since an endpoint last said a signal: of the endpoint where it is oldest, and where it is newest.",
    "epp_signal_age_seconds",
    ("name", "signal", "bound"),
)
SIGNAL_STALE = _scrape_family(
    "gauge",
    "Endpoints whose last value of a signal is older than --metrics-staleness-threshold; it is still used.",
    "epp_signal_stale_endpoints",
    ("name", "signal"),
)
SIGNAL_MISSING = _scrape_family(
    "gauge", "Endpoints that have never said a signal.", "epp_signal_missing_endpoints", ("name", "signal")
)
