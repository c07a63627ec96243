# SPDX-License-Identifier: Apache-2.0
"""The command `epp` as a process: what it prints, what it exits with, what it loads."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import epp
from tests.e2e.stack import ROOT, SEED_YAML, Part


def run(*arguments: str, python: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *python, "-m", "epp", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_without_arguments_it_says_what_there_is() -> None:
    for arguments in ((), ("help",)):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        for command in ("up", "serve", "check", "sim-pod", "version"):
            assert f"  epp {command} " in done.stdout


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_version(argument: str) -> None:
    done = run(argument)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{epp.__version__}\n", "")


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("serve", "--help"), ("--grpcPort", "9002", "-help")])
def test_help_of_the_service_lists_its_flags(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage of epp:\n" in done.stdout
    whole = arguments in (("--help",), ("-h",))
    assert ("  epp up " in done.stdout) == whole, "help of the whole command names the others too"
    for flag in ("--grpc-port int", "--secure-serving", "--endpoints ", "--endpoints-file ", "--config-file "):
        assert f"      {flag}" in done.stdout


def test_help_loads_next_to_nothing() -> None:
    done = run("--help", python=["-X", "importtime"])
    loaded = imported(done.stderr.splitlines())
    assert "epp.service.flags.parsing" in loaded
    assert not {"asyncio", "uvloop", "numpy", "yaml", "google.protobuf", "epp.service.process"} & loaded


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("version",), ("help",), ("--help",), ("check", "/dev/null")])
def test_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "epp", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "epp: cannot write: No space left on device; free some space, or write elsewhere\n"


def test_a_reader_that_has_seen_enough_is_no_mistake() -> None:
    argv = [sys.executable, "-m", "epp", "--help"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


MISTAKES = {
    ("--no-such-flag",): "epp: unknown flag: --no-such-flag; --help lists all flags",
    ("serve", "--grpc-prot=1"): "epp: unknown flag: --grpc-prot; did you mean --grpc-port?",
    ("-grpcPort",): "epp: flag needs an argument: --grpc-port",
    ("--grpc-port", "many"): 'epp: invalid argument "many" for "--grpc-port" flag: must be a whole number',
    ("--secure-serving=perhaps",): 'epp: invalid argument "perhaps" for "--secure-serving" flag: ',
    ("---x",): "epp: bad flag syntax: ---x",
    ("up", "--port", "x"): "epp up: argument --port: invalid int value: 'x'; epp up --help tells the options",
    ("up", "--frob"): "epp up: unrecognized arguments: --frob; epp up --help tells the options",
    ("check",): "epp: the following arguments are required: CONFIG; epp check --help tells the options",
    ("check", "c.yaml", "--frob"): "epp: unrecognized arguments: --frob; epp check --help tells the options",
    ("check", "--probe", "--rows=x"): "epp: argument --rows: 'x' must be a whole number from 1 to",
    ("check", "c.yaml", "--a\nb"): "epp: unrecognized arguments: --a b; epp check --help tells the options",
    ("explain", "--frob"): "epp: unrecognized arguments: --frob; epp explain --help tells the options",
    ("sim-pod", "--frob"): "epp sim-pod: unrecognized arguments: --frob; epp sim-pod --help tells the options",
    ("sim-pod", "--count=0"): "epp sim-pod: argument --count: 0 is not above 0; epp sim-pod --help tells the options",
    ("srve",): "epp: unknown command 'srve'; did you mean 'serve'?",
}


@pytest.mark.parametrize(("arguments", "text"), MISTAKES.items(), ids=[" ".join(words) for words in MISTAKES])
def test_a_mistake_on_the_command_line(arguments: tuple[str, ...], text: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(text)


def test_check_of_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(SEED_YAML)
    done = run("check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "load-aware-scorer" in done.stdout
    file.write_text(SEED_YAML.replace("threshold: 100", "threshhold: 100"))
    done = run("check", "--strict", str(file))
    assert done.returncode == 1
    assert "line 8: " in done.stdout + done.stderr
    assert "did you mean 'threshold'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def imported(lines: Sequence[str]) -> set[str]:
    """The modules that `-X importtime` tells of."""
    found = (re.match(r"import time:\s+\d+ \|\s+\d+ \|\s+(\S+)", line) for line in lines)
    return {match[1] for match in found if match}


def test_the_service_loads_only_what_it_needs() -> None:
    ports = ["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0", "--bind-address=127.0.0.1"]
    flags = [*ports, "--endpoints=127.0.0.1:9", "--drain-timeout=0s"]
    part = Part([sys.executable, "-X", "importtime", "-m", "epp", "serve", *flags])
    try:
        part.wait(lambda line: "serving ext_proc on port" in line)
        part.signal(signal.SIGTERM)
        assert part.ended() == 0
    finally:
        part.stop()
    loaded = imported(part.lines)
    assert {"ngh2", "uvloop", "epp.transport.h2"} <= loaded
    roots = {name.partition(".")[0] for name in loaded}
    strangers = {"grpc", "grpclib", "aiohttp", "envoy", "envoy_data_plane", "betterproto2", "pytest", "hypothesis"}
    assert not strangers & roots
    assert not {name for name in loaded if name.startswith(("epp.local", "epp.transport.grpcio", "epp.testing"))}
