# SPDX-License-Identifier: Apache-2.0
"""The gallery's configurations, loaded as the service loads them, with plugins/ as the plugin directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.api import Reads
from epp.config.build import Assembly, assemble
from epp.config.catalog import collect
from epp.config.findings import ConfigErrors
from epp.config.load import load_file, load_text
from epp.testing import FakeClock, make_endpoints, make_request

GALLERY = Path(__file__).parents[2] / "plugins"


def assembly(name: str) -> Assembly:
    configuration = load_file(GALLERY / f"{name}.yaml", collect(GALLERY), strict=True)
    assert configuration.warnings == ()
    return assemble(configuration, FakeClock(), rng_seed=0)


def test_free_kv() -> None:
    assembled = assembly("free_kv")
    (profile,) = assembled.profiles
    assert [(scorer.name, scorer.weight) for scorer in profile.scorers] == [("free-kv", 2.0), ("queue-scorer", 1.0)]
    assert profile.filters == ()
    assert assembled.reads == Reads.KV_UTILIZATION | Reads.WAITING | Reads.IN_FLIGHT
    scores = profile.scorers[0].object.score(make_request(), make_endpoints(kv_utilization=[0.25, 1.0]))
    assert scores.tolist() == [0.75, 0.0]


def test_tenant_pool() -> None:
    (profile,) = assembly("tenant_pool").profiles
    assert [named.name for named in profile.filters] == ["tenant-pool-filter"]
    assert [scorer.name for scorer in profile.scorers] == ["queue-scorer", "kv-cache-utilization-scorer"]
    endpoints = make_endpoints(labels=[{"tenant": "acme"}, {"tenant": "beta"}])
    acme, other = (make_request(headers={"x-tenant": tenant}) for tenant in ("acme", "other"))
    assert profile.filters[0].object.filter(acme, endpoints).tolist() == [True, False]
    # The file says `strict: true`.
    assert profile.filters[0].object.filter(other, endpoints).tolist() == [False, False]


def test_without_the_plugin_directory_the_type_is_unknown() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_file(GALLERY / "free_kv.yaml", collect())
    assert "plugin type 'free-kv' is not registered" in str(caught.value)


def test_a_refused_parameter_is_one_line_with_its_place() -> None:
    text = (GALLERY / "tenant_pool.yaml").read_text().replace("label: tenant", 'label: ""')
    with pytest.raises(ConfigErrors) as caught:
        load_text(text, collect(GALLERY), source="tenant_pool.yaml")
    (mistake,) = caught.value.mistakes
    assert "plugin 'tenant-pool-filter'" in str(mistake)
    assert "header and label must not be empty" in str(mistake)


EVERY_BUILT_IN = """
plugins:
- type: queue-scorer
  parameters: {anything: 1}
- type: kv-cache-scorer
  parameters: {anything: 1}
- type: running-requests-size-scorer
  parameters: {anything: 1}
- type: load-aware-scorer
  parameters: {threshold: 10}
- type: active-request-scorer
  parameters: {requestTimeout: 2m, idleThreshold: 1, maxBusyScore: 0.5, inFlightLoadProducerName: load}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}
- {type: random-picker, parameters: {maxNumOfEndpoints: 2}}
- {type: weighted-random-picker, parameters: {maxNumOfEndpoints: 2}}
- type: single-profile-handler
  parameters: {anything: 1}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: kv-cache-scorer
  - pluginRef: running-requests-size-scorer
  - pluginRef: load-aware-scorer
  - pluginRef: active-request-scorer
  - pluginRef: max-score-picker
"""


def test_the_built_in_plugins_take_their_documented_parameters() -> None:
    configuration = load_text(EVERY_BUILT_IN, collect(), strict=True)
    assembled = assemble(configuration, FakeClock(), rng_seed=0)
    request, total = make_request(), make_endpoints(3).waiting
    endpoints = make_endpoints(waiting=[2, 0, 15], running=[0, 1, 2], in_flight_requests=[0, 2, 4])
    scores = {s.name: s.object.score(request, endpoints).tolist() for s in assembled.profiles[0].scorers}
    assert scores["load-aware-scorer"] == [0.4, 0.5, 0.0]
    assert scores["active-request-scorer"] == [1.0, 0.25, 0.0]
    for picker in ("max-score-picker", "random-picker", "weighted-random-picker"):
        assert len(assembled.objects[picker].pick(request, endpoints, total)) == 2
