# SPDX-License-Identifier: Apache-2.0
"""What the person asked of the service, every meaning once, typed, with units.

`epp.service.flags.parsing.parse` is the one maker. Fields bear the name of their flag (`--grpc-port`: `grpc_port`) plus
a unit; where several flags or variables feed one meaning the field says so. An empty path or text is None, an empty
list is ().
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epp.service.flags.values import Address


@dataclass(frozen=True, slots=True)
class Options:
    """The settled command line and environment of `epp serve`."""

    # Listeners. Ports are 0..65535; with 0 the system chooses a free one.
    bind_address: str
    """IP address of every listener; "" is every interface (`::` where IPv6 exists, else `0.0.0.0`)."""
    grpc_port: int
    """ext_proc."""
    grpc_health_port: int
    """gRPC health, always plaintext."""
    metrics_port: int
    """Prometheus metrics over HTTP."""
    transport: Literal["ngh2", "grpcio"]
    health_checking: bool
    """Answer gRPC health on the ext_proc port too."""
    drain_timeout_s: float
    """How long streams are still accepted and served after SIGTERM; at least 0."""
    grpc_max_recv_msg_bytes: int | None
    """Largest message taken from the proxy; None: as large as `max_body_bytes` asks for."""
    grpc_max_send_msg_bytes: int | None
    max_body_bytes: int
    """Largest request body held for reading; at least 1."""
    enable_grpc_stream_metrics: bool
    watch_loop: bool
    """Measure the event loop's longest turns."""
    debug_endpoints: bool
    """Pages under /debug/ on the metrics port."""
    enable_pprof: bool

    # TLS
    secure_serving: bool
    """TLS on the ext_proc port; self-signed without `cert_path`."""
    cert_path: Path | None
    """Directory of tls.crt and tls.key."""
    enable_cert_reload: bool
    tls_min_version: Literal["TLSv1.2", "TLSv1.3"]
    """HTTP/2 allows nothing older; a flag that names an older version is raised to 1.2."""
    tls_cipher_suites: tuple[str, ...]
    """OpenSSL names for TLS 1.2, in the order given; () is OpenSSL's own choice."""
    metrics_endpoint_auth: bool
    metrics_cert_dir: Path | None
    metrics_client_ca_file: Path | None

    # The pool and its endpoints
    pool_name: str
    """Of the one pool that is served; empty when there are many, or it has no name."""
    pool_names: tuple[str, ...]
    """Where many pools are served, their names without repetitions, `("*",)` for all there are; else empty."""
    pool_namespace: str
    """The flag, or POOL_NAMESPACE, or NAMESPACE, or "default"; never empty; "*", with `pool_names`, is every one."""
    lease_namespace: str
    """Where our Lease is if not in `pool_namespace`: with "*" there, NAMESPACE or "default"; else empty."""
    pool_ports: tuple[int, int] | None
    """The lowest and the highest port that may be listened on for single pools."""
    pool_group: str
    """Empty: whichever group has the pool."""
    kubeconfig: Path | None
    pod_name: str
    """From POD_NAME; may be empty."""
    endpoint_selector: str
    endpoint_target_ports: tuple[int, ...]
    """Without repetitions; 1..8 of them when `endpoint_selector` is given."""
    endpoints: tuple[Address, ...]
    """Without repetitions, in the order given."""
    endpoints_file: Path | None
    endpoints_dir: Path | None
    """Files of endpoints by the pools' names."""
    ha_enable_leader_election: bool
    disable_endpoint_subset_filter: bool
    """Ignore the proxy's hint that names a subset of endpoints."""

    # The answer to the proxy
    destination_endpoint_hint_key: str
    """Request header and metadata key that carry the choice; lower case."""
    destination_endpoint_hint_metadata_namespace: str
    """Metadata namespace of the choice; "" puts the key at the top level."""
    echo_headers: bool
    """Set every request header again, as the Go EPP does, instead of our own alone."""
    response_phase: Literal["full", "headers", "release", "auto"]
    """How much of a response is asked for; "auto" is settled when a configuration is loaded."""
    emit_endpoint_scores: bool
    """The total of every scored endpoint, in the dynamic metadata."""
    emit_decision_header: bool
    """The decision in one line, in the response header x-epp-decision."""

    # Signals. A metric is `name` or `name{label=value,...}`; None: the engine's own names; "": that signal is off.
    refresh_metrics_interval_s: float
    """At least 0.05."""
    refresh_prometheus_metrics_interval_s: float
    """At least 0.001."""
    metrics_staleness_threshold_s: float
    """Older values do not count in the pool's gauges; at least 0."""
    metrics_idle_interval_s: float
    """While no requests are routed and an endpoint has no work; 0..60, below the refresh interval it has no effect."""
    metrics_max_loop_share: float
    """The most of the event loop that scraping may take; above 0 and at most 1."""
    metrics_filter: bool
    """Ask endpoints for the metrics in use alone, where their page can be filtered."""
    model_server_metrics_port: int
    """Port to scrape on every endpoint; 0 is the endpoint's own port."""
    model_server_metrics_path: str
    model_server_metrics_scheme: Literal["http", "https"]
    model_server_metrics_https_insecure_skip_verify: bool
    total_queued_requests_metric: str | None
    total_running_requests_metric: str | None
    kv_cache_usage_percentage_metric: str | None
    lora_info_metric: str | None
    cache_info_metric: str | None

    # Saturation detector of the seed era, from the SD_* variables alone; None where the variable is not set.
    saturation_queue_depth_threshold: int | None
    """SD_QUEUE_DEPTH_THRESHOLD, waiting requests of one endpoint; at least 1."""
    saturation_kv_utilization_threshold: float | None
    """SD_KV_CACHE_UTIL_THRESHOLD, above 0 and at most 1."""
    saturation_metrics_staleness_threshold_s: float | None
    """SD_METRICS_STALENESS_THRESHOLD, above 0."""

    # Configuration
    config_file: Path | None
    config_dir: Path | None
    """Files of configurations by the pools' names."""
    config_text: str | None
    """YAML or JSON; never given together with `config_file`."""
    conformance: bool
    """Run the configuration of the conformance tests: requests choose endpoints. Never with one of the person's own."""
    plugin_dirs: tuple[Path, ...]
    allow_experimental_plugins: bool
    strict: bool
    """Refuse unknown parameters of old plugins instead of warning."""
    seed: int | None
    """Seed of every random choice, at least 0; None takes one from the system."""

    # Logs and traces
    verbosity: int
    """From -v and --zap-log-level: a line of V(n) is written when n <= verbosity; -1 leaves errors alone."""
    log_encoder: Literal["json", "console"]
    """From --zap-encoder; --zap-devel makes it console when no encoder is named."""
    log_time_encoding: Literal["epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"]
    decision_log: Path | None
    """A line of JSON for every routed request."""
    decision_log_max_bytes: int
    """At least 1."""
    decision_log_files: int
    """Older files that are kept, 0..10000."""
    decision_log_prefix_hashes: bool
    tracing: bool

    # About the command line itself
    warnings: tuple[str, ...]
    """One line each, for the log: what was corrected, skipped or doubtful."""
    without_effect: tuple[str, ...]
    """Flags (canonical names) and variables that the person gave, that parse, and that this version does not act on;
    sorted. A value that asks for nothing (false, empty) is not listed: that is what happens anyway."""
