# SPDX-License-Identifier: Apache-2.0
"""The command `epp up`: the whole way of a request on one machine, started, tried out, and left running to play with.
Without manifests it is the small stack of `epp.local.session`; with them (`-f`) the gateway they describe,
`epp.local.chain`.

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
from epp.local.arguments import parse, split
from epp.local.envoy import find_envoy
from epp.manifests.documents import ManifestErrors

DEFAULT_CONFIG = Path(__file__).with_name("seed-config.yaml")


def main(argv: Sequence[str]) -> int:
    """Run `epp up` with the flags `argv`; returns the exit code."""
    own, passed_on = split(argv)
    try:
        args = parse(own)
        envoy = find_envoy()
        for package in ("aiohttp", "envoy_data_plane", "limits") if args.files else ("aiohttp",):
            if importlib.util.find_spec(package) is None:
                raise StartError(
                    f"the package {package} is not installed: run `pip install '.[local]'` in the source folder"
                )
        if args.files:
            from epp.local.chain.command import run

            return run(args, passed_on, envoy)
        return _small_stack(args, passed_on, envoy)
    except ManifestErrors as error:
        print(*(f"epp up: {line}" for line in error.mistakes), sep="\n", file=sys.stderr)
        return 1
    except EppError as error:
        print(f"epp up: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _small_stack(args: argparse.Namespace, passed_on: tuple[str, ...], envoy: Path) -> int:
    if args.config is not None or args.plugin_dir:
        for warning in _check_configuration(args.config or DEFAULT_CONFIG, args.plugin_dir):
            print(f"note: {warning}", file=sys.stderr if args.json else sys.stdout)
    # Only now: it needs what the extra `local` installs.
    from epp.local.session import Session, SessionConfig
    from epp.local.stack import StackConfig

    stack = StackConfig(
        envoy,
        args.config or DEFAULT_CONFIG,
        pods=4 if args.pods is None else args.pods,
        port=args.port,
        plugin_dirs=tuple(args.plugin_dir),
        response_phase=args.response_phase,
        picker_flags=passed_on,
    )
    requests = 12 if args.requests is None else args.requests
    config = SessionConfig(stack, requests=requests, exit=args.exit, json=args.json)
    return asyncio.run(Session(config, sys.stdout, sys.stderr).run())


def _check_configuration(config: Path, plugin_dirs: Sequence[Path]) -> tuple[str, ...]:
    """What is probably not meant in it. The picker would find the same, but only when the pods are up. Raises
    `ConfigErrors`."""
    from epp.config.build import assemble
    from epp.config.catalog import collect
    from epp.config.load import load_text, read_text

    configuration = load_text(read_text(str(config)), collect(*plugin_dirs), source=str(config))
    checked = assemble(configuration, time.monotonic, rng_seed=0).configuration
    return tuple([f"{config}: {warning}" for warning in checked.warnings])
