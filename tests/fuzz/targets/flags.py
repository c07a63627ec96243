# SPDX-License-Identifier: Apache-2.0
"""Command lines and environments.

* `parse` gives options, or raises a `UsageError` of one line, or asks for the help text.
* Notes are one line each, and Unicode; reading the same again gives the same.
* Addresses, durations and sizes are in range.
"""

from __future__ import annotations

import math

from epp.contract.errors import UsageError
from epp.service.flags.parsing import HelpRequested, parse
from epp.service.flags.table import FLAGS, VARIABLES
from tests.fuzz.harness import Run, Target, one_line

_WORD, _VARIABLES = b"\0", b"\1"


def _make() -> Run:
    def run(data: bytes) -> None:
        line, _, variables = data.partition(_VARIABLES)
        argv = [word.decode("utf-8", "surrogateescape") for word in line.split(_WORD)] if line else []
        environ = {}
        for pair in variables.split(_WORD):
            name, equals, value = pair.decode("utf-8", "surrogateescape").partition("=")
            if equals:
                environ[name] = value
        try:
            options = parse(argv, environ)
        except HelpRequested:
            return
        except UsageError as error:
            one_line(error)
            return
        for note in options.warnings:
            one_line(UsageError(note))
        assert parse(argv, environ) == options
        assert options.refresh_metrics_interval_s >= 0.05
        assert math.isfinite(options.refresh_metrics_interval_s)
        assert options.max_body_bytes >= 1
        assert all(1 <= address.port <= 65535 for address in options.endpoints)

    return run


def _seeds() -> list[bytes]:
    lines = [
        ["-poolName", "x", "--poolNamespace=y", "-grpcPort=9002", "-v", "4", "-secureServing=false", "--", "--rest"],
        ["--endpoints", "10.0.0.1:8000,[fd00::1]:8000", "--endpoints=10.0.0.2:1", "--max-body-size=64Mi", "-v=5", "-v5"],
        ["--refresh-metrics-interval=1m30.5s", "--drain-timeout", "0", "--tls-min-version=VersionTLS12", "--seed=0x1F"],
        ["--endpoint-selector=app=vllm,tier in (a,b),!canary", "--endpoint-target-ports=8000,8001", "true"],
        ["--total-queued-requests-metric", 'q{a=b,c="d"}', "--cache-info-metric=", "--zap-log-level=debug", "--zap-devel"],
        ["--config-text", "{}", "--plugin-dir=a", "--plugin-dir=b", "--tls-cipher-suites=TLS_AES_128_GCM_SHA256"],
        ["--helpp"], ["--help"], ["-"], ["---x"],
    ]  # fmt: skip
    environment = b"GRPC_PORT=tcp://10.0.0.1:9002\0POOL_NAME=p\0SD_KV_CACHE_UTIL_THRESHOLD=0.8\0NAMESPACE=n"
    return [_WORD.join(word.encode() for word in line) + _VARIABLES + environment for line in lines]


_WORDS = (
    *(b"--" + flag.name.encode() for flag in FLAGS), *(row.name.encode() + b"=" for row in VARIABLES),
    *(flag.env.encode() + b"=" for flag in FLAGS if flag.env), b"\0", b"\1", b"=", b"-", b"1e999", b"nan", b"9" * 400, b"0x",
    b"\n", b"\xff", b"\xe2\x80\xa8", b"true", b"1h1h", b"-1", b"1Ei", b"99999999Ei", b"1e99", b"::1", b"[::]:1", b"(", b", ", b"!",
    b"in (", b"a" * 300, b"\xd9\xa3", b"\xc2\xb2", b"{", b"}", b'"',
)  # fmt: skip
TARGET = Target("flags", _make, _seeds, _WORDS)
