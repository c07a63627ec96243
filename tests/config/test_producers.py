# SPDX-License-Identifier: Apache-2.0
"""What plugins declare of themselves decides who is added and who acts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.config.catalog import Catalog
from epp.config.load import load_text
from epp.contract.plugins import Reads

WithPlugins = Callable[[str], Catalog]

MINE = """
from dataclasses import dataclass
from epp.api import Kind, Reads, plugin, scorer
import numpy as np


@scorer("prefix-fan", reads=Reads.PREFIX_MATCH)
class PrefixFan:
    @dataclass(frozen=True)
    class Parameters:
        prefix_match_info_producer_name: str = ""
        owns_index: bool = False

    def __init__(self, parameters, context):
        pass

    @classmethod
    def reads_for(cls, parameters):
        return Reads.PROMPT if parameters.owns_index else Reads.PREFIX_MATCH

    def score(self, request, endpoints):
        return np.zeros(len(endpoints))


@scorer("no-producer", reads=Reads.PREFIX_MATCH)
class NoProducer:
    needs_default_producer = False

    def score(self, request, endpoints):
        return np.zeros(len(endpoints))


@plugin("watcher", reads=Reads.RESPONSE_BODY)
class Watcher:
    def on_done(self, request, decision, completion):
        pass


@plugin("both", Kind.FILTER, Kind.SCORER)
class Both:
    def filter(self, request, endpoints):
        return np.ones(len(endpoints), dtype=bool)

    def score(self, request, endpoints):
        return np.zeros(len(endpoints))


@plugin("picky", reads=Reads.RUNNING)
class Picky:
    @classmethod
    def reads_for(cls, parameters):
        return "everything"
"""


def test_a_default_producer_is_added_only_where_it_is_read(with_plugins: WithPlugins) -> None:
    catalog = with_plugins(MINE)

    def producers(text: str) -> tuple[str, ...]:
        return load_text(text, catalog).producers

    default = ("approx-prefix-cache-producer",)
    assert producers("plugins: [{type: prefix-fan}]\n") == default
    assert producers("plugins: [{type: prefix-fan, parameters: {ownsIndex: true}}]\n") == ()
    assert producers("plugins: [{type: no-producer}]\n") == ()
    assert producers("plugins: [{type: prefix-fan}, {type: approx-prefix-cache-producer}]\n") == default
    named = "plugins: [{type: prefix-fan%s}, {type: approx-prefix-cache-producer, name: p1}]\n"
    assert producers(named % ", parameters: {prefixMatchInfoProducerName: p1}") == ("p1",)
    assert producers(named % "") == (*default, "p1")
    assert "publishes what no plugin reads" in load_text(named % "", catalog).warnings[0]
    own = load_text("plugins: [{type: prefix-fan, parameters: {ownsIndex: true}}]\n", catalog)
    assert own.reads & (Reads.PROMPT | Reads.PREFIX_MATCH) == Reads.PROMPT


def test_a_producer_that_is_not_there_is_a_mistake(with_plugins: WithPlugins) -> None:
    catalog = with_plugins(MINE)
    for name in ("p2", "prefix-fan"):
        text = f"plugins: [{{type: prefix-fan, parameters: {{prefixMatchInfoProducerName: {name}}}}}]\n"
        with pytest.raises(Exception, match="no default producer found for missing data key PrefixCacheMatchInfo/"):
            load_text(text, catalog)


def test_hooks_act_without_a_profile(with_plugins: WithPlugins) -> None:
    found = load_text("plugins: [{type: watcher}, {type: queue-scorer}]\n", with_plugins(MINE))
    assert "watcher" in found.active
    assert Reads.RESPONSE_BODY in found.reads
    assert found.readers(Reads.RESPONSE_BODY) == ("watcher",)


def test_a_plugin_of_two_kinds_is_in_both_lists(with_plugins: WithPlugins) -> None:
    found = load_text("plugins: [{type: both}]\n", with_plugins(MINE))
    assert found.profiles[0].filters == ("both",)
    assert [scorer.name for scorer in found.profiles[0].scorers] == ["both"]


def test_what_a_plugins_reads_for_raises_is_one_line(with_plugins: WithPlugins) -> None:
    with pytest.raises(Exception, match=r"^x: line 1: failed to create plugin 'picky' \(type: picky\): reads_for"):
        load_text("plugins: [{type: picky}, {type: queue-scorer}]\n", with_plugins(MINE), source="x")
