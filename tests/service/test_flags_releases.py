# SPDX-License-Identifier: Apache-2.0
"""The exact command lines of deployments in the field: KServe's releases, the GIE chart, llm-d."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import split
from typing import Any

import pytest

from epp.service.flags.parsing import parse

CONFIG = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins: []\n"
CONFIG_JSON = '{"apiVersion":"llm-d.ai/v1alpha1","kind":"EndpointPickerConfig"}'

SEED_TWO = split(
    "--poolName qwen-inference-pool --poolNamespace llm --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003"
    " --secureServing --certPath /etc/ssl/certs --configFile /etc/config/endpoint-picker-config.yaml"
)
KSERVE_16_RC0 = [
    *split("--poolName P --poolNamespace N --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003"),
    *split("--secureServing --modelServerMetricsScheme https --modelServerMetricsHttpsInsecureSkipVerify"),
    *split("--certPath /etc/ssl/certs --configText"),
    CONFIG,
]
KSERVE_16 = [
    *split("--poolName P --poolNamespace N --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003 --configText"),
    CONFIG,
]
KSERVE_17 = [
    *split("--pool-name P --pool-namespace N --zap-encoder json --grpc-port 9002 --grpc-health-port 9003"),
    *split("--kv-cache-usage-percentage-metric vllm:kv_cache_usage_perc --ha-enable-leader-election --config-text"),
    CONFIG,
]
COMMAND_18 = split("--pool-name P --pool-namespace N --zap-encoder json --grpc-port 9002 --grpc-health-port 9003")
TLS_18 = split(
    "--enable-cert-reload=true --secure-serving=true --model-server-metrics-scheme=https"
    " --cert-path=/var/run/kserve/tls"
)
NO_TLS_18 = [""] * 4
SEED_ONE = split(
    "--poolName P --poolNamespace N --zap-encoder json --grpcPort 9002 --grpcHealthPort 9003 --secureServing"
    " --certPath /etc/ssl/certs --configFile /etc/config/endpoint-picker-config.yaml"
)
GIE_CHART = split(
    "-poolName N -poolNamespace NS --v 3 --grpcPort 9002 -grpcHealthPort 9003 -metricsPort 9090 -configFile"
    " config/default-plugins.yaml --enablePprof=true --modelServerMetricsPath=/metrics --modelServerMetricsScheme=http"
    " --modelServerMetricsHttpsInsecureSkipVerify=true"
)
TRITON = [
    *split("-totalQueuedRequestsMetric nv_trt_llm_request_metrics{request_type=waiting}"),
    *split("-kvCacheUsagePercentageMetric nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
    "-loraInfoMetric",
    "",
]
LLMD_02 = split(
    "-poolName P -poolNamespace default -v 4 --zap-encoder json -grpcPort 9002 -grpcHealthPort 9003"
    " --configFile /etc/epp/epp-config.yaml"
)
LLMD_03 = split(
    "--pool-name P --pool-namespace default --pool-group inference.networking.x-k8s.io --v 4 --zap-encoder json"
    " --grpc-port 9002 --grpc-health-port 9003 --config-file /etc/epp/epp-config.yaml"
)

POOL = {"pool_name": "P", "pool_namespace": "N"}
CERTS = {"cert_path": Path("/etc/ssl/certs")}
TLS = {
    "cert_path": Path("/var/run/kserve/tls"),
    "enable_cert_reload": True,
    "secure_serving": True,
    "model_server_metrics_scheme": "https",
}
FILE = {"config_file": Path("/etc/config/endpoint-picker-config.yaml")}

CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "second seed": (
        SEED_TWO,
        {"pool_name": "qwen-inference-pool", "pool_namespace": "llm", **CERTS, **FILE},
    ),
    "KServe v0.16.0-rc0": (
        KSERVE_16_RC0,
        {**POOL, **CERTS, "model_server_metrics_scheme": "https", "config_text": CONFIG},
    ),
    "KServe v0.16.0": (KSERVE_16, {**POOL, "config_text": CONFIG}),
    "KServe v0.17": (
        KSERVE_17,
        {
            **POOL,
            "kv_cache_usage_percentage_metric": "vllm:kv_cache_usage_perc",
            "ha_enable_leader_election": True,
            "config_text": CONFIG,
        },
    ),
    "KServe v0.18, TLS": (
        [*COMMAND_18, *TLS_18, "--config-text", CONFIG_JSON],
        {**POOL, **TLS, "config_text": CONFIG_JSON},
    ),
    "KServe v0.18, no TLS": (
        [*COMMAND_18, *NO_TLS_18, "--ha-enable-leader-election", "--config-text", CONFIG],
        {
            **POOL,
            "ha_enable_leader_election": True,
            "config_text": CONFIG,
        },
    ),
    "KServe v0.20, tracing": (
        [*COMMAND_18, *TLS_18, "--config-text", CONFIG, "--tracing=true"],
        {**POOL, **TLS, "config_text": CONFIG, "without_effect": ("tracing",)},
    ),
    "KServe v0.18 command, first seed's args": (
        [*COMMAND_18, *NO_TLS_18, *SEED_ONE],
        {**POOL, **CERTS, **FILE},
    ),
    "KServe v0.18 TLS command, first seed's args": (
        [*COMMAND_18, *TLS_18, *SEED_ONE],
        {
            **POOL,
            **TLS,
            **CERTS,
            **FILE,
            "warnings": ("--cert-path is given more than once with different values; the last one holds",),
        },
    ),
    "KServe samples": (
        [*COMMAND_18, "--secure-serving", "--cert-path", "/etc/ssl/certs", "--metrics-endpoint-auth=false", "-v=4"],
        {**POOL, **CERTS, "metrics_endpoint_auth": False, "verbosity": 4},
    ),
    "GIE chart": (
        GIE_CHART,
        {
            "pool_name": "N",
            "pool_namespace": "NS",
            "verbosity": 3,
            "config_file": Path("config/default-plugins.yaml"),
            "without_effect": ("enable-pprof",),
        },
    ),
    "GIE chart, Triton": (
        [*GIE_CHART, *TRITON],
        {
            "pool_name": "N",
            "pool_namespace": "NS",
            "verbosity": 3,
            "config_file": Path("config/default-plugins.yaml"),
            "total_queued_requests_metric": "nv_trt_llm_request_metrics{request_type=waiting}",
            "kv_cache_usage_percentage_metric": "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
            "lora_info_metric": "",
            "without_effect": ("enable-pprof",),
        },
    ),
    "llm-d v0.2.1": (
        LLMD_02,
        {"pool_name": "P", "verbosity": 4, "config_file": Path("/etc/epp/epp-config.yaml")},
    ),
    "llm-d v0.3.0": (
        LLMD_03,
        {
            "pool_name": "P",
            "pool_group": "inference.networking.x-k8s.io",
            "verbosity": 4,
            "config_file": Path("/etc/epp/epp-config.yaml"),
        },
    ),
}

ENVIRON = {"PD_ENABLED": "true", "PD_PROMPT_LEN_THRESHOLD": "10", "PYTHONHASHSEED": "42", "SSL_CERT_DIR": "/x"}


@pytest.mark.parametrize("name", CASES)
def test_command_line_means_what_it_meant(name: str) -> None:
    argv, differing = CASES[name]
    assert parse(argv, ENVIRON) == dataclasses.replace(parse([], {}), **differing)
