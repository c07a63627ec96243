# SPDX-License-Identifier: Apache-2.0
"""How the command line and the environment become options: forms, precedence, mistakes, help."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from shlex import split
from typing import Any

import pytest

from epp.contract.errors import UsageError
from epp.service.flags.options import Options
from epp.service.flags.parsing import HelpRequested, parse, usage
from epp.service.flags.table import FLAGS, VARIABLES, Flag
from epp.service.flags.values import Address

BY_NAME = {flag.name: flag for flag in FLAGS}


def test_the_table_and_the_options_agree() -> None:
    fields = {field.name for field in dataclasses.fields(Options)}
    assert {flag.option for flag in (*FLAGS, *VARIABLES) if flag.option} <= fields
    spellings = [spelling for flag in FLAGS for spelling in flag.spellings]
    assert len(spellings) == len(set(spellings))


def test_seed_era_names_are_known() -> None:
    for name in split(
        "grpcPort grpcHealthPort metricsPort enablePprof destinationEndpointHintKey poolName poolNamespace v"
        " DestinationEndpointHintMetadataNamespace refreshMetricsInterval refreshPrometheusMetricsInterval"
        " secureServing healthChecking certPath totalQueuedRequestsMetric kvCacheUsagePercentageMetric loraInfoMetric"
        " configFile configText modelServerMetricsPort modelServerMetricsPath modelServerMetricsScheme"
        " modelServerMetricsHttpsInsecureSkipVerify zap-devel zap-encoder zap-log-level zap-stacktrace-level"
        " zap-time-encoding"
    ):
        assert any(name in flag.spellings for flag in FLAGS), name


def test_newest_names_are_known() -> None:
    for name in split(
        "grpc-port grpc-health-port metrics-port ha-enable-leader-election drain-timeout grpc-max-recv-msg-size"
        " grpc-max-send-msg-size pool-group pool-namespace pool-name endpoint-selector endpoint-target-ports"
        " disable-endpoint-subset-filter emit-endpoint-scores refresh-metrics-interval"
        " refresh-prometheus-metrics-interval metrics-staleness-threshold total-queued-requests-metric"
        " total-running-requests-metric kv-cache-usage-percentage-metric lora-info-metric cache-info-metric v tracing"
        " health-checking enable-pprof cert-path enable-cert-reload secure-serving tls-min-version tls-cipher-suites"
        " metrics-endpoint-auth metrics-cert-dir metrics-client-ca-file enable-grpc-stream-metrics config-file"
        " config-text allow-experimental-plugins model-server-metrics-port model-server-metrics-path"
        " model-server-metrics-scheme model-server-metrics-https-insecure-skip-verify"
    ):
        assert BY_NAME[name].name == name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope"], "unknown flag: --nope; --help lists all flags"),
        (["-poolNam", "x"], "unknown flag: --poolNam; did you mean --pool-name?"),
        (["--grpc_port=1"], "unknown flag: --grpc_port; did you mean --grpc-port?"),
        (["--v4"], "unknown flag: --v4"),
        (["---x"], "bad flag syntax: ---x"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--grpc-port"], "flag needs an argument: --grpc-port"),
        (["--poolName"], "flag needs an argument: --pool-name"),
        (["-v"], "flag needs an argument: --v"),
        (
            ["--grpc-port", "abc"],
            'invalid argument "abc" for "--grpc-port" flag: must be a whole number from 0 to 65535',
        ),
        (["--metricsPort=65536"], 'invalid argument "65536" for "--metrics-port" flag: must be a whole number from 0'),
        (["-v", "x"], 'invalid argument "x" for "-v, --v" flag: must be a whole number'),
        (["--health-checking=maybe"], 'invalid argument "maybe" for "--health-checking" flag: must be true or false'),
        (["--drain-timeout", "5"], 'invalid argument "5" for "--drain-timeout" flag: must be a duration with a unit'),
        (["--drain-timeout=-1s"], "must be a duration of at least 0s"),
        (["--metrics-idle-interval=2m"], "must be a duration of at most 60s"),
        (["--metrics-idle-interval=-1s"], "must be a duration of at least 0s"),
        (["--metrics-max-loop-share=0"], "must be a number above 0 and at most 1"),
        (["--transport", "h3"], 'invalid argument "h3" for "--transport" flag: must be one of ngh2, grpcio'),
        (["--response-phase=none"], "must be one of full, headers, release, auto"),
        (["--max-body-size", "0"], "must be a size of at least 1 B"),
        (
            ["--decision-log-max-bytes=65535"],
            'invalid argument "65535" for "--decision-log-max-bytes" flag: must be a size of at least 65536 B',
        ),
        (["--max-body-size", ""], "must be a size in bytes"),
        (["--grpc-max-recv-msg-size=1K"], "must be a size in bytes"),
        (
            ["--endpoints", "10.0.0.1:1,pod:2"],
            'invalid argument "10.0.0.1:1,pod:2" for "--endpoints" flag: must be IP:',
        ),
        (["--tls-cipher-suites=NULL"], "must be one of TLS_ECDHE_ECDSA"),
        (
            ["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
            "--tls-cipher-suites names no cipher suite that still exists",
        ),
        (["--tls-min-version=1.2"], "must be one of VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13"),
        (["--lora-info-metric", "{}"], "must be a metric"),
        (["--endpoint-selector", "a in"], "must be a label selector"),
        (["--config-file=a", "--config-text=b"], "--config-file and --config-text exclude each other"),
        (["--pool-name=a", "--endpoint-selector=b"], "--pool-name and --endpoint-selector exclude each other"),
        (["--endpoint-selector=b"], "--endpoint-selector needs 1 to 8 ports in --endpoint-target-ports, there are 0"),
        (["--endpoint-selector=b", "--endpoint-target-ports=1,2,3,4,5,6,7,8,9"], "there are 9"),
        (["--metrics-client-ca-file=a"], "--metrics-client-ca-file needs --metrics-cert-dir"),
        (
            ["--metrics-cert-dir=a", "--metrics-endpoint-auth=false"],
            "--metrics-cert-dir needs --metrics-client-ca-file or --metrics-endpoint-auth=true",
        ),
        (["--conformance=yes"], "must be one of auto, on, off"),
        (["--conformance=on", "--config-text=x"], "--conformance=on and --config-text exclude each other: name its"),
        (["--conformance=on", "--config-file=x"], "--conformance=on and --config-file exclude each other: name its"),
        (["--metrics-port=9002"], "--grpc-port and --metrics-port are both 9002"),
        (["--pool-name", "x", "--a\x1b[31m\nb"], r"unknown flag: --a\x1b[31m\nb;"),
    ],
)
def test_mistakes(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    said = str(caught.value)
    assert said.startswith(message) or f" flag: {message}" in said or said.endswith(message)
    assert said.isprintable()


@pytest.mark.parametrize(
    ("argv", "warning"),
    [
        (
            ["--secureServing", "false"],
            '"false" is no flag and was skipped; a switch takes its value with "=": --secure',
        ),
        (["stray", "--v=3"], 'argument "stray" is no flag and was skipped'),
        (["--", "--grpc-port"], 'argument "--grpc-port" is no flag and was skipped'),
        (["--pool-name", "--grpc-port"], '--pool-name took "--grpc-port" as its value'),
        (["--poolName=a", "--pool-name=b"], "--pool-name names 2 pools, and each is served: a, b"),
        (["--refresh-metrics-interval=10ms"], "--refresh-metrics-interval of 0.01s is below the minimum; 50ms is used"),
        (["--metrics-idle-interval=20ms"], "is below --refresh-metrics-interval (0.05s) and has no effect"),
        (["-v=-1"], "-v -1 is negative; 2 is used"),
        (["--endpoints=10.0.0.1:1,10.0.0.1:1"], "--endpoints names an address more than once"),
        (["--endpoint-target-ports=80"], "--endpoint-target-ports says something only together"),
        (["--secure-serving=false", "--cert-path=/c"], "--cert-path is not used"),
        (["--enable-cert-reload"], "--enable-cert-reload has nothing to read again"),
        (["--tls-min-version=VersionTLS10"], "VersionTLS10 is older than HTTP/2 allows"),
        (["--tls-cipher-suites=TLS_AES_128_GCM_SHA256"], "TLS 1.3 is the oldest spoken"),
        (
            ["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA,TLS_RSA_WITH_AES_128_GCM_SHA256"],
            "TLS_RSA_WITH_RC4_128_SHA no longer exist in OpenSSL",
        ),
    ],
)
def test_warnings(argv: list[str], warning: str) -> None:
    (only,) = parse(argv, {}).warnings
    assert warning in only


@pytest.mark.parametrize(
    "argv", [["", ""], ["--v=2", "", "--grpc-port", "9002", ""], ["--pool-name="], ["--config-text", ""]]
)
def test_no_warnings(argv: list[str]) -> None:
    assert parse(argv, {}) == parse([], {})


def test_cipher_suites_of_tls_13_alone_mean_tls_13() -> None:
    options = parse(["--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA"], {})
    assert (options.tls_min_version, options.tls_cipher_suites) == ("TLSv1.3", ())


def test_dashes_end_the_flags() -> None:
    assert parse(["--grpc-port=1", "--", "--grpc-port=2", "--help"], {}).grpc_port == 1


@pytest.mark.parametrize(
    ("argv", "verbosity"),
    [
        ([], 2), (["-v", "4"], 4), (["-v=4"], 4), (["-v4"], 4), (["--v", "3"], 3), (["-v=-3"], 2), (["-v-3"], 2),
        (["-v=5", "--zap-log-level=info"], 0), (["--zap-log-level", "debug", "-v", "5"], 1),
        (["--zap-log-level=error"], -1), (["--zap-log-level=4"], 4),
    ],
)  # fmt: skip
def test_verbosity(argv: list[str], verbosity: int) -> None:
    assert parse(argv, {}).verbosity == verbosity


@pytest.mark.parametrize(
    ("argv", "encoder"),
    [
        ([], "json"), (["--zap-encoder=Console"], "console"), (["--zap-devel"], "console"),
        (["--zap-devel=false"], "json"), (["--zap-devel", "--zap-encoder", "json"], "json"),
    ],
)  # fmt: skip
def test_log_encoder(argv: list[str], encoder: str) -> None:
    assert parse(argv, {}).log_encoder == encoder


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--endpoints", "10.0.0.1:80,[::1]:81", "--endpoints=10.0.0.2:80"],
         {"endpoints": (Address("10.0.0.1", 80), Address("::1", 81), Address("10.0.0.2", 80))}),
        (["--plugin-dir", "a", "--plugin-dir=b,c"], {"plugin_dirs": (Path("a"), Path("b,c"))}),
        (["--max-body-size=1Gi", "--grpc-max-recv-msg-size", "25MB"],
         {"max_body_bytes": 2**30, "grpc_max_recv_msg_bytes": 25_000_000}),
        (["--grpc-max-recv-msg-size=0"], {}),
        (["--metrics-staleness-threshold=0", "--drain-timeout=1m30s", "--refreshMetricsInterval", "1.5s"],
         {"metrics_staleness_threshold_s": 0.0, "drain_timeout_s": 90.0, "refresh_metrics_interval_s": 1.5}),
        (["--tls-min-version=VersionTLS13"], {"tls_min_version": "TLSv1.3"}),
        (["--tls-cipher-suites", "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
          "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"],
         {"tls_cipher_suites": ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305")}),
        (["-DestinationEndpointHintMetadataNamespace", "", "-destinationEndpointHintKey", "X-Pick"],
         {"destination_endpoint_hint_metadata_namespace": "", "destination_endpoint_hint_key": "x-pick"}),
        (["--endpoint-selector=app=vllm", "--endpoint-target-ports=80,81", "--endpointTargetPorts", "80"],
         {"endpoint_selector": "app=vllm", "endpoint_target_ports": (80, 81)}),
        (["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0", "--seed=7", "--strict", "--echo-headers"],
         {"grpc_port": 0, "grpc_health_port": 0, "metrics_port": 0, "seed": 7, "strict": True, "echo_headers": True}),
        (["--tracing=false", "--enable-pprof=0", "--metrics-cert-dir", "", "--grpc-max-send-msg-size="],
         {"tracing": False, "enable_pprof": False}),
        (["--config-text", "---\nkind: EndpointPickerConfig"], {"config_text": "---\nkind: EndpointPickerConfig"}),
        (["--pool-namespace", ""], {}),
    ],
)  # fmt: skip
def test_meanings(argv: list[str], expected: dict[str, Any]) -> None:
    assert parse(argv, {}) == dataclasses.replace(parse([], {}), **expected)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("GRPC_PORT", "1", {"grpc_port": 1}),
        ("GRPC_HEALTH_PORT", "1", {"grpc_health_port": 1}),
        ("DESTINATION_ENDPOINT_HINT_KEY", "x-a", {"destination_endpoint_hint_key": "x-a"}),
        ("POOL_NAME", "p", {"pool_name": "p"}),
        ("POOL_NAMESPACE", "n", {"pool_namespace": "n"}),
        ("NAMESPACE", "n", {"pool_namespace": "n"}),
        ("POD_NAME", "epp-1", {"pod_name": "epp-1"}),
        ("REFRESH_METRICS_INTERVAL", "1s", {"refresh_metrics_interval_s": 1.0}),
        ("SECURE_SERVING", "false", {"secure_serving": False}),
        ("MODEL_SERVER_METRICS_PORT", "81", {"model_server_metrics_port": 81}),
        ("MODEL_SERVER_METRICS_PATH", "/m", {"model_server_metrics_path": "/m"}),
        ("MODEL_SERVER_METRICS_SCHEME", "https", {"model_server_metrics_scheme": "https"}),
        (
            "MODEL_SERVER_METRICS_HTTPS_INSECURE_SKIP_VERIFY",
            "f",
            {"model_server_metrics_https_insecure_skip_verify": False},
        ),
        (
            "SD_QUEUE_DEPTH_THRESHOLD",
            "7",
            {"saturation_queue_depth_threshold": 7},
        ),
        (
            "SD_KV_CACHE_UTIL_THRESHOLD",
            "0.9",
            {"saturation_kv_utilization_threshold": 0.9},
        ),
        (
            "SD_METRICS_STALENESS_THRESHOLD",
            "200ms",
            {"saturation_metrics_staleness_threshold_s": 0.2},
        ),
        ("GRPC_PORT", "", {}),
        ("METRICS_PORT", "1", {}),
    ],
)
def test_environment(variable: str, text: str, expected: dict[str, Any]) -> None:
    assert parse([], {variable: text}) == dataclasses.replace(parse([], {}), **expected)


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("GRPC_PORT", "x", "must be a whole number from 0 to 65535"),
        ("SECURE_SERVING", "yes", "must be true or false"),
        ("REFRESH_METRICS_INTERVAL", "50", "must be a duration"),
        ("MODEL_SERVER_METRICS_SCHEME", "ftp", "must be one of http, https"),
        ("SD_QUEUE_DEPTH_THRESHOLD", "0", "must be a whole number of at least 1"),
        ("SD_KV_CACHE_UTIL_THRESHOLD", "nan", "must be a number above 0 and at most 1"),
        ("SD_METRICS_STALENESS_THRESHOLD", "0", "must be a duration of at least"),
    ],
)
def test_a_bad_variable_is_named(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=f'^invalid value "{text}" of environment variable {variable}: {allowed}'):
        parse([], {variable: text})


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"GRPC_PORT": "nonsense", "POOL_NAMESPACE": "b", "NAMESPACE": "c"}
    options = parse(["--grpcPort=1", "--pool-namespace=a"], environ)
    assert (options.grpc_port, options.pool_namespace, options.warnings) == (1, "a", ())
    assert parse([], {"POOL_NAMESPACE": "b", "NAMESPACE": "c"}).pool_namespace == "b"


def test_a_service_link_of_kubernetes_is_no_port() -> None:
    options = parse([], {"GRPC_PORT": "tcp://10.96.0.7:9002"})
    assert options.grpc_port == 9002
    assert "GRPC_PORT" in options.warnings[0]


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_after_any_flag(flag: Flag, word: str) -> None:
    for spelling in flag.spellings:
        with pytest.raises(HelpRequested):
            parse([f"--{spelling}", word], {"GRPC_PORT": "bad"})


def test_help_has_pflags_shape() -> None:
    lines = usage().splitlines()
    for flag in FLAGS:
        (line,) = (line for line in lines if line.lstrip(" ").removeprefix("-v, ").split(" ")[0] == f"--{flag.name}")
        assert line.startswith("  -v, --v int   " if flag.name == "v" else f"      --{flag.name} ")
        assert flag.help in line
        assert ("(no effect yet)" in line) is not flag.effective
    assert "      --secure-serving   " in usage()
    assert max(len(line) for line in lines) < 240
    (line,) = (line for line in lines if " --v int" in line)
    assert line.endswith("(default 2)")


FIXTURE = split("--pool-name P --pool-namespace N --zap-encoder json --grpc-port 9002 --grpc-health-port 9003")


@pytest.mark.parametrize(
    ("argv", "on"),
    [
        (FIXTURE, True),
        ([*FIXTURE, "--v", "4", "--metrics-port=1", "--kubeconfig=k"], True),
        ([*FIXTURE, "--conformance=off"], False),
        ([*FIXTURE, "--config-text", "plugins: []"], False),
        ([*FIXTURE, "--config-file=c"], False),
        ([*FIXTURE, "--endpoints=10.0.0.1:1"], False),
        ([*FIXTURE, "--endpoints-file=e"], False),
        # KServe with a configuration that somebody took away.
        ([*FIXTURE, "--secure-serving", "--cert-path", "/etc/ssl/certs"], False),
        ([*FIXTURE, "--ha-enable-leader-election"], False),
        ([*FIXTURE, "--endpoints-file=e", "--conformance=on"], True),
        (["--conformance=on"], True),
        (["--conformance=auto"], False),
        (["--grpc-port=9002"], False),
        (split("--pool-name P --pool-namespace N"), False),
        (FIXTURE[:-2], False),
        (["--pool-name=", *FIXTURE[2:]], False),
    ],
)
def test_conformance_is_taken_for_granted_of_the_fixtures_command_line_alone(argv: list[str], on: bool) -> None:
    options = parse(argv, {})
    assert (options.conformance, options.warnings) == (on, ())


def test_conformance_that_sees_no_response_says_so() -> None:
    options = parse([*FIXTURE, "--conformance=on", "--response-phase=release"], {})
    [warning] = options.warnings
    assert warning.startswith("with --response-phase=release no response says which endpoint answered")


def test_unknown_flags_are_told_before_help() -> None:
    with pytest.raises(UsageError, match=r"^unknown flag: --nope"):
        parse(["--nope", "--help"], {})


def test_help_needs_little() -> None:
    """The help text needs nothing beyond the standard library, and none of its slow parts."""
    code = (
        "import sys; from epp.service.flags.parsing import usage; usage();"
        "print(*sorted({m.split('.')[0] for m in sys.modules} & set(sys.argv[1:])))"
    )
    slow = ["numpy", "grpc", "google", "msgspec", "yaml", "ngh2", "uvloop", "asyncio", "ssl", "prometheus_client"]
    done = subprocess.run([sys.executable, "-S", "-c", code, *slow], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2], timeout=30)  # fmt: skip
    assert done.stdout.strip() == ""
