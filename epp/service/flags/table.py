# SPDX-License-Identifier: Apache-2.0
"""Every flag of the service, as data: those of the Go EPP from GIE v0.5.1 to today, and our own.

A row holds the kebab-case name; the camelCase name of the seed era follows from it by rule (`--pool-name`,
`--poolName`), `also` holds what the rule does not give. Defaults are texts in the flag's own grammar, read like an
argument; None means "not given". `low` and `high` bound numbers, in seconds and bytes where the kind has a unit.
`effective` is False while this version parses and validates a flag without acting on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from epp.service.flags.ciphers import CIPHER_NAMES

Kind = Literal[
    "bool", "int", "fraction", "duration", "size", "string", "choice", "path", "header", "url-path", "metric",
    "selector", "level", "bind-ip", "ports", "choices", "ints", "paths", "addresses", "names",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, or one variable of the environment that no flag stands for."""

    name: str
    kind: Kind
    default: str | None
    help: str
    field: str | None = None
    """Field of `Options` it fills as it is; None: the name with underscores; "": several flags feed one meaning."""
    env: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    effective: bool = True
    also: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The field of `Options` this flag fills, or "" when its value is settled together with others."""
        return self.name.replace("-", "_") if self.field is None else self.field

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name the command line knows it by, without dashes, the canonical one first."""
        head, *rest = self.name.split("-")
        camel = head + "".join(word.capitalize() for word in rest)
        return tuple(dict.fromkeys((self.name, camel, *self.also)))


_PORT = 65535

_LISTENERS = (
    Flag("grpc-port", "int", "9002", "port of ext_proc; 0: the system chooses", env="GRPC_PORT", low=0, high=_PORT),
    Flag("grpc-health-port", "int", "9003", "port of gRPC health, always plaintext; 0: the system chooses",
         env="GRPC_HEALTH_PORT", low=0, high=_PORT),
    Flag("metrics-port", "int", "9090", "port of the metrics page; 0: the system chooses", low=0, high=_PORT),
    Flag("bind-address", "bind-ip", "", "IP address to listen on; empty: every interface"),
    Flag("transport", "choice", "ngh2", "gRPC implementation of the ext_proc port: ngh2 or grpcio",
         choices=("ngh2", "grpcio")),
    Flag("health-checking", "bool", "false", "answer gRPC health on the ext_proc port too"),
    Flag("drain-timeout", "duration", "30s", "time to go on accepting and serving streams after SIGTERM",
         field="drain_timeout_s", low=0),
    Flag("grpc-max-recv-msg-size", "size", "", "largest gRPC message taken, such as 10MiB; empty or 0: max-body-size",
         field="grpc_max_recv_msg_bytes"),
    Flag("grpc-max-send-msg-size", "size", "", "largest gRPC message sent, such as 10MiB",
         field="grpc_max_send_msg_bytes", effective=False),
    Flag("max-body-size", "size", "64Mi", "largest request body held for reading", field="max_body_bytes", low=1),
    Flag("enable-grpc-stream-metrics", "bool", "false", "metrics of ext_proc streams", effective=False),
    Flag("watch-loop", "bool", "false", "show on the metrics page for how long the event loop could not turn, seconds"),
    Flag("debug-endpoints", "bool", "true", "pages under /debug/ on the metrics port: /debug/decisions"),
    Flag("enable-pprof", "bool", "true", "profiling pages on the metrics port", effective=False),
)  # fmt: skip

_TLS = (
    Flag("secure-serving", "bool", "true", "TLS on the ext_proc port", env="SECURE_SERVING"),
    Flag("cert-path", "path", "", "directory of tls.crt and tls.key; empty: a self-signed certificate"),
    Flag("enable-cert-reload", "bool", "false", "read the certificate again when its files change"),
    Flag("tls-min-version", "choice", "", "oldest TLS version: VersionTLS12 or VersionTLS13; older names mean 1.2",
         field="", choices=("", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")),
    Flag("tls-cipher-suites", "choices", "", "cipher suites of TLS 1.2, by Go's names, comma separated",
         field="", choices=CIPHER_NAMES),
    Flag("metrics-endpoint-auth", "bool", "true",
         "in Kubernetes, ask the API server who may read the pages of the metrics port"),
    Flag("metrics-cert-dir", "path", "", "directory of tls.crt and tls.key for the metrics port; empty: plain HTTP"),
    Flag("metrics-client-ca-file", "path", "", "CA of clients of the metrics port; needs metrics-cert-dir"),
)  # fmt: skip

_POOL = (
    Flag("pool-name", "names", "", "name of the InferencePool, a label of metrics; repeatable: many pools; '*': all",
         field="", env="POOL_NAME"),
    Flag("pool-namespace", "string", "", "namespace of the pool; empty: $NAMESPACE, or default; '*': of every one",
         field="", env="POOL_NAMESPACE"),
    Flag("pool-ports", "ports", "",
         "LOW-HIGH: with many pools, listen also on the ports of their endpointPickerRef that are among these"),
    Flag("pool-group", "string", "",
         "API group of the InferencePool; empty: inference.networking.k8s.io, else inference.networking.x-k8s.io"),
    Flag("kubeconfig", "path", "", "kubeconfig file of the API server; empty: $KUBECONFIG, the pod's service account"),
    Flag("endpoint-selector", "selector", "", "label selector of pods, instead of a pool"),
    Flag("endpoint-target-ports", "ints", "", "ports of the selected pods, 1 to 8, comma separated", field="",
         low=0, high=_PORT),
    Flag("endpoints", "addresses", "", "model servers, IP:PORT or [IPv6]:PORT, comma separated; repeatable", field=""),
    Flag("endpoints-file", "path", "", "YAML or JSON file of model servers, read again when it changes"),
    Flag("endpoints-dir", "path", "",
         "directory of such files, one a pool: <namespace>.<pool>.yaml or <pool>.yaml; followed while it changes"),
    Flag("ha-enable-leader-election", "bool", "false", "of several replicas one is ready, which holds a Lease"),
    Flag("disable-endpoint-subset-filter", "bool", "false", "ignore the subset of endpoints the proxy hints at"),
)  # fmt: skip

_ANSWER = (
    Flag("destination-endpoint-hint-key", "header", "x-gateway-destination-endpoint",
         "request header and metadata key that carry the choice", env="DESTINATION_ENDPOINT_HINT_KEY"),
    Flag("destination-endpoint-hint-metadata-namespace", "string", "envoy.lb",
         "metadata namespace of the choice; empty: the key stands at the top level",
         also=("DestinationEndpointHintMetadataNamespace",)),
    Flag("echo-headers", "bool", "false", "set every request header again, as the Go EPP does"),
    Flag("response-phase", "choice", "full",
         "how far responses are followed: full, headers, release (not at all), or auto (full if a plugin reads them)",
         choices=("full", "headers", "release", "auto")),
    Flag("emit-endpoint-scores", "bool", "false", "the score of every endpoint in the dynamic metadata"),
    Flag("emit-decision-header", "bool", "false", "set x-epp-decision, who was chosen and why, on responses"),
)  # fmt: skip

_SIGNALS = (
    Flag("refresh-metrics-interval", "duration", "50ms", "time between two scrapes of an endpoint, at least 50ms",
         field="refresh_metrics_interval_s", env="REFRESH_METRICS_INTERVAL"),
    Flag("refresh-prometheus-metrics-interval", "duration", "5s", "time between two updates of the pool's gauges",
         field="refresh_prometheus_metrics_interval_s", low=0.001, effective=False),
    Flag("metrics-staleness-threshold", "duration", "2s", "age at which values leave the pool's gauges",
         field="metrics_staleness_threshold_s", low=0),
    Flag("metrics-idle-interval", "duration", "0s",
         "time between two scrapes of an endpoint while no requests are routed and it has no work; 0: as always",
         field="metrics_idle_interval_s", low=0, high=60),
    Flag("metrics-max-loop-share", "fraction", "0.5",
         "most of the event loop that scraping may take; a pool too large for that is scraped less often"),
    Flag("metrics-filter", "bool", "true", "scrape only the metrics in use, where an endpoint's page can be filtered"),
    Flag("model-server-metrics-port", "int", "0", "port to scrape on every endpoint; 0: the endpoint's own port",
         env="MODEL_SERVER_METRICS_PORT", low=0, high=_PORT),
    Flag("model-server-metrics-path", "url-path", "/metrics", "path of the endpoints' metrics page",
         env="MODEL_SERVER_METRICS_PATH"),
    Flag("model-server-metrics-scheme", "choice", "http", "scheme of the endpoints' metrics page: http or https",
         env="MODEL_SERVER_METRICS_SCHEME", choices=("http", "https")),
    Flag("model-server-metrics-https-insecure-skip-verify", "bool", "true",
         "do not verify the certificates of the endpoints' metrics pages",
         env="MODEL_SERVER_METRICS_HTTPS_INSECURE_SKIP_VERIFY"),
    Flag("total-queued-requests-metric", "metric", None, "metric of waiting requests, instead of the engine's own"),
    Flag("total-running-requests-metric", "metric", None, "metric of running requests, instead of the engine's own"),
    Flag("kv-cache-usage-percentage-metric", "metric", None, "metric of KV cache use, instead of the engine's own"),
    Flag("lora-info-metric", "metric", None, "metric of LoRA adapters, instead of the engine's own; empty: off"),
    Flag("cache-info-metric", "metric", None, "metric of the cache's shape, instead of the engine's own; empty: off"),
)  # fmt: skip

_CONFIGURATION = (
    Flag("config-file", "path", "", "file of the EndpointPickerConfig"),
    Flag("config-dir", "path", "",
         "directory of EndpointPickerConfigs of many pools: <namespace>.<pool>.yaml, <pool>.yaml, default.yaml"),
    Flag("config-text", "string", "", "the EndpointPickerConfig itself, instead of a file", field=""),
    Flag("conformance", "choice", "auto",
         "clients choose endpoints by header, for conformance tests of gateways: on, off, or auto (on when started"
         " as the tests do)",
         field="", choices=("auto", "on", "off")),
    Flag("plugin-dir", "paths", "", "directory whose .py files are plugins; repeatable", field="plugin_dirs"),
    Flag("allow-experimental-plugins", "bool", "false", "permit plugins of alpha stability", effective=False),
    Flag("strict", "bool", "false", "refuse unknown parameters of old plugins instead of warning"),
    Flag("seed", "int", None, "seed of random choices; not given: from the system", low=0),
)  # fmt: skip

_LOGS = (
    Flag("v", "int", "2", "verbosity: 2 default, 3 verbose, 4 debug, 5 trace; zap-log-level wins", field=""),
    Flag("zap-devel", "bool", "false", "console logs unless zap-encoder is given", field=""),
    Flag("zap-encoder", "choice", "json", "form of log lines: json or console", field="", choices=("json", "console")),
    Flag("zap-log-level", "level", None, "debug, info, error, or a verbosity as a whole number", field=""),
    Flag("zap-stacktrace-level", "choice", None, "level from which stack traces are logged: info, error or panic",
         field="", choices=("info", "warn", "error", "panic"), effective=False),
    Flag("zap-time-encoding", "choice", "rfc3339",
         "form of times in the log: epoch, millis, nano, iso8601, rfc3339 or rfc3339nano", field="log_time_encoding",
         choices=("epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano")),
    Flag("decision-log", "path", "", "file that gets a JSON line for every routed request, for study and replay"),
    Flag("decision-log-max-bytes", "size", "100Mi",
         "size, 64Ki at least: a write that would pass it turns decision-log into FILE.1 and begins a new one",
         low=1 << 16),
    Flag("decision-log-files", "int", "4", "older files of decision-log that are kept: FILE.1, FILE.2, ...",
         low=0, high=10_000),
    Flag("decision-log-prefix-hashes", "bool", "false",
         "decision-log tells prompts as hashes of their blocks, under a key of this process"),
    Flag("tracing", "bool", "true", "OpenTelemetry traces", effective=False),
)  # fmt: skip

FLAGS: tuple[Flag, ...] = (*_LISTENERS, *_TLS, *_POOL, *_ANSWER, *_SIGNALS, *_CONFIGURATION, *_LOGS)

VARIABLES: tuple[Flag, ...] = (
    Flag("SD_QUEUE_DEPTH_THRESHOLD", "int", None, "waiting requests at which an endpoint is saturated",
         field="saturation_queue_depth_threshold", low=1),
    Flag("SD_KV_CACHE_UTIL_THRESHOLD", "fraction", None, "KV cache use at which an endpoint is saturated",
         field="saturation_kv_utilization_threshold"),
    Flag("SD_METRICS_STALENESS_THRESHOLD", "duration", None, "age at which values count as missing",
         field="saturation_metrics_staleness_threshold_s", low=1e-9),
)  # fmt: skip
"""Settings of the seed era that exist in the environment alone."""
