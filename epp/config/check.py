# SPDX-License-Identifier: Apache-2.0
"""The command `epp check CONFIG`: print the effective plan of a configuration, or everything that is wrong with it.

Exit code 0 when the configuration can be used, 1 when it cannot, 2 for wrong arguments. Plugins are constructed, so
that a factory's refusal shows here and not at the start of the service.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.configuration import Configuration
from epp.config.document import MAX_BYTES
from epp.config.findings import ConfigErrors
from epp.config.load import decode, load_text, read_text
from epp.config.plan import plan_dict, plan_text
from epp.oneline import OneLineParser


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after `epp check`; the exit code. Raises `UsageError`."""
    options = _parser().parse_args(argv)
    try:
        configuration = check(options.config, options.plugin_dir, strict=options.strict)
    except ConfigErrors as errors:
        _print_mistakes(errors, as_json=options.json)
        return 1
    if options.json:
        _say(json.dumps({"ok": True, "mistakes": [], **plan_dict(configuration)}, indent=2, default=str))
    else:
        count = len(configuration.warnings)
        odd = f", {count} warning{'s' if count > 1 else ''}" if count else ""
        _say(f"{configuration.source}: can be used{odd}\n\n{plan_text(configuration)}")
    return 0


def check(config: str, plugin_dir: str | None, *, strict: bool) -> Configuration:
    """Load and construct what `config` (a path, or `-` for standard input) describes. Raises ConfigErrors."""
    catalog = collect(*(() if plugin_dir is None else (plugin_dir,)))
    if config == "-":
        source, text = "standard input", decode(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    else:
        source, text = config, read_text(config)
    configuration = load_text(text, catalog, source=source, strict=strict)
    return assemble(configuration, time.monotonic, rng_seed=0).configuration


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="epp check",
        description="Check an EndpointPickerConfig and print its plan.",
        epilog="`epp check [CONFIG] --probe` asks every endpoint too; `epp check --probe --help` tells the options.",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML or JSON file, or - for standard input")
    parser.add_argument("--plugin-dir", metavar="DIR", help="directory whose .py files define more plugins")
    parser.add_argument("--strict", action="store_true", help="refuse unknown plugin parameters instead of warning")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _print_mistakes(errors: ConfigErrors, *, as_json: bool) -> None:
    if as_json:
        mistakes = [{"line": finding.line or None, "text": finding.text} for finding in errors.findings]
        _say(json.dumps({"ok": False, "source": errors.source, "mistakes": mistakes}, indent=2))
        return
    count = len(errors.mistakes)
    head = f"{errors.source}: cannot be used, {count} mistake{'s' if count > 1 else ''}"
    _say("\n".join([head, *(f"  {mistake}" for mistake in errors.mistakes)]))


def _say(text: str) -> None:
    """Print; a reader that closes the pipe early (`| head`) has seen enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is left in the buffer would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
