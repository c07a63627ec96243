# SPDX-License-Identifier: Apache-2.0
"""Which configuration is whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.service.pools.configs import ANNOTATION, BUILT_IN_CONFIGURATION, Given, choose, unused
from epp.service.pools.folder import File
from epp.service.pools.identity import PoolId

POOL = PoolId("team-a", "llama")
FILES = {stem: File(Path(f"/c/{stem}.yaml"), stem) for stem in ("team-a.llama", "llama", "default")}
FLAG = Given("flag", "--config-text")


@pytest.mark.parametrize(
    ("annotation", "stems", "otherwise", "text", "source"),
    [
        ("own", ("team-a.llama", "llama", "default"), FLAG, "own", f"annotation {ANNOTATION} of pool team-a/llama"),
        ("", ("team-a.llama", "llama", "default"), FLAG, "team-a.llama", "/c/team-a.llama.yaml"),
        (" \n", ("llama", "default"), FLAG, "llama", "/c/llama.yaml"),
        ("", ("default",), FLAG, "default", "/c/default.yaml"),
        ("", (), FLAG, "flag", "--config-text"),
        ("", (), BUILT_IN_CONFIGURATION, "", "built-in configuration"),
    ],
)
def test_the_nearest_configuration_counts(
    annotation: str, stems: tuple[str, ...], otherwise: Given, text: str, source: str
) -> None:
    files = {stem: FILES[stem] for stem in stems}
    assert choose(POOL, annotation, files, otherwise) == Given(text, source)


def test_a_file_that_cannot_be_read_is_not_passed_over() -> None:
    files = {"llama": File(Path("/c/llama.yaml"), error="no"), "default": FILES["default"]}
    assert choose(POOL, "", files) == Given("", "/c/llama.yaml", "no")


def test_files_of_no_pool() -> None:
    files = {**FILES, "qwen": File(Path("/c/qwen.yml")), "team-b.llama": File(Path("/c/team-b.llama.json"))}
    assert unused(files, [POOL]) == ["qwen.yml", "team-b.llama.json"]
    assert unused(files, []) == ["llama.yaml", "qwen.yml", "team-a.llama.yaml", "team-b.llama.json"]
