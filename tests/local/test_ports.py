# SPDX-License-Identifier: Apache-2.0
"""Which run gets which port, also of two that choose at the same instant."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from epp.contract.errors import StartError
from epp.local.ports import Ports, free_port

needs_names = pytest.mark.skipif(sys.platform != "linux", reason="the kernel has no abstract names")


@pytest.fixture
def runs() -> Iterator[tuple[Ports, Ports]]:
    """Two runs that want the usual ports."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Ports(random.Random(n), usual=True))) for n in (1, 2))
        yield first, second


@pytest.fixture
def free() -> int:
    """A port that nobody has."""
    return free_port(["127.0.0.1"], None, random.Random())


@needs_names
def test_a_port_that_nobody_listens_on_yet_belongs_to_the_run_that_chose_it(
    runs: tuple[Ports, Ports], free: int
) -> None:
    first, second = runs
    assert first.promise(free) == free
    with pytest.raises(StartError) as told:
        second.promise(free)
    assert str(told.value) == f"port {free} is taken: free it, or choose another with --port"
    assert second.take(free) != free
    first.close()
    assert second.promise(free) == free


@needs_names
def test_a_look_of_another_run_does_not_get_in_the_way_of_our_parts(runs: tuple[Ports, Ports], free: int) -> None:
    first, second = runs
    first.take(free)
    # Somebody who listens for a moment to see whether a port is free would end this one.
    with socket.create_server(("127.0.0.1", free)):
        assert second.take(free, ["127.0.0.1"]) != free


@needs_names
@pytest.mark.parametrize("seed", range(3))
def test_ports_chosen_at_random_are_held_too(seed: int) -> None:
    first, second = (Ports(random.Random(seed), usual=False) for _ in range(2))
    with closing(first), closing(second):
        ours = [first.take(8000) for _ in range(20)]
        theirs = [second.take(8000) for _ in range(20)]
    assert len({*ours, *theirs}) == 40


@needs_names
def test_a_run_that_was_killed_holds_nothing(free: int) -> None:
    code = f"""
import random, os, signal
from epp.local.ports import Ports
Ports(random.Random(1), usual=True).promise({free})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with closing(Ports(random.Random(1), usual=True)) as ports:
        assert ports.promise(free) == free


def test_who_was_told_that_a_port_is_taken_holds_nothing(runs: tuple[Ports, Ports]) -> None:
    first, second = runs
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartError, match="is taken"):
            first.promise(port)
        assert first.take(port) != port
    assert second.promise(port) == port


def test_an_address_that_is_not_ours_holds_nothing(runs: tuple[Ports, Ports], free: int) -> None:
    first, second = runs
    with pytest.raises(StartError, match="cannot listen on"):
        first.take(free, ["192.0.2.1"])
    assert second.promise(free) == free


def test_on_paper_no_port_is_looked_at_and_none_is_given_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, closing(Ports(random.Random(1), usual=True)) as real:
        port = server.getsockname()[1]
        for usual in (True, False):
            paper = Ports(random.Random(1), usual=usual, look=False)
            assert paper.promise(port) == port
            assert [paper.take(port + 1), paper.take(port)] == [port + 1, port + 2]
            with pytest.raises(StartError, match="at most 65535"):
                paper.promise(65536)
        with pytest.raises(StartError, match="is taken"):
            real.promise(port)
