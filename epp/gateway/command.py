# SPDX-License-Identifier: Apache-2.0
"""`epp gateway`: the command line of the process, to its exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from epp.contract.errors import UsageError
from epp.contract.units import parse_duration_s
from epp.gateway.options import Options
from epp.oneline import OneLineParser


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop. Raises `EppError`, whose text is the one line to show."""
    options = parse(argv)
    from epp.gateway.process import run

    return run(options)


def parse(argv: Sequence[str]) -> Options:
    """The options that `argv` says. Raises `UsageError`."""
    given = _parser().parse_args(argv)
    if given.port and given.port == given.metrics_port:
        raise UsageError(f"--port and --metrics-port are both {given.port}: give each a port of its own")
    return Options(
        config=Path(given.config),
        port=given.port,
        metrics_port=given.metrics_port,
        bind_address=given.bind_address,
        drain_timeout_s=given.drain_timeout,
        log_encoder=given.zap_encoder,
        verbosity=given.v,
        watch_loop=given.watch_loop,
    )


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp gateway",
        allow_abbrev=False,
        description="Reads which model a request asks for, and tells Envoy, which routes by it (ext_proc, plaintext "
        "HTTP/2); counts the tokens of models that have no endpoint picker. Everything is in docs/gateway.md.",
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="the configuration, JSON; followed while it changes")
    add("--port", type=_port, default=9004, help="port of ext_proc and of gRPC health; 0: any free one (9004)")
    add("--metrics-port", type=_port, default=9091, help="port of the metrics page; 0: any free one (9091)")
    add("--bind-address", default="127.0.0.1", metavar="ADDRESS", help="address of both ports (127.0.0.1)")
    add("--drain-timeout", type=_duration_s, default=30.0, metavar="DURATION",
        help="time to go on accepting requests after SIGTERM, such as 500ms or 30s (30s)")  # fmt: skip
    add("--zap-encoder", choices=("json", "console"), default="json", help="form of log lines (json)")
    add("-v", type=_verbosity, default=2, metavar="LEVEL", help="log verbosity: 1 warnings to 5 trace (2)")
    add("--watch-loop", action="store_true", help="show the longest turns of the event loop on the metrics page")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; allowed: 0 to 65535")
    return int(text)


def _verbosity(text: str) -> int:
    if text not in ("0", "1", "2", "3", "4", "5"):
        raise argparse.ArgumentTypeError(f"{text!r} is no verbosity; allowed: 0 to 5")
    return int(text)


def _duration_s(text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; allowed: such as 0s, 500ms or 1m30s")
    return seconds
