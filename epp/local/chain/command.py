# SPDX-License-Identifier: Apache-2.0
"""`epp up -f FILE...`: manifests to a running gateway, or, with --check and --print-envoy, to what it would be."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TextIO

from epp.contract.errors import StartError
from epp.contract.redisurl import REDIS_VARIABLE, redis_url
from epp.local.arguments import pools
from epp.local.chain.folder import private_folder
from epp.local.chain.parts import Files, Running
from epp.local.chain.plan import Plan, Wishes, make_plan
from epp.local.chain.session import ChainSession, RunConfig, told
from epp.local.chain.words import counting_line, route_lines
from epp.local.chain.write import write_bootstrap, write_files
from epp.local.ports import Ports
from epp.manifests.read import STDIN, read_files
from epp.manifests.resolve import resolve
from epp.manifests.secrets import KEY_VARIABLES
from epp.manifests.service import service_rules
from epp.manifests.topology import Topology

_VALIDATE_S = 60.0


def run(args: argparse.Namespace, passed_on: tuple[str, ...], envoy: Path) -> int:
    """Do what the flags say; returns the exit code. Raises `EppError`."""
    documents = read_files([Path(name) for name in args.files])
    only_told = args.check or args.print_envoy
    stand_in = "missing" if only_told else ""
    topology = resolve(documents, pools=pools(args.pool), environ=os.environ, stand_in=stand_in)
    wishes = Wishes(args.port, args.pods, args.include_usage, args.speed, tuple(args.plugin_dir))
    ports = Ports(random.Random(), usual=args.port != 0, look=not only_told)
    with contextlib.closing(ports):
        return _run(args, passed_on, envoy, make_plan(topology, wishes, ports))


def _run(args: argparse.Namespace, passed_on: tuple[str, ...], envoy: Path, plan: Plan) -> int:
    topology = plan.topology
    rules = service_rules(topology)
    # Nobody asks for the variable where nothing is limited: it may be there for something else.
    redis = redis_url(args.redis or os.environ.get(REDIS_VARIABLE, "")) if plan.places.ratelimit is not None else None
    if args.print_envoy:
        return _print_envoy(plan)
    people = sys.stderr if args.json else sys.stdout
    _tell_read(plan, topology, people)
    with private_folder() as folder:
        files = write_files(plan, rules, folder)
        if args.check:
            write_bootstrap(plan, folder)
            counting = counting_line(plan, redis or "", args.window)
            return _check(plan, files, envoy, people, counting, as_values=args.json)
        bootstrap = partial(write_bootstrap, plan, folder)
        running = Running(envoy, bootstrap, _environ(os.environ), redis or "", args.window, passed_on)
        requests = 1 if args.requests is None else args.requests
        config = RunConfig(plan, files, running, requests, args.exit, args.json)
        return asyncio.run(ChainSession(config, sys.stdout, sys.stderr).run())


def _print_envoy(plan: Plan) -> int:
    from epp.local.gateway.bootstrap import as_json, bootstrap
    from epp.local.gateway.secrets import SecretFiles

    print(as_json(bootstrap(plan.topology, plan.places, SecretFiles(Path("keys")))))
    return 0


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours, without secrets: keys are in files by now, and only one part needs the counters' URL."""
    return {
        name: value for name, value in environ.items() if name != REDIS_VARIABLE and not name.startswith(KEY_VARIABLES)
    }


def _tell_read(plan: Plan, topology: Topology, out: TextIO) -> None:
    print(f"read {', '.join('stdin' if str(file) == STDIN else str(file) for file in topology.files)}", file=out)
    for note in plan.notes:
        print(f"  note: {note}", file=out)
    if plan.unsupported:
        print(f"not done ({len(plan.unsupported)}):", file=out)
    for item in plan.unsupported:
        print(f"  {item}", file=out)
    out.flush()


def _check(plan: Plan, files: Files, envoy: Path, out: TextIO, counting: str, *, as_values: bool) -> int:
    for line in (*route_lines(plan), *filter(None, [counting])):
        print(line, file=out)
    if plan.wishes.port == 0:
        print("with --port 0 every port is chosen at the start: those above only stand for them", file=out)
    argv = [str(envoy), "--mode", "validate", "--config-path", str(files.envoy), "--log-level", "error"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_VALIDATE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"Envoy cannot say whether it takes the configuration: {error}") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-500:]
        raise StartError(f"Envoy refuses the configuration: {words}")
    print("Envoy takes the configuration; nothing was started", file=out)
    if as_values:
        print(json.dumps(told(plan)))
    return 0
