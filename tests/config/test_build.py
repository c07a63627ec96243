# SPDX-License-Identifier: Apache-2.0
"""Configurations to objects: order, randomness, hooks, and factories that fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.config.build import Assembly, assemble
from epp.config.catalog import Catalog
from epp.config.findings import ConfigErrors
from epp.config.load import load_text
from epp.contract.plugins import Reads
from epp.testing import FakeClock

WithPlugins = Callable[[str], Catalog]

MINE = """
from epp.api import Kind, Reads, plugin, scorer
import numpy as np

made = []


@scorer("counts")
class Counts:
    def __init__(self, context):
        made.append(context.name)
        self.context = context
        self.draw = context.rng.random()

    def score(self, request, endpoints):
        return np.zeros(len(endpoints))


@scorer("also-produces")
class AlsoProduces:
    reads = Reads.PROMPT

    def score(self, request, endpoints):
        return np.zeros(len(endpoints))

    def produce(self, request, endpoints):
        return None

    def on_endpoint_added(self, endpoint):
        pass

    def on_endpoint_removed(self, endpoint):
        pass


@plugin("watcher")
class Watcher:
    def on_routed(self, request, decision):
        pass

    def on_done(self, request, decision, completion):
        pass


@plugin("first", Kind.PRODUCER)
class First:
    def produce(self, request, endpoints):
        return None


@scorer("fails")
class Fails:
    def __init__(self, context):
        raise RuntimeError("no\\nway")


@scorer("fails-silently")
class FailsSilently:
    def __init__(self, context):
        raise KeyError


@scorer("scoreless")
class Scoreless:
    pass
"""


def build(text: str, catalog: Catalog, seed: int | None = 1) -> Assembly:
    return assemble(load_text(text, catalog, source="test"), FakeClock(), seed)


def test_the_built_in_configuration_is_assembled(catalog: Catalog) -> None:
    found = build("", catalog)
    (profile,) = found.profiles
    assert [(s.name, s.weight) for s in profile.scorers] == [
        ("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0),
    ]  # fmt: skip
    assert profile.picker.object is found.objects["max-score-picker"]
    assert found.handler.name == "single-profile-handler"
    names = ["approx-prefix-cache-producer"]
    for hooks in (found.producers, found.routed_hooks, found.done_hooks, found.endpoint_hooks):
        assert [hook.name for hook in hooks] == names
    assert found.discovery is None
    needed = Reads.WAITING | Reads.KV_UTILIZATION | Reads.PREFIX_MATCH | Reads.PROMPT
    assert needed in found.reads


def test_a_prefix_scorer_with_parameters_of_old_keeps_its_own_index(catalog: Catalog) -> None:
    found = build(
        "plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSize: 64, lruCapacityPerServer: 31250}}]\n",
        catalog,
    )
    for hooks in (found.producers, found.routed_hooks, found.done_hooks, found.endpoint_hooks):
        assert [hook.name for hook in hooks] == ["prefix-cache-scorer"]
    assert found.configuration.producers == ("prefix-cache-scorer",)
    assert "approx-prefix-cache-producer" not in found.objects
    assert Reads.PROMPT in found.reads
    assert Reads.CACHE_CONFIG not in found.reads


def test_objects_are_made_in_order_with_a_name_a_clock_and_randomness_of_their_own(with_plugins: WithPlugins) -> None:
    catalog = with_plugins(MINE)
    found = build("plugins: [{type: counts, name: b}, {type: counts, name: a}]\n", catalog)
    assert found.objects["b"].context.clock is found.objects["a"].context.clock
    entry = catalog.find("counts")
    assert entry is not None
    assert entry.target.__init__.__globals__["made"] == ["b", "a"]
    assert found.objects["a"].draw != found.objects["b"].draw
    alone = build("plugins: [{type: counts, name: a}]\n", catalog)
    assert alone.objects["a"].draw == found.objects["a"].draw
    assert build("plugins: [{type: counts, name: a}]\n", catalog, 2).objects["a"].draw != alone.objects["a"].draw
    unseeded = {build("plugins: [{type: counts}]\n", catalog, None).objects["counts"].draw for _ in range(2)}
    assert len(unseeded) == 2


def test_objects_act_wherever_their_methods_say(with_plugins: WithPlugins) -> None:
    found = build(
        "plugins: [{type: also-produces}, {type: watcher}, {type: first}, {type: queue-scorer}]\n"
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer}]}]\n",
        with_plugins(MINE),
    )
    assert [producer.name for producer in found.producers] == ["first", "also-produces"]
    assert [hook.name for hook in found.routed_hooks] == ["watcher"]
    assert [hook.name for hook in found.done_hooks] == ["watcher"]
    assert [hook.name for hook in found.endpoint_hooks] == ["also-produces"]
    assert Reads.PROMPT in found.reads
    assert found.configuration.readers(Reads.PROMPT) == ("also-produces",)


def test_discovery_is_handed_on(catalog: Catalog) -> None:
    found = build(
        "plugins: [{type: file-discovery, parameters: {path: /nowhere.yaml}}]\n"
        "dataLayer: {discovery: {pluginRef: file-discovery}}\n",
        catalog,
    )
    assert found.discovery is not None
    assert found.discovery.object is found.objects["file-discovery"]


def test_every_factory_that_fails_is_one_line(with_plugins: WithPlugins) -> None:
    catalog = with_plugins(MINE)
    with pytest.raises(ConfigErrors) as caught:
        build("plugins:\n- {type: fails, name: f}\n- type: scoreless\n- type: fails-silently\n", catalog)
    entry = catalog.find("scoreless")
    assert entry is not None
    assert caught.value.mistakes == (
        "line 2: failed to create plugin 'f' (type: fails): no way",
        (
            "line 3: failed to create plugin 'scoreless' (type: scoreless): a scorer has score(request, endpoints), this"
            f" one does not ({entry.place})"
        ),
        "line 4: failed to create plugin 'fails-silently' (type: fails-silently): KeyError",
    )
