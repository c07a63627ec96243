# SPDX-License-Identifier: Apache-2.0
"""Catalogs for the tests of this folder; none looks at what happens to be installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from epp.config.catalog import Catalog, collect
from epp.config.configuration import Configuration
from epp.config.findings import ConfigErrors
from epp.config.load import load_text


@pytest.fixture
def catalog() -> Catalog:
    """The built-in plugins alone."""
    return collect(points=())


@pytest.fixture
def with_plugins(tmp_path: Path) -> Callable[[str], Catalog]:
    """The built-in plugins and those of one plugin file with the given source."""

    def make(source: str) -> Catalog:
        directory = tmp_path / "plugins"
        directory.mkdir(exist_ok=True)
        (directory / "mine.py").write_text(source)
        return collect(directory, points=())

    return make


@pytest.fixture
def load(catalog: Catalog) -> Callable[..., Configuration]:
    """Load a text with the built-in plugins."""

    def run(text: str, *, strict: bool = False) -> Configuration:
        return load_text(text, catalog, source="test", strict=strict)

    return run


@pytest.fixture
def mistakes(catalog: Catalog) -> Callable[..., list[str]]:
    """The mistakes of a text, with the built-in plugins."""

    def run(text: str, *, strict: bool = False) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            load_text(text, catalog, source="test", strict=strict)
        assert "\n" not in str(caught.value)
        return list(caught.value.mistakes)

    return run
