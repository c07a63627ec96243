# SPDX-License-Identifier: Apache-2.0
"""The private directory of a run: who may read it, and that none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epp.contract.errors import StartError
from epp.local.chain.folder import private_folder

ROOT = Path(__file__).parents[2]


def test_only_its_owner_may_read_it_and_it_goes_at_the_end(tmp_path: Path) -> None:
    with private_folder(tmp_path) as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        file = folder.write("key", "secret")
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() == "secret"
    assert list(tmp_path.iterdir()) == []


def test_where_none_can_be_made_it_is_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "nowhere"
    with (
        pytest.raises(StartError, match=r"no private directory can be made in .*: No such file"),
        private_folder(wrong),
    ):
        pass


def test_it_goes_when_the_run_fails(tmp_path: Path) -> None:
    try:
        with private_folder(tmp_path) as folder:
            folder.write("key", "secret")
            raise RuntimeError
    except RuntimeError:
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_with_the_next_one_and_a_living_ones_stays(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from epp.local.chain.folder import private_folder\n"
        f"with private_folder(Path({str(tmp_path)!r})) as f:\n"
        " f.write('key', 'secret'); print(f.path, flush=True); time.sleep(60)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        paths = []
        for run in runs:
            assert run.stdout is not None
            paths.append(Path(run.stdout.readline().decode().strip()))
        os.kill(runs[0].pid, signal.SIGKILL)
        runs[0].wait(10)
        assert all((path / "key").exists() for path in paths)
        with private_folder(tmp_path) as folder:
            assert not paths[0].exists()
            assert (paths[1] / "key").exists()
            assert folder.path.exists()
    finally:
        for run in runs:
            run.kill()
            run.wait(10)
            assert run.stdout is not None
            run.stdout.close()
