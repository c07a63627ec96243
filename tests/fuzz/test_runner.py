# SPDX-License-Identifier: Apache-2.0
"""The runner finds what is planted, makes it short, writes it down and runs it again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import __main__ as runner
from tests.fuzz import registry
from tests.fuzz.harness import Edit, Input, Run, Target, apply, pieces, record, with_cuts
from tests.fuzz.mutating import fuzz


def planted() -> Target:
    def make() -> Run:
        def run(data: bytes) -> None:
            assert b"boo" not in data

        return run

    return Target("planted", make, lambda: [b"a harmless seed of some length"], (b"boo", b"bah"))


def ticks() -> Iterator[float]:
    return iter(number * 0.001 for number in range(1_000_000))


def test_a_fault_is_found_and_made_short() -> None:
    outcome = fuzz(planted(), 1.0, 1, ticks().__next__)
    ((data, told),) = outcome.failures.values()
    assert data == b"boo"
    assert "AssertionError" in told
    assert outcome.executions > 50


def test_the_same_seed_tries_the_same() -> None:
    runs = [fuzz(planted(), 1.0, seed, ticks().__next__).executions for seed in (1, 1)]
    assert runs[0] == runs[1]


def test_the_reproducer_is_written_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "load", lambda _name: planted())
    options = ["--target", "wire", "--plain", "--seconds", "0.3", "--failures", str(tmp_path)]
    assert runner.main(options) == 1
    (path,) = tmp_path.iterdir()
    assert f"python -m tests.fuzz --target wire --input {path}" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        runner.main(["--target", "wire", "--input", str(path)])
    path.write_bytes(b"ok")
    assert runner.main(["--target", "wire", "--input", str(path)]) == 0


def test_every_target_is_registered() -> None:
    files = {path.stem for path in (Path(__file__).parent / "targets").glob("*.py")} - {"conversation"}
    assert files == set(registry.NAMES)


def test_inputs_are_taken_apart_as_they_were_put_together() -> None:
    source = Input(with_cuts(b"hello", 1, 3))
    assert pieces(b"hello", source.cuts()) == [b"h", b"el", b"lo"]
    assert source.rest() == b"hello"
    assert list(Input(record(1, b"a") + record(2)).records()) == [(1, b"a"), (2, b"")]
    assert list(Input(b"\x01\xff\xffa").records()) == [(1, b"a")]


@pytest.mark.parametrize("kind", range(8))
def test_an_edit_of_nothing_is_something(kind: int) -> None:
    for at in (0, 30_000, 65_535):
        assert len(apply(b"", [Edit(kind, at, at, b"x")])) <= 1
        assert len(apply(b"abc", [Edit(kind, at, at, b"x")])) <= 1000


PLANTED = """
import json
from tests.fuzz.worst import Case, measure

def broken():
    raise ValueError("broken")

def endless():
    while True:
        pass

grows = Case("grows", lambda: lambda: len(b"x" * (64 << 20)), 1, 1)
print(json.dumps([measure(case) for case in (grows, Case("", lambda: broken, 1, 1), Case("", lambda: endless, 1, 0.01))]))
"""


def test_a_case_that_grows_or_fails_or_hangs_is_told() -> None:
    # In a process of its own: forking is for processes without threads.
    command = [sys.executable, "-c", PLANTED]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60)
    grows, fails, hangs = json.loads(ran.stdout)
    assert 60 < grows["grown_mib"] < 80
    assert "broken" in fails["error"]
    assert "signal 14" in hangs["error"]
