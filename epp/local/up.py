# SPDX-License-Identifier: Apache-2.0
"""The command `epp up`: the whole way of a request on one machine, started, tried out, and left running to play with.

Exit codes: 0 as wished; 1 something could not start or ended, or with --exit a request failed; 2 wrong flags;
130 interrupted while starting.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from epp.contract.errors import EppError, StartError, UsageError
from epp.local.envoy import find_envoy
from epp.oneline import OneLineParser

DEFAULT_CONFIG = Path(__file__).with_name("seed-config.yaml")
_MOST_PODS = 254


def main(argv: Sequence[str]) -> int:
    """Run `epp up` with the flags `argv`; returns the exit code."""
    own, passed_on = _split(argv)
    try:
        args = _parser().parse_args(own)
        _check(args)
        envoy = find_envoy()
        if importlib.util.find_spec("aiohttp") is None:
            raise StartError("the package aiohttp is not installed: run `pip install 'epp[local]'`")
        if args.config is not None or args.plugin_dir:
            _check_configuration(args.config or DEFAULT_CONFIG, args.plugin_dir)
        # Only now: it needs what the extra `local` installs.
        from epp.local.session import Session, SessionConfig
        from epp.local.stack import StackConfig

        stack = StackConfig(
            envoy,
            args.config or DEFAULT_CONFIG,
            pods=args.pods,
            port=args.port,
            plugin_dirs=tuple(args.plugin_dir),
            response_phase=args.response_phase,
            picker_flags=passed_on,
        )
        config = SessionConfig(stack, requests=args.requests, exit=args.exit, json=args.json)
        return asyncio.run(Session(config, sys.stdout, sys.stderr).run())
    except EppError as error:
        print(f"epp up: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our flags, and those after the first `--`, which are the picker's."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], tuple(words[end + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp up",
        usage="epp up [options] [-- flags of epp serve]",
        description="Simulated vLLM pods, the endpoint picker and a real Envoy on this machine; sends requests "
        "through them, shows which pod was chosen and why, and stays up until Ctrl-C.",
        epilog="What follows -- is given to the picker as it is, after the flags it gets here: "
        "epp up -- --emit-decision-header --decision-log d.jsonl",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--pods", type=int, default=4, metavar="N", help="simulated pods, on 127.0.1.1 to 127.0.1.N (%(default)s)")
    add("--config", type=Path, metavar="FILE", help="an EndpointPickerConfig (the one of KServe's tutorial)")
    add("--plugin-dir", type=Path, action="append", default=[], metavar="DIR", help="plugins of your own; repeatable")
    add("--port", type=int, default=8080, metavar="P", help="Envoy's port; 0: free ports for all parts (%(default)s)")
    add(
        "--response-phase",
        choices=("full", "headers", "release", "auto"),
        default="full",
        help="how far the picker follows responses; unless full, Envoy's access log tells it their ends (%(default)s)",
    )
    add("--requests", type=int, default=12, metavar="N", help="requests to send (%(default)s)")
    add("--exit", action="store_true", help="end after the requests, with code 1 if one failed")
    add("--json", action="store_true", help="one JSON object on stdout; the text for people goes to stderr")
    return parser


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.pods <= _MOST_PODS:
        raise UsageError(f"--pods {args.pods}: from 1 to {_MOST_PODS} can be started")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: a port is 0 to 65535")
    if args.requests < 0:
        raise UsageError(f"--requests {args.requests}: must be 0 or more")
    if args.config is not None and not args.config.is_file():
        raise StartError(f"--config {args.config}: there is no such file")
    for directory in args.plugin_dir:
        if not directory.is_dir():
            raise StartError(f"--plugin-dir {directory}: there is no such directory")


def _check_configuration(config: Path, plugin_dirs: Sequence[Path]) -> None:
    """The picker would find the same, but only when the pods are up. Raises `ConfigErrors`."""
    from epp.config.build import assemble
    from epp.config.catalog import collect
    from epp.config.load import load_text, read_text

    configuration = load_text(read_text(str(config)), collect(*plugin_dirs), source=str(config))
    assemble(configuration, time.monotonic, rng_seed=0)
