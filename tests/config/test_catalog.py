# SPDX-License-Identifier: Apache-2.0
"""Where plugins come from: the table, entry points, plugin files; and what goes wrong there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from epp.config.builtin import BUILTIN
from epp.config.catalog import Catalog, collect
from epp.config.findings import ConfigErrors
from epp.config.load import load_text
from epp.contract.errors import ConfigError

SCORER = """
from epp.api import scorer

@scorer("{name}")
def score(request, endpoints):
    return 1.0 - endpoints.kv_utilization
"""


def errors_of(directory: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        collect(directory, points=())
    return list(caught.value.mistakes)


def test_the_table_matches_the_tags() -> None:
    catalog = Catalog()
    for name, dotted in BUILTIN.items():
        entry = catalog.find(name)
        assert entry is not None
        assert name in (entry.spec.type, *entry.spec.aliases)
        for other in (entry.spec.type, *entry.spec.aliases):
            assert BUILTIN[other] == dotted


def test_only_what_is_named_is_imported() -> None:
    program = (
        "import sys; from epp.config.catalog import Catalog; c = Catalog(); c.find('queue-scorer');"
        "print([m for m in sorted(sys.modules) if m.startswith('epp.plugins.') and m.count('.') == 3])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['epp.plugins.scorers.queue']"


def test_a_broken_built_in_is_one_line() -> None:
    catalog = Catalog({"a": "epp.nowhere:A", "b": "epp.config.load:nothing", "c": "epp.config.load:load_text"})
    for name, reason in (("a", "No module named"), ("b", "has no attribute 'nothing'"), ("c", "is not tagged")):
        with pytest.raises(ConfigError, match=f"built-in plugin type '{name}' cannot be loaded: .*{reason}"):
            catalog.find(name)


def test_files_load_in_order_of_their_names_and_skip_hidden_ones(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(SCORER.format(name="second"))
    (tmp_path / "a-1.py").write_text(SCORER.format(name="first"))
    (tmp_path / "_helper.py").write_text("raise SystemError")
    (tmp_path / ".hidden.py").write_text("raise SystemError")
    (tmp_path / "notes.txt").write_text("(")
    (tmp_path / "empty.py").write_text("")
    catalog = collect(tmp_path, points=())
    assert {"first", "second"} < set(catalog.names())
    entry = catalog.find("first")
    assert entry is not None
    assert entry.place == f"plugin file {tmp_path / 'a-1.py'}"
    assert catalog.warnings == [f"plugin file {tmp_path / 'empty.py'}: defines no plugin"]
    assert load_text("plugins: [{type: first}]\n", catalog).warnings == tuple(catalog.warnings)


def test_a_replaced_file_of_equal_time_and_size_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"assert __file__ == {str(path)!r}\n" + SCORER.format(name="mine-0"))
    assert "mine-0" in collect(tmp_path, points=())
    for name in ("mine-1", "mine-2"):
        path.write_text(SCORER.format(name=name))
        os.utime(path, (1, 1))
        assert name in collect(tmp_path, points=())
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]


def test_files_of_a_mounted_config_map(tmp_path: Path) -> None:
    (tmp_path / "..2026_01").mkdir()
    (tmp_path / "..2026_01" / "mine.py").write_text(SCORER.format(name="mine"))
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "mine.py").symlink_to("..data/mine.py")
    assert "mine" in collect(tmp_path, points=())


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("x = 1\ndef f(:\n", 2, "invalid syntax"),
        ("import math\n\nimport nowhere_to_be_found\n", 3, "ModuleNotFoundError: No module named"),
        ("def f():\n    raise ValueError('two\\nlines')\nf()\n", 2, "ValueError: two lines"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("x = '\x00'\n", 0, "source code string cannot contain null bytes"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, source: str, line: int, reason: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    (mistake,) = errors_of(tmp_path)
    assert mistake.startswith(f"plugin file {tmp_path / 'mine.py'}, line {line}: {reason}") or not line
    assert reason in mistake
    assert not [name for name in sys.modules if name.startswith("_epp_plugin_") and name.endswith("_mine")]


def test_every_broken_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("(")
    (tmp_path / "b.py").write_text(")")
    assert [mistake.split(",")[0] for mistake in errors_of(tmp_path)] == [
        f"plugin file {tmp_path / 'a.py'}", f"plugin file {tmp_path / 'b.py'}",
    ]  # fmt: skip


def test_a_type_defined_twice_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SCORER.format(name="mine"))
    (tmp_path / "b.py").write_text(SCORER.format(name="mine"))
    (tmp_path / "c.py").write_text(SCORER.format(name="kv-cache-scorer"))
    assert errors_of(tmp_path) == [
        (
            f"plugin type 'mine' is defined twice: plugin file {tmp_path / 'a.py'} and plugin file {tmp_path / 'b.py'};"
            " rename one of them"
        ),
        (
            f"plugin type 'kv-cache-scorer' is defined twice: built in ({BUILTIN['kv-cache-scorer']}) and plugin file"
            f" {tmp_path / 'c.py'}; rename one of them"
        ),
    ]


def test_what_a_file_only_imports_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from epp.plugins.scorers.load_aware import LoadAwareScorer\n"
        "class Mine(LoadAwareScorer):\n    pass\n" + SCORER.format(name="mine")
    )
    catalog = collect(tmp_path, points=())
    assert [name for name in catalog.names() if name not in BUILTIN] == ["mine"]


def test_missing_and_empty_directories(tmp_path: Path) -> None:
    assert errors_of(tmp_path / "none") == [
        f"plugin directory {tmp_path / 'none'}: No such file or directory; give a directory of .py files"
    ]
    assert collect(tmp_path, points=()).warnings == [f"plugin directory {tmp_path}: holds no .py file"]


def test_parameters_that_cannot_be_read_name_the_file(with_plugins: Callable[[str], Catalog]) -> None:
    catalog = with_plugins(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom epp.api import scorer\n"
        "@scorer('odd')\nclass Odd:\n    @dataclass\n    class Parameters:\n        x: Nowhere = 1\n"
        "    def score(self, request, endpoints):\n        return 0\n"
    )
    with pytest.raises(ConfigErrors, match=r"plugin 'odd' \(odd\) declares parameters that cannot be read \(plugin f"):
        load_text("plugins: [{type: odd}]\n", catalog)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a distribution that consists of one module and one entry point."""

    def install(source: str, point: str) -> None:
        site = tmp_path / "site"
        info = site / "some_dist-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-dist\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[epp.plugins]\n{point}\n")
        (site / "some_dist_module.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "some_dist_module", raising=False)

    return install


def ours() -> list[EntryPoint]:
    return [point for point in entry_points(group="epp.plugins") if point.dist and point.dist.name == "some-dist"]


@pytest.mark.parametrize("value", ["some_dist_module", "some_dist_module:score"])
def test_an_installed_distribution_adds_plugins(distribution: Callable[[str, str], None], value: str) -> None:
    distribution(SCORER.format(name="installed"), f"mine = {value}")
    entry = collect(points=ours()).find("installed")
    assert entry is not None
    assert entry.place == f"entry point mine = {value} of distribution some-dist 1.2"
    assert "installed" in collect()


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("(", "some_dist_module", "SyntaxError: '(' was never closed"),
        ("raise RuntimeError('no')", "some_dist_module", "RuntimeError: no"),
        ("", "some_dist_module:Thing", "AttributeError: module 'some_dist_module' has no attribute 'Thing'"),
        ("", "nowhere_module", "ModuleNotFoundError: No module named 'nowhere_module'"),
    ],
)
def test_a_broken_distribution_is_named(
    distribution: Callable[[str, str], None], source: str, value: str, reason: str
) -> None:
    distribution(source, f"mine = {value}")
    with pytest.raises(ConfigErrors) as caught:
        collect(points=ours())
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"entry point mine = {value} of distribution some-dist 1.2: {reason}")
    assert mistake.endswith("; repair or uninstall the distribution")


def test_entry_points_that_are_no_plugins(distribution: Callable[[str, str], None]) -> None:
    distribution("x = 1\n", "mine = some_dist_module\n")
    assert collect(points=ours()).warnings == [
        "entry point mine = some_dist_module of distribution some-dist 1.2: the module defines no plugin"
    ]


def test_an_entry_point_to_something_untagged(distribution: Callable[[str, str], None]) -> None:
    distribution("def x(): pass\n", "mine = some_dist_module:x\n")
    with pytest.raises(ConfigErrors, match="is not tagged as a plugin; put @plugin, @scorer, @filter or @picker on it"):
        collect(points=ours())
