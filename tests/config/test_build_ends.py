# SPDX-License-Identifier: Apache-2.0
"""What plugins with a hook at an answer's end imply, and where plugins count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from epp.config.build import Assembly, assemble
from epp.config.catalog import Catalog, collect
from epp.config.findings import ConfigErrors
from epp.config.load import load_text
from epp.config.plan import auto_response_phase
from epp.contract.metering import NoMeter
from epp.contract.plugins import Reads
from epp.observe.metrics.meter import CountingMeter
from epp.testing import FakeClock

CODE = """
from epp.api import UsageWish, plugin


@plugin("ends")
class Ends:
    def on_response_end(self, request, end):
        return {}


@plugin("wishes")
class Wishes:
    usage_wish = UsageWish.ASK


@plugin("wishes-nothing")
class WishesNothing:
    usage_wish = UsageWish.NEVER


@plugin("wishes-nonsense")
class WishesNonsense:
    usage_wish = "hidden"


@plugin("counts")
class Counts:
    def __init__(self, context):
        self.meter = context.meter
        self.counter = context.meter.counter("x_things", "Things.", ("kind",))
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "mine.py").write_text(CODE)
    return collect(tmp_path, points=())


def build(types: Sequence[str], catalog: Catalog, meter: CountingMeter | None = None) -> Assembly:
    named = ", ".join(f"{{type: {name}}}" for name in ("random-picker", *types))
    return assemble(load_text(f"plugins: [{named}]\n", catalog, source="test"), FakeClock(), 1, meter)


@pytest.mark.parametrize(("types", "phase"), [
    ([], "release"), (["ends"], "full"), (["wishes"], "full"), (["wishes-nothing"], "release"),
    (["wishes-nothing", "ends"], "full"),
])  # fmt: skip
def test_answers_are_followed_to_the_end_that_somebody_wants(types: list[str], phase: str, catalog: Catalog) -> None:
    found = build(types, catalog)
    assert (Reads.RESPONSE_BODY in found.reads) is (phase == "full")
    assert auto_response_phase(found.reads) == phase
    wanting = tuple(name for name in types if name != "wishes-nothing")
    assert found.configuration.readers(Reads.RESPONSE_BODY) == wanting


def test_a_wish_that_is_none_is_refused_in_one_line(catalog: Catalog) -> None:
    with pytest.raises(ConfigErrors, match=r"usage_wish is 'hidden'; set it to one of epp\.api\.UsageWish"):
        build(["wishes-nonsense"], catalog)


def test_plugins_count_where_they_are_told(catalog: Catalog) -> None:
    meter = CountingMeter()
    for _ in range(2):
        build(["counts"], catalog, meter).objects["counts"].counter.add(("a",), 2)
    [(family, rows)] = meter.families()
    assert (family.names[0].name, rows) == ("x_things_total", [({"kind": "a"}, 4.0)])
    assert isinstance(build(["counts"], catalog).objects["counts"].meter, NoMeter)
