# SPDX-License-Identifier: Apache-2.0
"""What single flags cannot know: defaults, flags that exclude or need each other, several flags for one meaning.

`settle` turns what was given into `Options`. Mistakes raise `UsageError`; what can be put right is put right and noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.contract.errors import UsageError
from epp.service.flags.ciphers import GONE_NAMES, OPENSSL_NAMES, TLS13_NAMES
from epp.service.flags.kinds import convert
from epp.service.flags.manypools import pools_of
from epp.service.flags.options import Options
from epp.service.flags.table import FLAGS, VARIABLES

_DEFAULT_VERBOSITY = 2
_SHORTEST_REFRESH_S = 0.05
_MOST_TARGET_PORTS = 8
_FIXTURE = frozenset(("pool-name", "pool-namespace", "zap-encoder", "grpc-port", "grpc-health-port"))
"""What the conformance tests say at the start of a picker."""
_BESIDE_FIXTURE = frozenset((
    "pool-group", "kubeconfig", "metrics-port", "bind-address", "v", "zap-devel", "zap-log-level",
    "zap-stacktrace-level", "zap-time-encoding", "conformance",
))  # fmt: skip
"""What may be said besides without another meaning."""


def settle(given: Mapping[str, Any], environ: Mapping[str, str], notes: list[str]) -> Options:
    """The options from the values given by canonical name; adds to `notes` what a person should know."""
    rows = (*FLAGS, *VARIABLES)
    defaults = {row.name: None if row.default is None else convert(row, row.default) for row in rows}
    values: dict[str, Any] = {**defaults, **given}
    _check_ports(values)
    _check_exclusions(values, given, notes)
    fields = {row.option: values[row.name] for row in rows if row.option}
    fields |= _tls(values, notes)
    fields |= _pool(values, environ, notes)
    fields |= _logs(values, given, notes)
    fields["refresh_metrics_interval_s"] = refresh_s = _refresh_s(values["refresh-metrics-interval"], notes)
    if 0 < values["metrics-idle-interval"] < refresh_s:
        notes.append(f"--metrics-idle-interval is below --refresh-metrics-interval ({refresh_s:g}s) and has no effect")
    fields["grpc_max_recv_msg_bytes"] = values["grpc-max-recv-msg-size"] or None
    fields["grpc_max_send_msg_bytes"] = values["grpc-max-send-msg-size"] or None
    fields["config_text"] = values["config-text"] or None
    fields["conformance"] = not fields["pool_names"] and _conformance(values, given, notes)
    fields["without_effect"] = tuple(sorted(row.name for row in rows if not row.effective and given.get(row.name)))
    fields["warnings"] = tuple(notes)
    return Options(**fields)


def _check_ports(values: Mapping[str, Any]) -> None:
    taken: dict[int, str] = {}
    for name in ("grpc-port", "grpc-health-port", "metrics-port"):
        port = values[name]
        if port and port in taken:
            raise UsageError(f"--{taken[port]} and --{name} are both {port}: give each listener a port of its own")
        taken[port] = name


def _check_exclusions(values: Mapping[str, Any], given: Mapping[str, Any], notes: list[str]) -> None:
    for one, other in (("config-file", "config-text"), ("pool-name", "endpoint-selector")):
        if values[one] and values[other]:
            raise UsageError(f"--{one} and --{other} exclude each other: give one of them")
    ports = len(set(values["endpoint-target-ports"]))
    if values["endpoint-selector"] and not 1 <= ports <= _MOST_TARGET_PORTS:
        raise UsageError(
            f"--endpoint-selector needs 1 to {_MOST_TARGET_PORTS} ports in --endpoint-target-ports, there are {ports}"
        )
    if ports and not values["endpoint-selector"]:
        notes.append("--endpoint-target-ports says something only together with --endpoint-selector")
    if values["metrics-client-ca-file"] and not values["metrics-cert-dir"]:
        raise UsageError("--metrics-client-ca-file needs --metrics-cert-dir: the certificate of the metrics page")
    if values["metrics-cert-dir"] and not (values["metrics-client-ca-file"] or values["metrics-endpoint-auth"]):
        raise UsageError("--metrics-cert-dir needs --metrics-client-ca-file or --metrics-endpoint-auth=true")
    if values["echo-headers"] and values["response-phase"] in ("release", "auto"):
        notes.append("--echo-headers echoes no response headers while responses are not followed (--response-phase)")
    if not values["decision-log"]:
        unused = [name for name in given if name.startswith("decision-log-") and given[name]]
        notes.extend([f"--{name} says something only together with --decision-log" for name in unused])
    if values["emit-decision-header"] and values["response-phase"] == "release":
        notes.append("--emit-decision-header sets nothing with --response-phase=release: no response is seen")
    if values["cert-path"] and not values["secure-serving"]:
        notes.append("--cert-path is not used, because --secure-serving is false")
    if values["enable-cert-reload"] and values["secure-serving"] and not values["cert-path"]:
        notes.append("--enable-cert-reload has nothing to read again without --cert-path")


def _conformance(values: Mapping[str, Any], given: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether the conformance tests' configuration is meant: asked for, or started as their fixture starts it.

    The fixture says names, ports and how to log, all of that and nothing else. Whoever says less, or anything else,
    serves real clients.
    """
    wanted, own = values["conformance"], "config-file" if values["config-file"] else "config-text"
    if wanted == "on" and values[own]:
        raise UsageError(
            f"--conformance=on and --{own} exclude each other: name its plugins in the configuration, "
            "header-based-testing-filter and destination-endpoint-served-verifier"
        )
    alike = bool(values["pool-name"]) and _FIXTURE <= given.keys() <= _FIXTURE | _BESIDE_FIXTURE
    on = wanted == "on" or (wanted == "auto" and alike)
    if on and values["response-phase"] == "release":
        notes.append("with --response-phase=release no response says which endpoint answered (--conformance)")
    return on


def _tls(values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    oldest, asked = values["tls-min-version"], dict.fromkeys(values["tls-cipher-suites"])
    if oldest in ("VersionTLS10", "VersionTLS11"):
        notes.append(f"--tls-min-version {oldest} is older than HTTP/2 allows; TLS 1.2 is the oldest spoken")
    version = "TLSv1.3" if oldest == "VersionTLS13" else "TLSv1.2"
    gone = [name for name in asked if name in GONE_NAMES]
    suites = tuple(dict.fromkeys(OPENSSL_NAMES[name] for name in asked if name in OPENSSL_NAMES))
    if gone:
        notes.append(f"--tls-cipher-suites: {', '.join(gone)} no longer exist in OpenSSL and are left out")
    if asked and not suites:
        # With none of its suites left, TLS 1.2 could agree with nobody: the same as asking for 1.3.
        if not TLS13_NAMES.intersection(asked):
            raise UsageError("--tls-cipher-suites names no cipher suite that still exists: name one with AES-GCM")
        notes.append("--tls-cipher-suites names suites of TLS 1.3 alone, so TLS 1.3 is the oldest spoken")
        version = "TLSv1.3"
    return {"tls_min_version": version, "tls_cipher_suites": suites}


def _pool(values: Mapping[str, Any], environ: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    endpoints = tuple(dict.fromkeys(values["endpoints"]))
    if len(endpoints) < len(values["endpoints"]):
        notes.append("--endpoints names an address more than once; each counts once")
    return {
        **pools_of(values, environ, notes),
        "pod_name": environ.get("POD_NAME", ""),
        "endpoint_target_ports": tuple(dict.fromkeys(values["endpoint-target-ports"])),
        "endpoints": endpoints,
    }


def _logs(values: Mapping[str, Any], given: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    verbosity = values["v"]
    if verbosity < 0:
        notes.append(f"-v {verbosity} is negative; {_DEFAULT_VERBOSITY} is used")
        verbosity = _DEFAULT_VERBOSITY
    if values["zap-log-level"] is not None:
        verbosity = values["zap-log-level"]
    console = values["zap-devel"] and "zap-encoder" not in given
    return {"verbosity": verbosity, "log_encoder": "console" if console else values["zap-encoder"]}


def _refresh_s(asked_s: float, notes: list[str]) -> float:
    if asked_s >= _SHORTEST_REFRESH_S:
        return asked_s
    notes.append(f"--refresh-metrics-interval of {asked_s:g}s is below the minimum; 50ms is used")
    return _SHORTEST_REFRESH_S
