# SPDX-License-Identifier: Apache-2.0
"""The flags of `epp up`. Some are of the small stack alone, some of a gateway of manifests (`-f`); one that would do
nothing in the other is refused, so no flag is ever ignored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epp.contract.errors import StartError, UsageError
from epp.contract.redisurl import redis_url
from epp.oneline import OneLineParser

MOST_PODS = 254
_ALONE: Mapping[str, Any] = {"config": None, "response_phase": "full"}
_WITH_FILES: Mapping[str, Any] = {
    "pool": [],
    "redis": "",
    "window": "",
    "include_usage": "hidden",
    "speed": 4.0,
    "check": False,
    "print_envoy": False,
}
_EITHER: Mapping[str, Any] = {"pods": None, "port": 8080, "requests": None, "exit": False, "json": False}
_REMEDIES = {
    "config": "the manifests hold it: an EndpointPickerConfig, or the ConfigMap that has one",
    "response_phase": "the picker has to read answers to count their tokens",
}


def split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our flags, and those after the first `--`, which are the picker's."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], tuple(words[end + 1 :])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags, checked, each with its default. `files` is empty for the small stack. Raises `UsageError`,
    `StartError`; the errors name the flag, what is allowed and the remedy."""
    args = _parser().parse_args(argv)
    given = vars(args)
    given["files"] = [name for names in given.pop("file", []) for name in names]
    for name in _ALONE if given["files"] else _WITH_FILES:
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            why = _REMEDIES.get(name, "only a gateway of manifests has it: name them with -f FILE")
            raise UsageError(f"{flag} cannot be used {'with' if given['files'] else 'without'} -f: {why}")
    for name, default in {**_ALONE, **_WITH_FILES, **_EITHER, "plugin_dir": []}.items():
        given.setdefault(name, default)
    _check(args)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp up",
        usage="epp up [options] [-- flags of epp serve]\n       epp up -f FILE... [options] [-- flags of epp serve]",
        description="Without -f: simulated vLLM pods, the endpoint picker and a real Envoy on this machine; sends "
        "requests through them, shows which pod was chosen and why, and stays up until Ctrl-C. With -f: the gateway "
        "that Kubernetes manifests describe, with its routes by model, pickers, token counts and rate limits.",
        epilog="What follows -- is given to the picker (with -f: to every picker) as it is, after the flags it gets "
        "here: epp up -- --emit-decision-header --decision-log d.jsonl",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--port", type=int, metavar="P", help="Envoy's port; 0: free ports for all parts (8080); with -f that of the "
        "lowest port of the listeners, the others follow")  # fmt: skip
    add("--pods", type=int, metavar="N", help="simulated pods, on 127.0.1.1 to 127.0.1.N (4); with -f those of every "
        "pool and backend, in the place of its replicas")  # fmt: skip
    add("--plugin-dir", type=Path, action="append", metavar="DIR", help="plugins of your own; repeatable")
    add("--requests", type=int, metavar="N", help="requests to send (12); with -f: to every model (1)")
    add("--exit", action="store_true", help="end after the requests, with code 1 if one failed "
        "(with -f, a 429 of a limit is no failure)")  # fmt: skip
    add("--json", action="store_true", help="one JSON object on stdout; the text for people goes to stderr")
    alone = parser.add_argument_group("without -f").add_argument
    alone("--config", type=Path, metavar="FILE", help="an EndpointPickerConfig (the one of KServe's tutorial)")
    alone(
        "--response-phase",
        choices=("full", "headers", "release", "auto"),
        help="how far the picker follows responses; unless full, Envoy's access log tells it their ends (full)",
    )
    _add_manifests(parser)
    return parser


def _add_manifests(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("with -f").add_argument
    add("-f", "--file", action="append", nargs="+", metavar="FILE", help="manifests: files, directories, the yaml "
        "blocks of .md files, or - for stdin; repeatable")  # fmt: skip
    add("--pool", action="append", metavar="NAME=HOST:PORT,...", help="real model servers of a pool, "
        "LLMInferenceService, InferenceService or backend, in the place of simulated ones; repeatable")  # fmt: skip
    add("--include-usage", choices=("off", "on", "hidden"), help="ask for the usage of streamed answers whose client "
        "did not, without which they cost nothing; hidden: and do not show it to that client (hidden)")  # fmt: skip
    add("--redis", metavar="URL", help="where limits are counted, redis://... (memory, unless $REDIS_URL is set); a "
        "URL with a password belongs into $REDIS_URL")  # fmt: skip
    add("--window", choices=("fixed", "sliding"), help="how limits count: fixed windows, as Envoy's own service, or "
        "sliding ones (fixed)")  # fmt: skip
    add("--speed", type=float, metavar="X", help="factor on the speed of simulated pods (4)")
    add("--check", action="store_true", help="only tell what would be started and what is not done; validate")
    add("--print-envoy", action="store_true", help="only print Envoy's configuration as JSON, without secrets")


def _check(args: argparse.Namespace) -> None:
    if args.pods is not None and not 1 <= args.pods <= MOST_PODS:
        raise UsageError(f"--pods {args.pods}: from 1 to {MOST_PODS} can be started")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: a port is 0 to 65535")
    if args.requests is not None and args.requests < 0:
        raise UsageError(f"--requests {args.requests}: must be 0 or more")
    if not (args.speed > 0 and math.isfinite(args.speed)):
        raise UsageError(f"--speed {args.speed:g}: must be above 0")
    redis_url(args.redis)
    if args.check and args.print_envoy:
        raise UsageError("--check and --print-envoy: each prints and ends; leave one of them out")
    if args.config is not None and not args.config.is_file():
        raise StartError(f"--config {args.config}: there is no such file")
    for directory in args.plugin_dir:
        if not directory.is_dir():
            raise StartError(f"--plugin-dir {directory}: there is no such directory")


def pools(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of --pool: name -> addresses. Raises `UsageError`."""
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, listed = text.partition("=")
        addresses = tuple(filter(None, map(str.strip, listed.split(","))))
        if not (name and equals and addresses):
            raise UsageError(f"--pool {text}: write NAME=HOST:PORT,...")
        if name in found:
            raise UsageError(f"--pool {name}: given twice; list all its addresses in one")
        found[name] = addresses
    return found
