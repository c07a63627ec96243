# SPDX-License-Identifier: Apache-2.0
"""The flags of `epp up`: which go together, and one line for those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from epp.contract.errors import UsageError
from epp.local import up
from epp.local.arguments import parse, pools, split


def test_defaults_without_and_with_manifests() -> None:
    alone, chain = parse([]), parse(["-f", "a.yaml"])
    assert (alone.files, alone.port, alone.pods, alone.requests, alone.response_phase) == ([], 8080, None, None, "full")
    assert chain.files == ["a.yaml"]
    assert (chain.include_usage, chain.window, chain.redis, chain.pool, chain.speed) == ("hidden", "", "", [], 4.0)
    assert (chain.check, chain.print_envoy, chain.json, chain.exit) == (False, False, False, False)


def test_several_files_in_every_form() -> None:
    assert parse(["-f", "a", "b", "--file", "-", "-f", "dir", "--port", "0"]).files == ["a", "b", "-", "dir"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--pool", "a=b:1"], "--pool cannot be used without -f: only a gateway of manifests has it"),
        (["--redis", "redis://x"], "--redis cannot be used without -f"),
        (["--check"], "--check cannot be used without -f"),
        (["--print-envoy"], "--print-envoy cannot be used without -f"),
        (["--window", "sliding"], "--window cannot be used without -f"),
        (["--include-usage", "off"], "--include-usage cannot be used without -f"),
        (["--speed", "2"], "--speed cannot be used without -f"),
        (["-f", "a", "--config", "/etc/passwd"], "--config cannot be used with -f: the manifests hold it"),
        (["-f", "a", "--response-phase", "full"], "--response-phase cannot be used with -f: the picker has to read"),
        (["-f", "a", "--speed", "0"], "--speed 0: must be above 0"),
        (["-f", "a", "--speed", "nan"], "--speed nan: must be above 0"),
        (["-f", "a", "--pods", "0"], "--pods 0: from 1 to 254"),
        (["-f", "a", "--check", "--print-envoy"], "--check and --print-envoy: each prints and ends"),
        (["-f"], "argument -f/--file: expected at least one argument"),
        (["-f", "a", "--include-usage", "maybe"], "invalid choice: 'maybe'"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(argv: list[str], words: str, capsys: Any) -> None:
    assert up.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("epp up: ")
    assert words in error
    assert error.count("\n") == 1


def test_pools_by_name() -> None:
    assert pools(["a=h:1, i:2", "ns/b=[::1]:3"]) == {"a": ("h:1", "i:2"), "ns/b": ("[::1]:3",)}
    for wrong in ("a", "a=", "=h:1", "a=,"):
        with pytest.raises(UsageError, match=r"write NAME=HOST:PORT"):
            pools([wrong])
    with pytest.raises(UsageError, match="--pool a: given twice"):
        pools(["a=h:1", "a=h:2"])


def test_what_follows_two_dashes_is_not_ours() -> None:
    assert split(["-f", "a", "--", "--check", "--", "x"]) == (["-f", "a"], ("--check", "--", "x"))
