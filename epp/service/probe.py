# SPDX-License-Identifier: Apache-2.0
"""`epp check --probe`: ask every endpoint once, as the service would, and say what is missing.

The flags are those of the service, so that its command line can be tried as it is. Exit codes: 0 every endpoint says
all that the configuration reads, 1 not, or the configuration or the endpoints are wrong, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from epp.config.build import Assembly, assemble
from epp.config.catalog import collect
from epp.config.findings import ConfigErrors
from epp.config.load import load_text, read_text
from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.endpoints import Endpoint
from epp.contract.errors import DiscoveryError, EppError
from epp.contract.plugins import SCRAPED
from epp.oneline import OneLineParser
from epp.service.flags.options import Options
from epp.service.flags.parsing import parse
from epp.service.probetable import document, table
from epp.service.sources import source_of
from epp.service.wiring import scrape_settings_of
from epp.signals.poll.scraper import tls_of
from epp.signals.probe import Probe, probe

DISCOVERY_S = 10.0
"""How long the source of endpoints may take to name them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line. `rows`: most endpoints shown; `at_once`: asked together; `timeout_s`: for one answer."""

    options: Options
    json: bool
    rows: int
    at_once: int
    timeout_s: float


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after `epp check`; the exit code. Raises `EppError`."""
    asked = arguments(argv)
    try:
        assembly = _load(asked.options)
    except ConfigErrors as errors:
        if asked.json:
            _say(json.dumps({"ok": False, "mistakes": [str(mistake) for mistake in errors.mistakes]}, indent=2))
        else:
            _say("\n".join(f"{errors.source}: {mistake}" for mistake in errors.mistakes))
        return 1
    source = source_of(asked.options, assembly)
    if source is None:
        raise EppError("there is nothing to probe: give --endpoints IP:PORT,... or --endpoints-file FILE")
    probes = asyncio.run(_probe_all(source, assembly, asked))
    if not probes:
        raise EppError("there is nothing to probe: the source of endpoints names none")
    _say(document(probes, assembly.reads) if asked.json else table(probes, assembly.reads, asked.rows))
    return 0 if all(each.ok for each in probes) else 1


def arguments(argv: Sequence[str]) -> Asked:
    """Read the command line: our flags, a configuration file, and the flags of `epp serve`."""
    own, rest = _parser().parse_known_args(list(argv))
    if rest and rest[0] and not rest[0].startswith("-"):
        rest = [f"--config-file={rest[0]}", *rest[1:]]
    options = parse(rest, os.environ)
    for warning in options.warnings:
        print(f"epp: {warning}", file=sys.stderr)
    return Asked(options, own.json, own.rows, own.at_once, own.timeout)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp check --probe",
        usage="epp check [CONFIG] --probe [flags of epp serve]",
        description="Ask every endpoint once for its metrics page, and say what it does not say.",
        epilog="Endpoints come from --endpoints, --endpoints-file or the configuration, as for `epp serve`.",
        allow_abbrev=False,
    )
    parser.add_argument("--probe", action="store_true", help="ask the endpoints")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every endpoint")
    parser.add_argument("--rows", type=_whole, default=50, metavar="N", help="most endpoints shown (default 50)")
    parser.add_argument("--at-once", type=_whole, default=32, metavar="N", help="asked at the same time (default 32)")
    parser.add_argument(
        "--timeout", type=_seconds, default=3.0, metavar="SECONDS", help="longest wait for an answer (default 3)"
    )
    return parser


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to 100000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} must be seconds, above 0 and at most 600")
    return value


def _load(options: Options) -> Assembly:
    text, source = options.config_text or "", "--config-text" if options.config_text else "built-in configuration"
    if options.config_file is not None:
        text, source = read_text(options.config_file), str(options.config_file)
    configuration = load_text(text, collect(*options.plugin_dirs), source=source, strict=options.strict)
    return assemble(configuration, time.monotonic, rng_seed=0)


async def _probe_all(source: Discovery, assembly: Assembly, asked: Asked) -> list[Probe]:
    settings = scrape_settings_of(asked.options, assembly.configuration)
    settings = replace(settings, timeout_s=asked.timeout_s)
    tls = tls_of(settings)
    specs = await _snapshot(source)
    turn = asyncio.Semaphore(asked.at_once)

    async def one(spec: EndpointSpec) -> Probe:
        endpoint = Endpoint(spec.namespace, spec.name, spec.ip, spec.port, spec.labels, spec.rank)
        async with turn:
            return await probe(endpoint, settings, assembly.reads & SCRAPED, tls)

    return await asyncio.gather(*map(one, specs))


async def _snapshot(source: Discovery) -> Sequence[EndpointSpec]:
    """The endpoints as of now."""
    first: asyncio.Future[Sequence[EndpointSpec]] = asyncio.get_running_loop().create_future()

    def publish(snapshot: Sequence[EndpointSpec]) -> None:
        if not first.done():
            first.set_result(snapshot)

    task = asyncio.create_task(source.run(publish))
    try:
        await asyncio.wait((task, first), timeout=DISCOVERY_S, return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            return first.result()
        if task.done():
            task.result()
        raise DiscoveryError(f"the source of endpoints named none within {DISCOVERY_S:g} s")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is left in the buffer would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
