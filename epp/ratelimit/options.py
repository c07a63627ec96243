# SPDX-License-Identifier: Apache-2.0
"""The command line of `epp ratelimit`, as typed values. Reads no file and opens no socket."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epp.contract.errors import UsageError
from epp.contract.redisurl import REDIS_VARIABLE, redis_url
from epp.oneline import OneLineParser, add_log_encoder, duration_s, port, verbosity, whole

_LOOPBACK = "127.0.0.1"
_MOST_COUNTERS = 100_000_000
_duration = duration_s("0s to 1h", 3600.0)
_EPILOG = """\
Redis: the URL may also come from the environment, REDIS_URL, so that a password is not in the list of processes.
Durations: 50ms, 1m30s, 1h. A configuration FILE is in the form of envoyproxy/ratelimit (domain, descriptors), or holds
Kubernetes manifests: BackendTrafficPolicy with the Gateway and the routes it is for. A folder stands for its files,
and for those of its subfolder config. Changed files are in use a second later; counters stay.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. An empty `bind_address` is every interface; a port of 0 is any free one.

    * redis: URL of Redis or Valkey, None for counters in memory; redis_in_argv: it came from the command line
    * cert_path: directory of tls.crt and tls.key, None for plain HTTP/2; client_ca_file: who may connect, None for all
    """

    config: tuple[Path, ...]
    bind_address: str
    port: int
    metrics_port: int
    cert_path: Path | None
    client_ca_file: Path | None
    redis: str | None
    redis_in_argv: bool
    key_prefix: str
    window: Literal["fixed", "sliding"]
    on_storage_failure: Literal["allow", "deny", "error"]
    storage_timeout_s: float
    most_counters: int
    response_headers: bool
    shadow: bool
    drain_timeout_s: float
    log_encoder: Literal["json", "console"]
    verbosity: int
    check: bool


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The options that `argv` (without the program's name) and the environment ask for. Raises `UsageError`."""
    given = _parser().parse_args(list(argv))
    if not given.config:
        raise UsageError("--config is missing; give a file of rules or of manifests, or a folder of these")
    if given.client_ca_file is not None and given.cert_path is None:
        raise UsageError("--client-ca-file needs --cert-path: clients show certificates over TLS alone")
    text = given.redis if given.redis is not None else environ.get(REDIS_VARIABLE, "")
    values = vars(given) | {
        "config": tuple(given.config),
        "redis": redis_url(text),
        "redis_in_argv": bool(given.redis),
    }
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp ratelimit",
        description="Envoy's rate limit service (envoy.service.ratelimit.v3) for the limits in configuration files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_serving(parser)
    _add_counters(parser)
    _add_rest(parser)
    return parser


def _add_serving(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, action="append", metavar="FILE", help="rules or manifests, or a folder; repeatable")
    add(
        "--bind-address",
        type=_address,
        default=_LOOPBACK,
        metavar="IP",
        help='address of both ports; "" or :: for every interface (%(default)s)',
    )
    add("--port", type=port, default=8081, metavar="P", help="gRPC, with health; 0: a free port (%(default)s)")
    add(
        "--metrics-port",
        type=port,
        default=6070,
        metavar="P",
        help="HTTP: /metrics, /rlconfig, /healthcheck (%(default)s)",
    )
    add(
        "--cert-path",
        type=Path,
        metavar="DIR",
        help="tls.crt and tls.key for the gRPC port; read again when they change",
    )
    add("--client-ca-file", type=Path, metavar="FILE", help="clients must show a certificate of one of these, PEM")


def _add_counters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--redis", metavar="URL", help="counters in Redis or Valkey, shared by all replicas; else in memory")
    add("--key-prefix", type=_prefix, default="epp", metavar="TEXT", help="what its keys begin with (%(default)s)")
    add(
        "--window",
        choices=("fixed", "sliding"),
        default="fixed",
        help="how counters forget: all at once on the full hour, minute, ...; or bit by bit (%(default)s)",
    )
    add(
        "--on-storage-failure",
        choices=("allow", "deny", "error"),
        default="allow",
        help="what calls get without counters; error leaves it to Envoy's failure_mode_deny (%(default)s)",
    )
    add(
        "--storage-timeout",
        type=_positive_duration,
        default=0.1,
        dest="storage_timeout_s",
        metavar="DURATION",
        help="how long the storage may take for one answer (100ms)",
    )
    add(
        "--most-counters",
        type=whole("number of counters", 1, _MOST_COUNTERS),
        default=1_000_000,
        metavar="N",
        help="counters held in memory; what would be one more is not counted (%(default)s)",
    )


def _add_rest(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--response-headers",
        action="store_true",
        help="add RateLimit-* headers, for proxies that make none (Envoy does)",
    )
    add("--shadow", action="store_true", help="count and say what would be over, but let everything pass")
    add(
        "--drain-timeout",
        type=_duration,
        default=5.0,
        dest="drain_timeout_s",
        metavar="DURATION",
        help="after SIGTERM: not ready, but still answering, for so long (5s)",
    )
    add_log_encoder(parser)
    add(
        "-v",
        "--verbosity",
        type=verbosity,
        default=2,
        metavar="N",
        help="2 info, 3 verbose, 4 debug, 5 trace (%(default)s)",
    )
    add("--check", action="store_true", help="read the configuration, print its rules, and end")


def _address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare)) if bare else ""
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no IP address; allowed: an address such as 127.0.0.1 or ::1, empty for every interface"
        ) from None


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if seconds < 0.001:
        raise argparse.ArgumentTypeError(f"{text!r} is too short; allowed: 1ms to 1h")
    return seconds


def _prefix(text: str) -> str:
    if not (text.isascii() and text.isprintable() and " " not in text and 0 < len(text) <= 64):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no prefix; allowed: 1 to 64 printable ASCII characters without spaces"
        )
    return text
