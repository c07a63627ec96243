# SPDX-License-Identifier: Apache-2.0
"""The command `epp`. A first argument that is no subcommand means `serve`, so that the Go EPP's argv works as it is.

Exit codes: 0 done, 1 a configuration or the environment is wrong, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from epp.contract.errors import EppError, UsageError

HELP = """\
epp: an endpoint picker for LLM inference, behind Envoy

  epp up [...]       a whole stack on this machine: simulated pods, the picker, real Envoy
  epp up -f FILE...  the gateway that Kubernetes manifests describe, on this machine
  epp serve [...]    the picker itself; also plain `epp --flag ...`
  epp check CONFIG   print what a configuration will do, and every mistake in it
  epp check --probe  ask every endpoint once, and print what it does not say
  epp explain [ID]   why a request went where it went, asked of a running picker
  epp gateway [...]  reads which model a request asks for, and counts tokens, for a gateway of many models
  epp ratelimit [...] Envoy's rate limit service, for the limits in files or manifests
  epp sim-pod [...]  one simulated vLLM pod
  epp version        the version

`epp COMMAND --help` tells the options of each.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`).
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        print(f"epp: cannot write: {error.strerror}; free some space, or write elsewhere", file=sys.stderr)
        return 1


def _discard_output() -> None:
    # What is left in the buffer would fail again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "help"
    if name in ("help", "version", "--version") and len(arguments) <= 1:
        return _print(name.lstrip("-"))
    command = _commands().get(name)
    try:
        if command is None and name and not name.startswith("-"):
            raise UsageError(_unknown(name))
        return command(arguments[1:]) if command is not None else _serve_or_help(arguments)
    except UsageError as error:
        print(f"epp: {error}", file=sys.stderr)
        return 2
    except EppError as error:
        print(f"epp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    return {
        "serve": _serve,
        "up": _up,
        "gateway": _gateway,
        "sim-pod": _sim_pod,
        "check": _check,
        "explain": _explain,
        "ratelimit": _ratelimit,
    }


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _commands(), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return f"unknown command '{name}'{hint} known: {', '.join(_commands())}, version; flags alone mean `serve`"


def _print(name: str) -> int:
    from epp import __version__

    print(HELP if name == "help" else __version__, end="" if name == "help" else "\n")
    return 0


# Each command imports its own rooms: the service never loads what only `up` needs, and a help probe loads next to
# nothing.


def _serve_or_help(arguments: Sequence[str]) -> int:
    # Of the whole command, and in the shape of pflag further down: image checks look for the flags there.
    if arguments[0] in ("--help", "-h", "-help"):
        print(f"{HELP}\nThe flags of `epp serve`:\n")
    return _serve(arguments)


def _serve(arguments: Sequence[str]) -> int:
    from epp.service.command import main as serve

    return serve(arguments)


def _up(arguments: Sequence[str]) -> int:
    from epp.local.up import main as up

    return up(arguments)


def _gateway(arguments: Sequence[str]) -> int:
    from epp.gateway.command import main as gateway

    return gateway(arguments)


def _sim_pod(arguments: Sequence[str]) -> int:
    from epp.local.sim.command import main as sim_pod

    return sim_pod(arguments)


def _check(arguments: Sequence[str]) -> int:
    if "--probe" in arguments:
        from epp.service.probe import main as probe

        return probe(arguments)
    from epp.config.check import main as check

    return check(arguments)


def _explain(arguments: Sequence[str]) -> int:
    from epp.service.explain import main as explain

    return explain(arguments)


def _ratelimit(arguments: Sequence[str]) -> int:
    from epp.ratelimit.command import main as ratelimit

    return ratelimit(arguments)
