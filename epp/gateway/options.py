# SPDX-License-Identifier: Apache-2.0
"""What the command line of `epp gateway` says. Durations are seconds; a port of 0 is any free one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epp.contract.errors import UsageError
from epp.oneline import OneLineParser, add_log_encoder, duration_s, port, verbosity


@dataclass(frozen=True, slots=True)
class Options:
    """All flags. `bind_address` is of both ports."""

    config: Path
    port: int = 9004
    metrics_port: int = 9091
    bind_address: str = "127.0.0.1"
    drain_timeout_s: float = 30.0
    log_encoder: str = "json"
    verbosity: int = 2
    watch_loop: bool = False


def parse(argv: Sequence[str]) -> Options:
    """The options that `argv`, without the program's name, asks for. Raises `UsageError`."""
    options = Options(**vars(_parser().parse_args(argv)))
    if options.port and options.port == options.metrics_port:
        raise UsageError(f"--port and --metrics-port are both {options.port}: give each a port of its own")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp gateway",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description="Reads which model a request asks for, and tells Envoy, which routes by it (ext_proc, plaintext "
        "HTTP/2); counts the tokens of models that have no endpoint picker. Everything is in docs/gateway.md.",
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the configuration, JSON; followed while it changes")
    add("--port", type=port, help="port of ext_proc and of gRPC health; 0: any free one (9004)")
    add("--metrics-port", type=port, help="port of the metrics page; 0: any free one (9091)")
    add("--bind-address", metavar="ADDRESS", help="address of both ports (127.0.0.1)")
    add("--drain-timeout", type=duration_s(), dest="drain_timeout_s", metavar="DURATION",
        help="time to go on accepting requests after SIGTERM, such as 500ms or 30s (30s)")  # fmt: skip
    add_log_encoder(parser)
    add("-v", type=verbosity, dest="verbosity", metavar="LEVEL", help="log verbosity: 1 warnings to 5 trace (2)")
    add("--watch-loop", action="store_true", help="show the longest turns of the event loop on the metrics page")
    return parser
