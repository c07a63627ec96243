# SPDX-License-Identifier: Apache-2.0
"""Which pools the command line asks for."""

from __future__ import annotations

from pathlib import Path
from shlex import split

import pytest

from epp.contract.errors import UsageError
from epp.service.flags.parsing import parse


@pytest.mark.parametrize(
    ("argv", "name", "names", "namespace"),
    [
        ("", "", (), "home"),
        ("--pool-name a", "a", (), "home"),
        ("--pool-name a --poolName a", "a", (), "home"),
        ("--pool-name a --pool-name= --pool-name a --pool-namespace n", "a", (), "n"),
        ("--pool-name a --pool-name b --pool-name a", "", ("a", "b"), "home"),
        ("--pool-name a,b", "", ("a", "b"), "home"),
        ("--pool-name *", "", ("*",), "home"),
        ("--pool-name * --pool-name b", "", ("*",), "home"),
        ("--pool-name * --pool-namespace *", "", ("*",), "*"),
        ("--pool-name a --pool-namespace *", "", ("a",), "*"),
        ("--pool-name a --config-dir /c", "", ("a",), "home"),
        ("--endpoints-dir /e", "", ("*",), "*"),
        ("--endpoints-dir /e --pool-namespace n", "", ("*",), "n"),
        ("--endpoints-dir /e --pool-name a", "", ("a",), "home"),
    ],
)
def test_pools(argv: str, name: str, names: tuple[str, ...], namespace: str) -> None:
    options = parse(split(argv), {"NAMESPACE": "home"})
    assert (options.pool_name, options.pool_names, options.pool_namespace) == (name, names, namespace)
    assert options.lease_namespace == ("home" if namespace == "*" else "")
    assert not (options.conformance and names)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--pool-name a --pool-name b --endpoints 10.0.0.1:80", "--endpoints is of one pool"),
        ("--pool-name * --endpoints-file /e", "--endpoints-file is of one pool"),
        ("--endpoints-dir /e --endpoint-selector a=b --endpoint-target-ports 80", "--endpoint-selector is of one pool"),
        ("--pool-namespace *", "--pool-namespace '*' needs --pool-name"),
        (
            "--pool-name a --pool-ports 9050-9010",
            'invalid argument "9050-9010" for "--pool-ports" flag: must be LOW-HIGH',
        ),
        ("--pool-name a --pool-ports 0", "must be LOW-HIGH"),
        ("--pool-name a --pool-ports 1-70000", "must be LOW-HIGH"),
    ],
)
def test_mistakes(argv: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(split(argv), {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "note"),
    [
        ("--pool-name a --pool-name b", "--pool-name names 2 pools, and each is served: a, b"),
        ("--pool-name b --pool-name *", "the other names add nothing"),
        ("--config-dir /c", "--config-dir says something only where pools are named"),
        ("--pool-name a --pool-ports 9010-9020", "--pool-ports says something only where"),
    ],
)
def test_notes(argv: str, note: str) -> None:
    assert any(note in warning for warning in parse(split(argv), {}).warnings)


def test_values() -> None:
    options = parse(split("--pool-name a,b --pool-ports 9010-9020 --config-dir /c"), {})
    assert (options.pool_ports, options.config_dir) == ((9010, 9020), Path("/c"))
    assert parse(split("--pool-name * --pool-ports 9010"), {}).pool_ports == (9010, 9010)
